"""A build as text: the sentence, the graph, the table. For terminals, logs and notebooks without HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bknb.display import amounts
from bknb.display.ansi import plain
from bknb.display.boxes import Box, Plan, lanes, plan
from bknb.display.excerpt import excerpt
from bknb.display.model import BuildView, StepView
from bknb.display.palette import LOOKS, REASONS
from bknb.display.sentence import explanation, headline

if TYPE_CHECKING:
    from bknb.display.reasons import Reasons

LAST_LINES = 10
MOST_ROWS = 200
_AS = re.compile(r"\sAS\s", re.IGNORECASE)


def render_text(view: BuildView, *, reasons: Reasons | None = None) -> str:
    """The whole summary, without a newline at its end."""
    parts = [_head(view, reasons)]
    if view.failed:
        parts.append(render_failure(view))
    if view.shown:
        parts += [render_graph(view), render_table(view, reasons)]
    if notes := _notes(view):
        parts.append(notes)
    return "\n\n".join(parts)


def _head(view: BuildView, reasons: Reasons | None) -> str:
    first = f"{LOOKS[headline(view).state].sign} {headline(view)}"
    if view.result:
        first += f" · {view.result}"
    lines = [first, (reasons.line if reasons is not None else "") or explanation(view)]
    if view.error and not view.failed:
        lines.append(view.error)
    return "\n".join(line for line in lines if line)


def render_failure(view: BuildView) -> str:
    """What failed, as buildctl shows it: the last lines of its log, its place in the source, its error."""
    step = view.failed[0]
    log = plain(step.log_bytes[-20_000:]).rstrip("\n").split("\n")[-LAST_LINES:]
    block = "\n".join(["------", f" > {step.name}:", *(line for line in log if line), "------"])
    source = excerpt(view.dockerfile, step.ranges, view.filename).rstrip("\n")
    return "\n".join(part for part in (block, source, f"ERROR: {step.error}") if part)


def render_graph(view: BuildView) -> str:
    """Lanes as text: a tree for each stage; what comes from another stage is named at the right."""
    whole = plan(view)
    homes = {box.id: box for box in whole.boxes}
    lines: list[str] = []
    width = min(64, max((len(_title(box)) for box in whole.boxes), default=0))
    for index, label in enumerate(whole.lanes):
        inside = [box for box in whole.boxes if box.lane == index]
        lines.append(label or "steps")
        for box in inside:
            branch = "└" if box is inside[-1] else "├"
            line = f" {branch} {_pad(amounts.cut(_title(box), width), width)}  {box.status}"
            lines.append((line + _origins(box, whole, homes)).rstrip())
    return "\n".join(lines)


def _title(box: Box) -> str:
    return f"{box.keyword} {box.words}".strip()


def _origins(box: Box, whole: Plan, homes: dict[str, Box]) -> str:
    sources = [homes[arrow.source] for arrow in whole.arrows if arrow.target == box.id]
    names = [_origin(source, whole) for source in sources if source.lane != box.lane]
    return f"  ← {', '.join(dict.fromkeys(names))}" if names else ""


def _origin(source: Box, whole: Plan) -> str:
    """The stage that is read; of a base image that stands with another stage, itself."""
    image = _AS.split(source.words)[0].split() if source.steps[0].kind == "image" else []
    return image[-1] if image else whole.lanes[source.lane]


def render_table(view: BuildView, reasons: Reasons | None = None) -> str:
    """The cache table: a row for each step; with a column for the reasons where there are any."""
    rows: list[tuple[str, ...]] = [("step", "cache", "time", "size", "digest")]
    steps = [step for _, found in lanes(view.shown) for step in found]
    rows += [row(step) for step in steps[:MOST_ROWS]]
    left_out = len(steps) - MOST_ROWS
    said = [reasons.short(step.digest) for step in steps[:MOST_ROWS]] if reasons is not None else []
    if any(said):
        rows = [(*cells[:2], why, *cells[2:]) for cells, why in zip(rows, ("why", *said), strict=True)]
    text = columns(rows, right=(3, 4) if any(said) else (2, 3))
    return text + (f"\nand {amounts.count(left_out, 'more step')}" if left_out > 0 else "")


def row(step: StepView) -> tuple[str, str, str, str, str]:
    """The cells of a step: step, cache, time, size, digest."""
    return (
        _name(step),
        f"{LOOKS[step.state].sign} {REASONS[step.state]}",
        amounts.seconds(step.duration) if not step.state.cached else "",
        amounts.size(step.size),
        amounts.short(step.digest, 12),
    )


def _name(step: StepView) -> str:
    return "context" if step.kind == "local" else amounts.cut(step.label, 60)


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows as aligned columns; a line is under the first row."""
    widths = [max(_width(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        padded = [
            (" " * (width - _width(cell)) + cell) if at in right else _pad(cell, width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _notes(view: BuildView) -> str:
    lines = [f"{_name(step)}: {step.note}" for step in view.shown if step.note]
    withheld = [name for step in view.steps.values() for name in step.withheld]
    if withheld:
        lines.append(f"not sent with the context: {', '.join(plain(name) for name in withheld[:20])}")
    lines += [f"warning: {plain(warning.short)}" for warning in view.warnings[:20]]
    return "\n".join(lines)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def one_line(view: BuildView) -> str:
    """For a repr."""
    return f"{LOOKS[headline(view).state].sign} {headline(view)}"
