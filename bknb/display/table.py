"""The table of a build, for a page: a row for each step, by stage."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from bknb.display import amounts
from bknb.display.boxes import CONTEXT, FOLDABLE, lane_labels, lanes
from bknb.display.markup import CODE, QUIET, fill, fold, short_digest, step_name, verdict, words
from bknb.display.model import BuildView, State, StepView
from bknb.display.palette import REASONS
from bknb.display.reasons import Reasons

MOST_ROWS, MOST_OPEN_ROWS = 120, 24
"""Rows of the table; above the first number cached steps are folded, above the second the table is."""
_MOST_COLUMNS = 6
_RULE = "border-top:1px solid rgba(128,136,148,.25)"
LABEL, LABEL_BESIDE_WHY, WHY = 76, 48, 44
"""Characters of a step's text, of one with a reason beside it, and of the reason: a table fits beside a file browser."""
CELL = f"text-align:left;padding:3px 18px 3px 0;{_RULE};white-space:nowrap;background:none"
HEAD = "padding:2px 18px 4px 0;font-weight:500;opacity:.65;white-space:nowrap;background:none;border:0"
STAGE = "text-align:left;padding:8px 0 2px 0;font-weight:500;opacity:.65;border:0;background:none"


def table(view: BuildView, reasons: Reasons | None = None) -> str:
    """The table; folded where it is long, "" where there are no steps. With `reasons` there is a column for them."""
    stages = lanes(view.shown)
    if not stages:
        return ""
    rows: list[str] = []
    total = sum(len(steps) for _, steps in stages)
    for (_, steps), label in zip(stages, lane_labels([stage for stage, _ in stages]), strict=True):
        if label and len(stages) > 1 and label != CONTEXT:
            title = words(amounts.cut(label, 60))
            head = f'<th colspan="{_MOST_COLUMNS}" scope="rowgroup" style="{STAGE}">{title}</th>'
            rows.append(f'<tr style="background:none">{head}</tr>')
        rows += _rows(steps, reasons) if total <= MOST_ROWS else _folded_rows(steps, reasons)
    if (left_out := len(rows) - MOST_ROWS) > 0:
        rows = [
            *rows[:MOST_ROWS],
            _span_row(f'and {left_out} more rows: <code style="{CODE}">build.table</code>'),
        ]
    drawn = fill("table", {"heads": "".join(_heads(reasons)), "rows": "\n".join(rows)})
    if total <= MOST_OPEN_ROWS:
        return drawn
    return fold("Table", f"{amounts.count(total, 'step')}: {', '.join(_tally(view))}", drawn, opened=False)


def _tally(view: BuildView) -> Iterator[str]:
    for state, number in sorted(view.counts().items(), key=lambda item: -item[1]):
        yield f"{number} {REASONS[state]}"


def _heads(reasons: Reasons | None) -> Iterator[str]:
    why = () if reasons is None else ("why",)
    for title in ("step", "what happened", *why, "time", "size", "digest"):
        side = "right" if title in ("time", "size") else "left"
        yield (
            f'<th scope="col" style="text-align:{side};{HEAD}">{title}</th>'
        )


def why_cell(reasons: Reasons, step: StepView) -> str:
    """The cell that says why a step ran; the whole of it is there on hover."""
    said = reasons.steps.get(step.digest, "")
    return f'<td style="{CELL}" title="{html.escape(said[:300])}">{words(amounts.cut(said, WHY))}</td>'


def _rows(steps: Iterable[StepView], reasons: Reasons | None) -> Iterator[str]:
    right = CELL.replace("left", "right", 1)
    for step in steps:
        remark = f' <span style="{QUIET}">{words(amounts.cut(step.note, 60))}</span>' if step.note else ""
        time = "" if step.state.cached else amounts.seconds(step.duration)
        dim = f";{QUIET}" if step.state is State.SKIPPED else ""
        why = "" if reasons is None else why_cell(reasons, step)
        longest = LABEL if reasons is None else LABEL_BESIDE_WHY
        yield (
            f'<tr style="background:none{dim}">'
            f'<td style="{CELL}" title="{html.escape(step.label[:300])}">{step_name(step, longest)}{remark}</td>'
            f'<td style="{CELL}">{verdict(step.state)}</td>{why}'
            f'<td style="{right}">{time}</td><td style="{right}">{amounts.size(step.size)}</td>'
            f'<td style="{CELL}">{short_digest(step.digest, 8)}</td></tr>'
        )


def _folded_rows(steps: Sequence[StepView], reasons: Reasons | None) -> Iterator[str]:
    """The rows of a long table: what was cached or skipped is a row for each kind."""
    quiet = [step for step in steps if step.state in FOLDABLE]
    yield from _rows((step for step in steps if step.state not in FOLDABLE), reasons)
    for state in dict.fromkeys(step.state for step in quiet):
        number = sum(step.state is state for step in quiet)
        yield _span_row(f"{amounts.count(number, 'step')} {verdict(state)}")


def _span_row(content: str) -> str:
    return f'<tr style="background:none"><td colspan="{_MOST_COLUMNS}" style="{CELL}">{content}</td></tr>'
