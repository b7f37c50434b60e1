"""The pieces that a saved page is made of: escaped words, pills, folds, images.

Every style is written out where it stands, in literal values: see `bknb.display.html` for why.
"""

from __future__ import annotations

import base64
import functools
import html
import re
import string
from collections.abc import Mapping
from importlib import resources

from bknb.display import amounts
from bknb.display.excerpt import lines_of
from bknb.display.model import BuildView, State, StepView
from bknb.display.palette import LOOKS, MONO, REASONS

PRE = (
    f"font-family:{MONO};font-size:12px;line-height:1.45;margin:4px 0;padding:6px 10px;border-radius:6px;"
    "background:rgba(128,136,148,.13);white-space:pre-wrap;overflow-wrap:anywhere"
)
CODE = f"font-family:{MONO};font-size:12px;background:none;padding:0"
QUIET = "opacity:.65"
_MATHS = re.compile(r"[$\\]")


@functools.cache
def _template(name: str) -> string.Template:
    return string.Template(
        resources.files("bknb.display").joinpath(f"templates/{name}.html").read_text("utf-8")
    )


def fill(name: str, values: Mapping[str, str]) -> str:
    """A template with its holes filled."""
    return _template(name).substitute(values)


def words(text: str) -> str:
    """A text as HTML that stays what it is.

    Pages typeset what stands between dollar signs, or after a backslash, as mathematics, and shell commands are
    full of both. MathJax looks for its marks within one run of text, and passes over ``<pre>`` and ``<code>``:
    a mark in an element of its own is none.
    """
    return _MATHS.sub(r"<span>\g<0></span>", html.escape(text))


def pill(state: State) -> str:
    """The style of the small frame around a state's sign and word."""
    look = LOOKS[state]
    return (
        f"background:{look.veil};border:1px solid {look.line};border-radius:6px;"
        "padding:0 7px;white-space:nowrap;font-size:12px"
    )


def verdict(state: State) -> str:
    """What happened to a step, in its frame."""
    return f'<span style="{pill(state)}">{LOOKS[state].sign} {REASONS[state]}</span>'


def short_digest(digest: str, length: int = 12) -> str:
    """The beginning of a digest, with the whole of it on hover."""
    shown = html.escape(amounts.short(digest, length))
    return f'<code style="{CODE}" title="{html.escape(digest)}">{shown}</code>'


def step_name(step: StepView, length: int) -> str:
    """A step's instruction on one line of at most `length` characters, its keyword strong."""
    keyword, rest = step.words
    shown = amounts.cut(keyword, length)
    return f"<b>{words(shown)}</b> {words(amounts.cut(rest, max(1, length - len(shown) - 1)))}".rstrip()


def fold(title: str, remark: str, content: str, *, opened: bool) -> str:
    """Content that folds under a title."""
    quiet = f'<span style="{QUIET}"> · {words(remark)}</span>' if remark else ""
    summary = f'<summary style="cursor:pointer">{title}{quiet}</summary>'
    return f'<details{" open" if opened else ""} style="margin-top:4px">{summary}{content}</details>\n'


def image(document: str, alt: str, width: float) -> str:
    """A picture that shrinks with the page, but not below what can be read; then it scrolls."""
    data = base64.b64encode(document.encode("utf-8", "replace")).decode()
    style = (
        f"display:block;width:100%;min-width:{min(width, 720):g}px;max-width:{width:g}px;height:auto;"
        "margin:8px 0;background:none"
    )
    return (
        f'<div style="overflow-x:auto"><img alt="{html.escape(alt)}" style="{style}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
    )


def source_lines(view: BuildView, step: StepView, *, context: int | None = 0) -> str:
    """The step's lines of the Dockerfile; with others around them, a marker and weight show which."""
    shown = lines_of(view.dockerfile, step.ranges, context=context)
    if not shown:
        return ""
    marked = not all(line.blamed for line in shown)

    def line_html(number: int, text: str, blamed: bool) -> str:
        mark = ("&gt;&gt;&gt; " if blamed else "    ") if marked else ""
        line = f"{number:4}  {mark}{html.escape(text[:500])}"
        return f"<b>{line}</b>" if marked and blamed else line

    body = "\n".join(line_html(n.number, n.text, n.blamed) for n in shown[:60])
    return f'<pre style="{PRE}">{body}</pre>'
