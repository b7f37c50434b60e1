"""A plan as text and as HTML: a build's picture, of what it would do."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field

from bknb.display import amounts
from bknb.display.boxes import CONTEXT, FORESEEN, lane_labels, lanes
from bknb.display.html import graph_image
from bknb.display.markup import QUIET, fill, pill, step_name, verdict, words
from bknb.display.model import BuildView, State, StepView
from bknb.display.palette import LOOKS, REASONS, SANS
from bknb.display.reasons import Reasons
from bknb.display.sentence import Headline
from bknb.display.table import CELL, HEAD, LABEL_BESIDE_WHY, MOST_ROWS, STAGE, why_cell
from bknb.display.text import columns, render_graph

_HEADS = ("step", "what would happen", "why", "expected")


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan, as far as it is shown.

    Attributes:
        view: the build that it would be; a step's duration is the one that is expected.
        reasons: why steps would run.
        time: how long it would take, in words.
        notes: what else is to be said, one line each.
    """

    view: BuildView
    reasons: Reasons = field(default_factory=Reasons)
    time: str = ""
    notes: tuple[str, ...] = ()


def expected(least: float, most: float, steps: int, strangers: int) -> str:
    """How long a build would take, in words.

    Args:
        least: seconds if what is known only at run time is cached.
        most: seconds if it runs.
        steps: of how many steps that may run a time is known.
        strangers: of how many none is.

    >>> expected(2.0, 2.0, 1, 0), expected(1.0, 75.0, 3, 2)
    ('about 2 s', 'about 1 s, at most 1 m 15 s, and 2 steps of unknown time')
    >>> expected(0.0, 0.0, 0, 1), expected(0.0, 0.0, 0, 0)
    ('no time known of 1 step', '')
    """
    if not steps:
        return f"no time known of {amounts.count(strangers, 'step')}" if strangers else ""
    said = f"about {_seconds(least)}"
    if amounts.seconds(most) != amounts.seconds(least):
        said += f", at most {_seconds(most)}"
    return said + (f", and {amounts.count(strangers, 'step')} of unknown time" if strangers else "")


def _seconds(value: float) -> str:
    return amounts.seconds(value).replace(".0 s", " s")


def headline(plan: PlanView) -> Headline:
    """The first line: how many steps would run, and for how long."""
    counts = plan.view.counts()
    subject = plan.view.title or plan.view.filename or "build"
    needed = sum(counts.values()) - counts.get(State.SKIPPED, 0)
    runs, open_ = counts.get(State.WOULD_RUN, 0), counts.get(State.OPEN, 0)
    cached = sum(number for state, number in counts.items() if state.cached) + counts.get(State.MERGED, 0)
    share = f"{open_} known only at run time"
    if open_:
        share += f" ({open_ / needed:.0%})"
    if failed := plan.view.failed:
        said = f"would fail at {amounts.cut(failed[0].label, 60)}"
        return Headline(State.WOULD_FAIL, subject, said, (f"{cached} cached", share))
    if not runs and not open_:
        said = f"would run nothing: all {amounts.count(needed, 'step')} cached" if needed else "has no steps"
        return Headline(State.DEFINITION, subject, said, (share,))
    state = State.WOULD_RUN if runs else State.OPEN
    parts = (f"{cached} cached", share, *([plan.time] if plan.time else []))
    return Headline(state, subject, f"would run {runs} of {amounts.count(needed, 'step')}", parts)


# --- text ---------------------------------------------------------------------------------------------------


def render_text(plan: PlanView) -> str:
    """The whole plan, without a newline at its end."""
    first = headline(plan)
    parts = ["\n".join(line for line in (f"{LOOKS[first.state].sign} {first}", plan.reasons.line) if line)]
    if plan.view.shown:
        parts += [render_graph(plan.view), _text_table(plan)]
    notes = [f"{step.label}: {step.error}" for step in plan.view.failed]
    notes += [*plan.notes, *(f"warning: {warning.short}" for warning in plan.view.warnings[:20])]
    return "\n\n".join((*parts, *(["\n".join(notes)] if notes else [])))


def _text_table(plan: PlanView) -> str:
    steps = [step for _, found in lanes(plan.view.shown) for step in found]
    rows = [("step", "plan", "why", "expected")]
    for step in steps[:MOST_ROWS]:
        name = "context" if step.kind == "local" else amounts.cut(step.label, 60)
        said = f"{LOOKS[step.state].sign} {_said(step)}"
        rows.append((name, said, plan.reasons.short(step.digest), _time(step)))
    text = columns(rows, right=(3,))
    left_out = len(steps) - MOST_ROWS
    return text + (f"\nand {amounts.count(left_out, 'more step')}" if left_out > 0 else "")


def _time(step: StepView) -> str:
    if step.state in (State.WOULD_RUN, State.OPEN):
        return amounts.seconds(step.duration) or ("?" if step.kind in ("exec", "file") else "")
    return ""


def _said(step: StepView) -> str:
    """What would happen to a step: a context would be read, not run."""
    return (
        FORESEEN.get(step.kind, "")
        if step.state is State.WOULD_RUN and step.kind in FORESEEN
        else REASONS[step.state]
    )


# --- HTML ---------------------------------------------------------------------------------------------------


def render_html(plan: PlanView) -> str:
    """The plan as a page that needs no trust, as a build's."""
    first = headline(plan)
    notes = [f"{step.label}: {step.error}" for step in plan.view.failed]
    notes += [*plan.notes, *(f"⚠ {warning.short}" for warning in plan.view.warnings[:20])]
    return fill(
        "build",
        {
            "sans": html.escape(SANS),
            "pill": pill(first.state),
            "sign": LOOKS[first.state].sign,
            "subject": words(amounts.cut(first.subject, 120)),
            "verdict": words(first.verdict),
            "parts": "".join(f" · {words(part)}" for part in first.parts),
            "digest": "",
            "why": f'<div style="{QUIET};margin-bottom:4px">{plan.reasons.html}</div>' if plan.reasons.line else "",
            "failure": "",
            "graph": graph_image(plan.view),
            "table": _html_table(plan),
            "timeline": "",
            "notes": "".join(f'<div style="margin:2px 0">{words(amounts.cut(note, 300))}</div>' for note in notes),
            "details": f'<div style="{QUIET}">Nothing was run.</div>',
        },
    )  # fmt: skip


def _html_table(plan: PlanView) -> str:
    stages = lanes(plan.view.shown)
    if not stages:
        return ""
    rows: list[str] = []
    for (_, steps), label in zip(stages, lane_labels([stage for stage, _ in stages]), strict=True):
        if label and len(stages) > 1 and label != CONTEXT:
            title = words(amounts.cut(label, 60))
            rows.append(
                f'<tr style="background:none"><th colspan="4" scope="rowgroup" style="{STAGE}">{title}</th></tr>'
            )
        rows += _html_rows(plan, steps)
    heads = "".join(
        f'<th scope="col" style="text-align:{"right" if title == "expected" else "left"};{HEAD}">{title}</th>'
        for title in _HEADS
    )
    if (left_out := len(rows) - MOST_ROWS) > 0:
        more = f"and {left_out} more rows: plan.table"
        rows = [
            *rows[:MOST_ROWS],
            f'<tr style="background:none"><td colspan="4" style="{CELL}">{more}</td></tr>',
        ]
    return fill("table", {"heads": heads, "rows": "\n".join(rows)})


def _html_rows(plan: PlanView, steps: list[StepView]) -> Iterator[str]:
    right = CELL.replace("left", "right", 1)
    for step in steps:
        dim = f";{QUIET}" if step.state is State.SKIPPED else ""
        said = verdict(step.state).replace(REASONS[step.state], _said(step))
        yield (
            f'<tr style="background:none{dim}">'
            f'<td style="{CELL}" title="{html.escape(step.label[:300])}">{step_name(step, LABEL_BESIDE_WHY)}</td>'
            f'<td style="{CELL}">{said}</td>{why_cell(plan.reasons, step)}'
            f'<td style="{right}">{_time(step)}</td></tr>'
        )
