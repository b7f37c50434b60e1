"""BuildKit's plain progress: what ``buildctl build --progress=plain`` prints, line for line.

Steps are numbered in the order in which they are first printed; what ran at the same time is printed in
blocks, each closed by ``#N ...`` when another step takes over (util/progress/progressui/printer.go). Scripts
read this output, so its form is BuildKit's; only what BuildKit does not know, such as a mirror that served an
image, is said in an additional line of the same form.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bknb.digest import Digest
from bknb.display.ansi import plain
from bknb.display.excerpt import excerpt
from bknb.display.model import BuildView, State, StepView, fold_all
from bknb.events import Event, StatusEvent

KEPT_LINES = 10
"""Log lines that are repeated under a failed step."""
SMALLEST_STEP, SHORTEST_TIME = 0.05, 5.0
"""A status is printed again after this share of its total, or after these seconds."""
LONGEST_SILENCE = 10.0
"""Seconds after which a running step takes over from another that still runs: blocks stay whole."""


@dataclass(slots=True)
class _Printed:
    """What of one step has been printed."""

    index: int
    log: int = 0
    partial: bool = False
    warnings: int = 0
    noted: bool = False
    closed: tuple[State, int] | None = None
    statuses: dict[str, StatusEvent] = field(default_factory=dict)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))


class PlainProgress:
    """Prints a build while it runs.

    `feed` takes events as they come, from one thread; `finish` prints the blocks about failed steps. `write`
    is given whole lines, save where a step itself has not ended its line yet.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._view = BuildView()
        self._printed: dict[Digest, _Printed] = {}
        self._current: Digest | None = None
        self._pending: dict[Digest, float] = {}
        self._now = 0.0

    @property
    def view(self) -> BuildView:
        """What has been fed so far."""
        return self._view

    def feed(self, events: Iterable[Event]) -> None:
        """Prints what these events change."""
        batch = list(events)
        self._view = fold_all(self._view, batch)
        for event in batch:
            if (digest := _subject(event)) is not None:
                self._pending.setdefault(digest, getattr(event, "time", 0.0))
            self._now = max(self._now, getattr(event, "time", 0.0))
        self._print(patient=True)

    def _print(self, *, patient: bool) -> None:
        """Prints what is pending: what ended, then the current step, then whoever waited for long enough."""
        steps = [s for d in self._pending if (s := self._view.steps.get(d)) is not None and _speaks(s)]
        for step in sorted(
            (s for s in steps if s.state.ended), key=lambda s: (s.digest != self._current, s.completed or 0.0)
        ):
            self._step(step)
        for step in sorted(
            (s for s in steps if not s.state.ended),
            key=lambda s: (s.digest != self._current, s.started or 0.0),
        ):
            overdue = self._now - self._pending[step.digest] > LONGEST_SILENCE
            if self._current in (None, step.digest) or overdue or not patient:
                self._step(step)

    def finish(self) -> None:
        """Prints the blocks about what failed, and the excerpt of the Dockerfile."""
        self._print(patient=False)
        for step in self._view.failed:
            self._write(f"------\n > {plain(step.name)}:\n")
            for line in self._printed[step.digest].last if step.digest in self._printed else ():
                self._write(f"{line}\n")
            self._write("------\n")
        for step in self._view.failed[:1]:
            if text := excerpt(self._view.dockerfile, step.ranges, self._view.filename):
                self._write(text)

    def _step(self, step: StepView) -> None:
        self._pending.pop(step.digest, None)
        printed = self._printed.get(step.digest)
        if printed is None:
            printed = self._printed[step.digest] = _Printed(len(self._printed) + 1)
        ended = (step.state, len(step.intervals)) if step.state.ended else None
        if ended is not None and printed.closed == ended and printed.log == len(step.log):
            return
        self._take_over(step, printed)
        tag = f"#{printed.index}"
        for status in step.statuses.values():
            self._status(tag, printed, status)
        for warning in step.warnings[printed.warnings :]:
            self._write(f"{tag} WARN: {plain(warning.short)}\n")
        printed.warnings = len(step.warnings)
        if step.note and not printed.noted:
            self._write(f"{tag} {plain(step.note)}\n")
            printed.noted = True
        self._log(tag, step, printed)
        if ended is not None:
            self._end_line(printed)
            self._write(f"{tag} {_verdict(step)}\n")
            printed.closed = ended
            self._current = None

    def _take_over(self, step: StepView, printed: _Printed) -> None:
        if self._current == step.digest:
            return
        if self._current is not None:
            before = self._printed[self._current]
            self._end_line(before)
            self._write(f"#{before.index} ...\n")
        self._write(("\n" if len(self._printed) > 1 else "") + f"#{printed.index} {plain(step.name)}\n")
        self._current = step.digest

    def _end_line(self, printed: _Printed) -> None:
        if printed.partial:
            self._write("\n")
            printed.partial = False

    def _status(self, tag: str, printed: _Printed, status: StatusEvent) -> None:
        last = printed.statuses.get(status.id)
        if last == status:
            return
        if last is not None and status.completed is None:
            grown = (status.current - last.current) / status.total if status.total else 0.0
            if grown < SMALLEST_STEP and status.time - last.time < SHORTEST_TIME:
                return
        printed.statuses[status.id] = status
        amount = f" {_bytes(status.current)}" if status.current or status.total else ""
        if status.total:
            amount += f" / {_bytes(status.total)}"
        end = status.completed if status.completed is not None else status.time
        spent = end - status.started if status.started is not None else 0.0
        amount += f" {spent:.1f}s" if spent > 0.01 else ""
        done = " done" if status.completed is not None else ""
        self._write(f"{tag} {plain(status.id)}{amount}{done}\n")

    def _log(self, tag: str, step: StepView, printed: _Printed) -> None:
        for event in step.log[printed.log :]:
            spent = max(0.0, event.time - (step.started if step.started is not None else event.time))
            stamp = f"{spent:.{3 if spent < 10 else 2 if spent < 100 else 1}f}"
            for line in event.data.decode("utf-8", "replace").splitlines(keepends=True):
                text = plain(line.rstrip("\r\n"))
                if printed.partial:
                    self._write(text)
                    printed.last[-1] += text
                else:
                    self._write(f"{tag} {stamp} {text}")
                    printed.last.append(f"{stamp} {text}")
                printed.partial = not line.endswith(("\n", "\r"))
                if not printed.partial:
                    self._write("\n")
        printed.log = len(step.log)


def _subject(event: Event) -> Digest | None:
    digest = getattr(event, "digest", None) or getattr(event, "vertex", None)
    return digest if isinstance(digest, Digest) else None


def _speaks(step: StepView) -> bool:
    """Whether plain progress shows a step at all: not before it began, and never if it was not needed."""
    return step.known and bool(step.intervals or (step.state.ended and step.state is not State.SKIPPED))


def _verdict(step: StepView) -> str:
    if step.state is State.FAILED:
        return f"ERROR: {plain(step.error)}"
    if step.state is State.CANCELLED:
        return "CANCELED"
    if step.state.cached:
        return "CACHED"
    return f"DONE {step.duration or 0.0:.1f}s"


def _bytes(value: int) -> str:
    """As BuildKit prints bytes: two digits after the point, decimal units."""
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{value}B" if unit == "B" else f"{amount:.2f}{unit}"


PREFIX = re.compile(r"^#\d+ ")
"""How every line of plain progress begins, save the blocks at the end."""
