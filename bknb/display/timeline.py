"""What ran beside what, and what waited for what: a chart with a row for each step that took time.

A bar is the time in which a step worked. Before it, a thin line is the time in which it was held up, with
the cause written at it; a hook joins a bar to the input whose end set it off. Bars on the longest chain are
full, others lighter: making one of those faster makes the build no faster.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bknb.digest import Digest
from bknb.display import amounts
from bknb.display.model import HIDDEN_KINDS, BuildView, State, StepView
from bknb.display.palette import GREY, LOOKS, SANS
from bknb.display.svg import fit, text_width

WIDTH, LABELS, ROW, AXIS = 980.0, 250.0, 21.0, 22.0
MOST_ROWS = 30
SHORTEST = 0.001
"""Steps that took less seconds are not drawn."""
AT_ONCE = 0.05
"""A step that begins within these seconds of an input's end was set off by it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps that decided how long the build took, first one in front; `seconds` is their sum."""

    steps: tuple[StepView, ...]
    seconds: float


def worked(view: BuildView) -> list[StepView]:
    """Steps that took time, in order of their beginning."""
    now = _end(view)
    took = [s for s in view.steps.values() if s.known and s.started is not None and not s.state.cached]
    took = [s for s in took if (s.completed or now) - (s.started or now) >= SHORTEST]
    return sorted(took, key=lambda s: (s.started or 0.0, s.completed or now))


def longest_chain(view: BuildView) -> Chain:
    """From the step that ended last back through whichever input ended last."""
    now = _end(view)
    candidates = [s for s in worked(view) if s.kind not in HIDDEN_KINDS]
    step = max(candidates, key=lambda s: s.completed or now, default=None)
    found: list[StepView] = []
    seen: set[Digest] = set()
    while step is not None and step.digest not in seen:
        seen.add(step.digest)
        found.append(step)
        step = _set_off_by(view, step)
    found.reverse()
    return Chain(tuple(found), sum((s.completed or now) - (s.started or now) for s in found))


def _set_off_by(view: BuildView, step: StepView) -> StepView | None:
    """The input that ended last; inputs that took no time are looked through."""
    best: StepView | None = None
    stack, seen = list(step.inputs), set(step.inputs)
    while stack:
        candidate = view.steps.get(stack.pop())
        if candidate is None:
            continue
        took = candidate.started is not None and not candidate.state.cached
        if not took or candidate.completed is None or (candidate.duration or 0.0) < SHORTEST:
            fresh = [digest for digest in candidate.inputs if digest not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        elif best is None or candidate.completed > (best.completed or 0.0):
            best = candidate
    return best


def _end(view: BuildView) -> float:
    times = [t for s in view.steps.values() for t in (s.started, s.completed) if t is not None]
    return view.completed or max(times, default=0.0)


def timeline(view: BuildView, *, most_rows: int = MOST_ROWS) -> str:
    """The chart as an SVG document for an ``<img>``; "" where nothing took time."""
    steps = worked(view)
    if not steps:
        return ""
    left_out: list[StepView] = []
    if len(steps) > most_rows:
        by_time = sorted(steps, key=lambda s: s.duration or 1e9)
        left_out = by_time[: len(steps) - most_rows]
        gone = {s.digest for s in left_out}
        steps = [s for s in steps if s.digest not in gone]
    return _Chart(view, steps, left_out).draw()


class _Chart:
    """One drawing: rows, scale, and the parts that need both."""

    def __init__(self, view: BuildView, steps: Sequence[StepView], left_out: Sequence[StepView]) -> None:
        self.view, self.steps, self.left_out = view, steps, left_out
        self.begin = min(s.started or 0.0 for s in steps)
        self.end = max(_end(view), max(s.completed or 0.0 for s in steps))
        self.span = max(self.end - self.begin, 0.001)
        self.row = {step.digest: at for at, step in enumerate(steps)}
        self.chain = {step.digest for step in longest_chain(view).steps}
        self.bottom = len(steps) * ROW + 4

    def x(self, time: float) -> float:
        """Where a moment lies."""
        inside = min(max(time - self.begin, 0.0), self.span)
        return round(LABELS + (WIDTH - LABELS - 62) * inside / self.span, 1)

    def draw(self) -> str:
        """The whole document."""
        height = self.bottom + AXIS + (ROW if self.left_out else 0)
        size = f'width="{WIDTH:g}" height="{height:g}" viewBox="0 0 {WIDTH:g} {height:g}"'
        font = f'font-family="{html.escape(SANS)}" font-size="11" fill="{GREY}"'
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>']
        parts += self._axis()
        for step in self.steps:
            parts += self._hook(step)
        for step in self.steps:
            parts += self._row(step)
        if self.left_out:
            longest = html.escape(amounts.seconds(max(s.duration or 0.0 for s in self.left_out)))
            said = f"and {amounts.count(len(self.left_out), 'more step')}, none longer than {longest}"
            parts.append(f'<text x="{LABELS:g}" y="{height - 6:g}">{said}</text>')
        return "".join(parts) + "</svg>"

    def _axis(self) -> Iterator[str]:
        step = _tick(self.span)
        at = 0.0
        while at <= self.span * 1.0001:
            x = self.x(self.begin + at)
            yield f'<path d="M{x:g},0V{self.bottom:g}" stroke="{GREY}" stroke-opacity=".25"/>'
            shown = "0" if at == 0 else html.escape(amounts.seconds(at).replace(".0 s", " s"))
            yield f'<text x="{x:g}" y="{self.bottom + 14:g}" text-anchor="middle">{shown}</text>'
            at = round(at + step, 6)

    def _hook(self, step: StepView) -> Iterator[str]:
        cause = _set_off_by(self.view, step)
        if cause is None or cause.digest not in self.row or cause.completed is None or step.started is None:
            return
        if step.started - cause.completed > AT_ONCE * max(1.0, self.span / 10):
            return
        x, top = self.x(cause.completed), self.row[cause.digest] * ROW + 10
        low = self.row[step.digest] * ROW + 10
        strong = step.digest in self.chain and cause.digest in self.chain
        yield (
            f'<path d="M{x:g},{top:g}V{low:g}H{self.x(step.started):g}" fill="none" stroke="{GREY}" '
            f'stroke-opacity="{".9" if strong else ".4"}"/>'
        )

    def _row(self, step: StepView) -> Iterator[str]:
        y = self.row[step.digest] * ROW
        look = LOOKS[step.state]
        weight = "600" if step.digest in self.chain else "400"
        label = html.escape(fit(_label(step), LABELS - 22, 11.4))
        place = f'x="{LABELS - 12:g}" y="{y + 14:g}" text-anchor="end"'
        yield f'<text {place} font-weight="{weight}">{label}</text>'
        waited_until = 0.0
        for wait in step.waits:
            if wait.cause == "input":
                continue
            a, b = self.x(wait.started), self.x(wait.ended if wait.ended is not None else self.end)
            line = f'stroke="{GREY}" stroke-width="2" stroke-dasharray="2 3"'
            yield f'<path d="M{a:g},{y + 10:g}H{b:g}" {line}/>'
            if text_width(wait.cause, 10) < b - a:
                yield f'<text x="{a:g}" y="{y + 7:g}" font-size="10">{html.escape(wait.cause)}</text>'
            waited_until = max(waited_until, b)
        last = self.x(self.begin)
        for begin, end in step.intervals:
            x = self.x(begin)
            last = self.x(end if end is not None else self.end)
            opacity = "1" if step.digest in self.chain else ".55"
            yield (
                f'<rect x="{x:g}" y="{y + 4:g}" width="{max(last - x, 2):.1f}" height="12" rx="3" '
                f'fill="{look.line}" fill-opacity="{opacity}"/>'
            )
        spent = step.duration if step.duration is not None else self.end - (step.started or self.end)
        sign = "" if step.state is State.RAN else f"{look.sign} "
        yield f'<text x="{last + 6:g}" y="{y + 14:g}">{sign}{html.escape(amounts.seconds(spent))}</text>'


def _label(step: StepView) -> str:
    return amounts.cut(" ".join(step.words), 60)


def _tick(span: float) -> float:
    """A round number of seconds, of which at most eight fit into the span."""
    size = 0.001
    while True:
        for factor in (1, 2, 5):
            if span / (size * factor) <= 8:
                return size * factor
        size *= 10
