"""A live display for terminals: finished steps scroll away above, running ones stay below with a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bknb.digest import Digest
from bknb.display import amounts, sentence
from bknb.display.ansi import plain
from bknb.display.boxes import status
from bknb.display.excerpt import excerpt
from bknb.display.model import BuildView, State, StepView
from bknb.display.palette import LOOKS
from bknb.events import Event

MOST_RUNNING, LOG_LINES, FAILURE_LINES = 8, 4, 12


class Terminal:
    """One build in a terminal. Text goes through `rich.text.Text`: nothing in it is markup."""

    keeps = False

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self._printed: set[Digest] = set()

    def show(self, view: BuildView, events: Sequence[Event], ops: dict[Digest, object]) -> None:
        """Prints what ended since the last call and draws what runs."""
        self._print_ended(view)
        self._live.update(Group(*self._running(view)), refresh=True)

    def settle(self) -> None:
        """Nothing is drawn elsewhere."""

    def finish(self, view: BuildView, shown: Any, *, raw: bool) -> None:
        """Prints the rest, and why it failed if it did."""
        self._print_ended(view)
        self._live.stop()
        for step in view.failed[:1]:
            for line in plain(step.log_bytes[-16_000:]).rstrip("\n").split("\n")[-FAILURE_LINES:]:
                self._console.print(Text(f"  {line}"), soft_wrap=True)
            if text := excerpt(view.dockerfile, step.ranges, view.filename):
                self._console.print(Text(text.rstrip("\n")), soft_wrap=True)
        first = sentence.headline(view)
        look = LOOKS[first.state]
        self._console.print(Text.assemble((f"{look.sign} ", look.line), str(first)), soft_wrap=True)
        if why := sentence.explanation(view):
            self._console.print(Text(f"  {why}", style="dim"), soft_wrap=True)

    def _print_ended(self, view: BuildView) -> None:
        for step in view.shown:
            if step.state.ended and step.digest not in self._printed and step.state is not State.SKIPPED:
                self._printed.add(step.digest)
                self._console.print(_line(step, status(step).partition(" ")[2]), soft_wrap=True)

    def _running(self, view: BuildView) -> Iterator[Text]:
        now = time.time()
        running = [step for step in view.shown if step.state is State.RUNNING]
        for step in running[:MOST_RUNNING]:
            yield _line(step, amounts.seconds(max(0.0, now - (step.started or now))))
            for progress in list(step.statuses.values())[-LOG_LINES:]:
                if progress.completed is None and progress.total:
                    share = f"{amounts.size(progress.current)} of {amounts.size(progress.total)}"
                    yield Text(f"    {amounts.cut(plain(progress.id), 30)}  {share}", style="dim")
        if running and running[-1].log:
            tail = plain(running[-1].log_bytes[-2000:]).rstrip("\n").split("\n")[-LOG_LINES:]
            for line in tail:
                yield Text(f"    {line}"[: self._console.width - 1], style="dim")
        yield Text(str(sentence.headline(view, now=now)), style="dim")


def _line(step: StepView, remark: str) -> Text:
    look = LOOKS[step.state]
    stage = f"[{step.stage}] " if step.stage else ""
    label = "context" if step.kind == "local" else amounts.cut(step.label, 100)
    return Text.assemble((f"{look.sign} ", look.line), (stage, "dim"), label, (f"  {remark}", "dim"))
