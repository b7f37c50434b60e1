"""An answer to "why", as text and as a page: a paragraph for each cause, its proof, what it made run, a hint."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bknb.display import amounts
from bknb.display.markup import CODE, PRE, QUIET, fold, words
from bknb.display.model import State
from bknb.display.palette import LOOKS, SANS

MOST_STEPS: Final = 8
"""Steps that are listed of one cause."""
_FOLD_ABOVE = 3
_SIGNS: Final = {"+": LOOKS[State.RAN].veil, "-": LOOKS[State.FAILED].veil}


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows a cause: in a few words which file or value, and lines, those of a difference with ``+`` and ``-``."""

    name: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One cause, or several that had the same effect.

    Attributes:
        title: in one line.
        strong: the part of it that is shown strong.
        remark: how much followed.
        proofs: what shows it.
        steps: instructions that ran because of it.
        hints: what could be done about it.
    """

    title: str
    strong: str = ""
    remark: str = ""
    proofs: Sequence[Proof] = ()
    steps: Sequence[str] = ()
    hints: Sequence[str] = ()


def as_text(paragraphs: Iterable[Paragraph]) -> str:
    """Lines, indented below each title."""
    lines: list[str] = []
    for one in paragraphs:
        lines.append(f"{one.title}: {one.remark}" if one.remark else one.title)
        for proof in one.proofs:
            lines += [f"  {proof.name}"] if proof.name else []
            lines += [f"    {line}" for line in proof.lines]
        lines += [f"  • {step}" for step in one.steps[:MOST_STEPS]]
        if (more := len(one.steps) - MOST_STEPS) > 0:
            lines.append(f"  … and {amounts.count(more, 'more step')}")
        lines += [f"  hint: {hint}" for hint in one.hints]
    return "\n".join(map(visible, lines))


def visible(line: str) -> str:
    """A line with its control characters spelled out: it may come from any file, and no terminal shall obey it."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() or one == "\t" else repr(one)[1:-1] for one in line)


def as_html(paragraphs: Iterable[Paragraph]) -> str:
    """The same for a page; "" where there is nothing to say."""
    body = "".join(f'<div style="margin:0 0 10px">{_paragraph(one)}</div>' for one in paragraphs)
    style = f"font-family:{html.escape(SANS)};font-size:13px;line-height:1.5"
    return f'<div style="{style}">{body}</div>' if body else ""


def _paragraph(one: Paragraph) -> str:
    before, strong, after = (
        one.title.partition(one.strong) if one.strong in one.title and one.strong else (one.title, "", "")
    )
    title = f"{words(before)}<b>{words(strong)}</b>{words(after)}" if strong else f"<b>{words(before)}</b>"
    remark = f' <span style="{QUIET}">· {words(one.remark)}</span>' if one.remark else ""
    parts = [f"<div>{title}{remark}</div>"]
    parts += map(_proof, one.proofs)
    parts += [f'<div style="margin-left:14px">Hint: {words(hint)}</div>' for hint in one.hints]
    if one.steps:
        listed = "".join(
            f'<div style="margin-left:14px"><code style="{CODE}">{words(amounts.cut(step, 100))}</code></div>'
            for step in one.steps
        )
        steps = fold(amounts.count(len(one.steps), "step"), "", listed, opened=len(one.steps) <= _FOLD_ABOVE)
        parts.append(f'<div style="margin-left:14px">{steps}</div>')
    return "".join(parts)


def _proof(proof: Proof) -> str:
    name = f'<div style="margin-left:14px">{words(proof.name)}</div>' if proof.name else ""
    if not proof.lines:
        return name
    return (
        f'{name}<pre style="{PRE};margin-left:14px;max-width:860px">{"".join(map(_line, proof.lines))}</pre>'
    )


def _line(line: str) -> str:
    tint = _SIGNS.get(line.lstrip()[:1])
    style = "display:block" + (f";background:{tint}" if tint else "")
    return f'<span style="{style}">{html.escape(line) or " "}</span>'
