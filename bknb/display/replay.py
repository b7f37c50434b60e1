"""A replay as a page and as text: the heat map, what it costs, and what another order would have saved."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bknb.display import amounts, heat
from bknb.display.ansi import plain
from bknb.display.heat import HeatMap, shown
from bknb.display.markup import PRE, QUIET, fold, image, words
from bknb.display.model import State
from bknb.display.palette import LOOKS, SANS

MOST_MOVES: Final = 4
"""Changes of order that are shown."""


@dataclass(frozen=True, slots=True)
class ReplayMove:
    """A change of the Dockerfile, in words.

    Attributes:
        title: what it is.
        saved: what it would have saved; `basis` are the sums behind that.
        because: why it is the same build.
        diff: the lines that change, as a unified diff.
    """

    title: str
    saved: str
    basis: Sequence[str]
    because: str
    diff: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReplayView:
    """What is shown: a headline with its strong part, the map, changes of order, and what was taken for granted."""

    strong: str
    headline: str
    heat: HeatMap
    moves: Sequence[ReplayMove] = ()
    notes: Sequence[str] = ()


def _clean(view: ReplayView) -> ReplayView:
    """Without what would steer a terminal or break a document; the map cleans its own names."""
    moves = [
        ReplayMove(
            shown(move.title), shown(move.saved), [shown(one) for one in move.basis], shown(move.because),
            [line[:1] + plain(line[1:]).encode("utf-8", "replace").decode() for line in move.diff],
        )
        for move in view.moves[:MOST_MOVES]
    ]  # fmt: skip
    return ReplayView(
        shown(view.strong), shown(view.headline), view.heat, moves, [shown(note) for note in view.notes]
    )


def render_html(view: ReplayView) -> str:
    """For a notebook that is saved: every style is written out where it stands."""
    view = _clean(view)
    look = LOOKS[State.WOULD_RUN]
    picture = heat.svg(view.heat)
    alt = f"Heat map of {amounts.count(len(view.heat.columns), 'commit')} and {amounts.count(len(view.heat.rows), 'step')}"
    notes = "".join(f'<div style="margin:2px 0">{words(note)}</div>' for note in view.notes)
    return (
        f'<div class="tex2jax_ignore mathjax_ignore" style="font-family:{html.escape(SANS)};font-size:13px;line-height:1.5;'
        f'max-width:984px;padding:4px 2px"><div style="font-size:15px;margin:2px 0"><b>{words(view.strong)}</b> '
        f"{words(view.headline)}</div>"
        + image(picture, alt, heat.width(view.heat))
        + "".join(_move(move, look.line) for move in view.moves)
        + (
            fold("Taken for granted", "", f'<div style="{QUIET}">{notes}</div>', opened=False)
            if notes
            else ""
        )
        + "</div>"
    )


def _move(move: ReplayMove, line: str) -> str:
    basis = "".join(f'<div style="{QUIET}">{words(one)}</div>' for one in move.basis)
    because = (
        f'<div style="{QUIET}">The same build as long as {words(move.because)}.</div>' if move.because else ""
    )
    return (
        f'<div style="border-left:3px solid {line};padding:2px 0 2px 12px;margin:12px 0">'
        f"<div><b>{words(move.title)}</b> {words(move.saved)}</div>{basis}{_diff(move.diff)}{because}</div>"
    )


def _diff(lines: Sequence[str]) -> str:
    drawn: list[str] = []
    for line in lines[2:]:
        tint = {"+": LOOKS[State.RAN].veil, "-": LOOKS[State.FAILED].veil}.get(line[:1], "")
        if line.startswith("@@"):
            drawn += ["⋮"] if drawn else []
        else:
            drawn.append(
                f'<span style="background:{tint}">{html.escape(line)}</span>' if tint else html.escape(line)
            )
    return f'<pre style="{PRE}">{chr(10).join(drawn)}</pre>' if drawn else ""


def render_text(view: ReplayView, width: int = 100) -> str:
    """For a terminal."""
    view = _clean(view)
    lines = [f"{view.strong} {view.headline}", ""]
    lines += heat.text(view.heat, width)
    for move in view.moves:
        lines += ["", f"{move.title} {move.saved}"]
        lines += [f"  {one}" for one in move.basis]
        lines += [f"    {line}" for line in move.diff[2:] if not line.startswith("@@")]
        lines += [f"  The same build as long as {move.because}."] if move.because else []
    if view.notes:
        lines += ["", *(f"- {note}" for note in view.notes)]
    return "\n".join(lines)
