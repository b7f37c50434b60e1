"""The picture of a build that stays in the notebook.

It must survive where nothing can be trusted: JupyterLab drops ``<style>``, inline ``<svg>``, scripts and
``var()`` from a notebook that it does not trust, nbconvert has no kernel, GitHub keeps little more than
tables and ``<details>``. So: inline styles with literal values, pictures as data URIs with a text in
``alt``, no script; text takes the page's own colour, quiet text is the same at less opacity, so that light
and dark work alike. Whatever came from outside is escaped.

Invariant: a page is at most `LARGEST` bytes, whatever the logs hold. What does not fit is said, with the call
that shows it.
"""

from __future__ import annotations

import base64
import functools
import html
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources

from bknb.digest import Digest
from bknb.display import amounts, graph, lanes, svg
from bknb.display.ansi import plain, to_html
from bknb.display.boxes import FOLDABLE, lane_labels, plan
from bknb.display.boxes import lanes as stages_of
from bknb.display.excerpt import lines_of
from bknb.display.model import BuildView, State, StepView
from bknb.display.operation import describe
from bknb.display.palette import LOOKS, MONO, REASONS, SANS
from bknb.display.sentence import explanation, headline
from bknb.display.text import render_graph
from bknb.display.timeline import longest_chain, timeline, worked

LARGEST, LARGEST_PICTURE = 150_000, 60_000
SMALLEST_STEP = 1000
"""Bytes that the details of any step take."""
MOST_ROWS, MOST_OPEN_ROWS = 120, 24
"""Rows of the table; above the first number cached steps are folded, above the second the table is."""
FAILURE_LINES = 12
_PRE = (
    f"font-family:{MONO};font-size:12px;line-height:1.45;margin:4px 0;padding:6px 10px;border-radius:6px;"
    "background:rgba(128,136,148,.13);white-space:pre-wrap;overflow-wrap:anywhere"
)
_CODE = f"font-family:{MONO};font-size:12px;background:none;padding:0"
_RULE = "border-top:1px solid rgba(128,136,148,.25)"
_CELL = f"text-align:left;padding:3px 18px 3px 0;{_RULE};white-space:nowrap;background:none"
_QUIET = "opacity:.65"

_MATHS = re.compile(r"[$\\]")

Files = Mapping[Digest, Sequence[str]]
"""What each step changed, a line for each file (``A /usr/bin/x``)."""


def render_html(
    view: BuildView, *, definition: Mapping[Digest, object] | None = None, files: Files | None = None
) -> str:
    """A build as HTML.

    Args:
        view: the build; a running one is drawn as it stands.
        definition: ops by digest, shown in the steps' details.
        files: what each step changed.
    """
    first = headline(view)
    look = LOOKS[first.state]
    page = {
        "sans": html.escape(SANS),
        "pill": _pill(first.state),
        "sign": look.sign,
        "subject": _words(amounts.cut(first.subject, 120)),
        "verdict": _words(first.verdict),
        "parts": "".join(f" · {_words(part)}" for part in first.parts),
        "digest": f" · {_digest(view.result)}" if view.result else "",
        "why": _why(view),
        "failure": _failure(view),
        "graph": _graph(view),
        "table": _table(view),
        "timeline": _timeline(view),
        "notes": _notes(view),
        "details": "",
    }
    room = LARGEST - sum(len(part.encode("utf-8", "replace")) for part in page.values()) - 1000
    page["details"] = _details(view, definition or {}, files or {}, room)
    return _fill("build", page)


@functools.cache
def _template(name: str) -> string.Template:
    return string.Template(
        resources.files("bknb.display").joinpath(f"templates/{name}.html").read_text("utf-8")
    )


def _fill(name: str, values: Mapping[str, str]) -> str:
    return _template(name).substitute(values)


def _words(text: str) -> str:
    """A text as HTML that stays what it is.

    Pages typeset what stands between dollar signs, or after a backslash, as mathematics, and shell commands are
    full of both. MathJax looks for its marks within one run of text, and passes over ``<pre>`` and ``<code>``:
    a mark in an element of its own is none.
    """
    return _MATHS.sub(r"<span>\g<0></span>", html.escape(text))


def _pill(state: State) -> str:
    look = LOOKS[state]
    return (
        f"background:{look.veil};border:1px solid {look.line};border-radius:6px;"
        "padding:0 7px;white-space:nowrap;font-size:12px"
    )


def _digest(digest: str, length: int = 12) -> str:
    shown = html.escape(amounts.short(digest, length))
    return f'<code style="{_CODE}" title="{html.escape(digest)}">{shown}</code>'


def _why(view: BuildView) -> str:
    said = explanation(view)
    if not said and view.error and not view.failed:
        said = view.error
    return f'<div style="{_QUIET};margin-bottom:4px">{_words(amounts.cut(said, 400))}</div>' if said else ""


def _failure(view: BuildView) -> str:
    """What a reader of a failed build wants first: the error, the line, the last words of the log."""
    if not view.failed:
        return ""
    step = view.failed[0]
    return _fill(
        "failure",
        {
            "line": LOOKS[State.FAILED].line,
            "error": _words(amounts.cut(step.error, 600)),
            "excerpt": _source(view, step, context=None),
            "log": _log_tail(step),
        },
    )


def _log_tail(step: StepView) -> str:
    kept = step.log_bytes[-16_000:].decode("utf-8", "replace").rstrip("\n").split("\n")[-FAILURE_LINES:]
    text = "\n".join(line[:600] for line in kept)
    return f'<pre style="{_PRE}">{to_html(text)}</pre>' if text.strip() else ""


def _source(view: BuildView, step: StepView, *, context: int | None = 0) -> str:
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
    return f'<pre style="{_PRE}">{body}</pre>'


def _image(document: str, alt: str, width: float) -> str:
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


def _graph(view: BuildView) -> str:
    whole = plan(view)
    if not whole.boxes:
        return ""
    places = graph.places(whole) if len(whole.boxes) <= graph.LARGEST else graph.order(whole)
    if places is None:
        return f'<pre style="{_PRE}">{html.escape(render_graph(view))}</pre>'
    placed = lanes.layout(whole, places)
    picture = svg.standalone(whole, placed)
    if len(picture) > LARGEST_PICTURE:
        return f'<div style="{_QUIET}">A graph of {len(whole.boxes):,} boxes: build.graph</div>'
    alt = f"Graph of {amounts.count(len(view.shown), 'step')}: {headline(view)}"
    return _image(picture, alt, placed.width)


def _timeline(view: BuildView) -> str:
    if not (steps := worked(view)):
        return ""
    chain = longest_chain(view)
    counted = amounts.count(sum(step.kind != "local" for step in chain.steps), "step")
    remark = f"the longest chain, {counted}, took {amounts.seconds(chain.seconds)}" if len(steps) > 1 else ""
    picture = _image(timeline(view), f"Timeline of {amounts.count(len(steps), 'step')}", 980)
    return _fold("Timeline", remark, picture, opened=len(steps) > 1)


def _fold(title: str, remark: str, content: str, *, opened: bool) -> str:
    quiet = f'<span style="{_QUIET}"> · {_words(remark)}</span>' if remark else ""
    summary = f'<summary style="cursor:pointer">{title}{quiet}</summary>'
    return f'<details{" open" if opened else ""} style="margin-top:4px">{summary}{content}</details>\n'


# --- the table ---------------------------------------------------------------------------------------------


def _table(view: BuildView) -> str:
    stages = stages_of(view.shown)
    if not stages:
        return ""
    rows: list[str] = []
    total = sum(len(steps) for _, steps in stages)
    for (_, steps), label in zip(stages, lane_labels([name for name, _ in stages]), strict=True):
        if label and len(stages) > 1 and label != "context":
            title = _words(amounts.cut(label, 60))
            head = f'<th colspan="5" scope="rowgroup" style="{_STAGE}">{title}</th>'
            rows.append(f'<tr style="background:none">{head}</tr>')
        rows += _rows(steps) if total <= MOST_ROWS else _folded_rows(steps)
    if (left_out := len(rows) - MOST_ROWS) > 0:
        rows = [
            *rows[:MOST_ROWS],
            _span_row(f'and {left_out} more rows: <code style="{_CODE}">build.table</code>'),
        ]
    table = _fill("table", {"heads": "".join(_heads()), "rows": "\n".join(rows)})
    if total <= MOST_OPEN_ROWS:
        return table
    return _fold("Table", f"{amounts.count(total, 'step')}: {', '.join(_tally(view))}", table, opened=False)


def _tally(view: BuildView) -> Iterator[str]:
    for state, number in sorted(view.counts().items(), key=lambda item: -item[1]):
        yield f"{number} {REASONS[state]}"


_STAGE = "text-align:left;padding:8px 0 2px 0;font-weight:500;opacity:.65;border:0;background:none"


def _heads() -> Iterator[str]:
    for name in ("step", "what happened", "time", "size", "digest"):
        side = "right" if name in ("time", "size") else "left"
        yield (
            f'<th scope="col" style="text-align:{side};padding:2px 18px 4px 0;font-weight:500;opacity:.65;'
            f'background:none;border:0">{name}</th>'
        )


def _rows(steps: Iterable[StepView]) -> Iterator[str]:
    right = _CELL.replace("left", "right", 1)
    for step in steps:
        remark = f' <span style="{_QUIET}">{_words(amounts.cut(step.note, 60))}</span>' if step.note else ""
        time = "" if step.state.cached else amounts.seconds(step.duration)
        dim = f";{_QUIET}" if step.state is State.SKIPPED else ""
        yield (
            f'<tr style="background:none{dim}">'
            f'<td style="{_CELL}" title="{html.escape(step.label[:300])}">{_name(step, 76)}{remark}</td>'
            f'<td style="{_CELL}">{_verdict(step.state)}</td>'
            f'<td style="{right}">{time}</td><td style="{right}">{amounts.size(step.size)}</td>'
            f'<td style="{_CELL}">{_digest(step.digest, 8)}</td></tr>'
        )


def _name(step: StepView, length: int) -> str:
    if step.kind == "local":
        return "<b>context</b>"
    keyword, _, words = amounts.cut(step.label, length).partition(" ")
    return f"<b>{_words(keyword)}</b> {_words(words)}"


def _verdict(state: State) -> str:
    return f'<span style="{_pill(state)}">{LOOKS[state].sign} {REASONS[state]}</span>'


def _folded_rows(steps: Sequence[StepView]) -> Iterator[str]:
    """The rows of a long table: what was cached or skipped is a row for each kind."""
    quiet = [step for step in steps if step.state in FOLDABLE]
    yield from _rows(step for step in steps if step.state not in FOLDABLE)
    for state in dict.fromkeys(step.state for step in quiet):
        number = sum(step.state is state for step in quiet)
        yield _span_row(f"{amounts.count(number, 'step')} {_verdict(state)}")


def _span_row(content: str) -> str:
    return f'<tr style="background:none"><td colspan="5" style="{_CELL}">{content}</td></tr>'


def _notes(view: BuildView) -> str:
    lines: list[str] = []
    withheld = [plain(name) for step in view.steps.values() for name in step.withheld]
    if withheld:
        names = ", ".join(
            f'<code style="{_CODE}">{html.escape(amounts.cut(name, 80))}</code>' for name in withheld[:12]
        )
        more = f" and {len(withheld) - 12} more" if len(withheld) > 12 else ""
        lines.append(f"Not sent with the context: {names}{more}")
    for warning in view.warnings[:20]:
        said = _words(amounts.cut(plain(warning.short), 300))
        where = f" (line {warning.ranges[0].start_line})" if warning.ranges else ""
        link = (
            f' <a href="{html.escape(warning.url)}">about this check</a>'
            if warning.url.startswith("https://")
            else ""
        )
        lines.append(f"⚠ {said}{where}{link}")
    if view.frontend:
        lines.append(f'<span style="{_QUIET}">{_words(view.frontend)}</span>')
    return "".join(f'<div style="margin:2px 0">{line}</div>' for line in lines)


# --- the details -------------------------------------------------------------------------------------------


def _details(view: BuildView, ops: Mapping[Digest, object], files: Files, room: int) -> str:
    """Folded details of each step, in the order of the build, as many as there is room for.

    Room is given by interest: what failed first, then what ran, then the others; logs are cut before
    steps are left out.
    """
    steps = [step for _, found in stages_of(view.shown) for step in found]
    by_interest = sorted(steps, key=lambda s: _INTEREST.get(s.state, 2))
    share = max(2_000, room // (1 + sum(bool(s.log) for s in steps)))
    drawn: dict[Digest, str] = {}
    for step in by_interest:
        if room < SMALLEST_STEP:
            break
        budget = room if step.state is State.FAILED else min(max(share, room // 4), room)
        text = _step(view, step, ops.get(step.digest), files.get(step.digest, ()), budget)
        cost = len(text.encode("utf-8", "replace"))
        if cost > room:
            continue
        drawn[step.digest] = text
        room -= cost
    if not drawn:
        return ""
    body = "".join(drawn[step.digest] for step in steps if step.digest in drawn)
    left_out = len(steps) - len(drawn)
    if left_out:
        more = f"Details of {amounts.count(left_out, 'more step')}: "
        body += f'<div style="{_QUIET}">{more}<code style="{_CODE}">build.step("RUN …")</code></div>'
    return _fold(
        "Steps in detail",
        "Dockerfile lines, digests, keys, logs",
        f'<div style="margin:4px 0 0 14px">{body}</div>',
        opened=bool(view.failed),
    )


_INTEREST = {State.FAILED: 0, State.RAN: 1, State.RUNNING: 1, State.MERGED: 1}


def _step(view: BuildView, step: StepView, op: object | None, files: Sequence[str], budget: int) -> str:
    lines = step.log_bytes.count(b"\n")
    return _fill(
        "step",
        {
            "open": " open" if step.state is State.FAILED else "",
            "sign": LOOKS[step.state].sign,
            "name": _name(step, 110),
            "remark": f" · {amounts.count(lines, 'log line')}" if lines else "",
            "source": _source(view, step),
            "facts": _facts(step, op),
            "files": _files(files),
            "log": _log(step, budget - 5_000),
        },
    )


def _facts(step: StepView, op: object | None) -> str:
    facts = [("digest", step.digest), ("known to the cache as", step.solver_digest), ("result", step.result)]
    facts += [("key", key) for key in step.keys[:6]]
    if len(step.keys) > 6:
        facts.append(("keys", f"and {len(step.keys) - 6} more"))
    facts += [
        (f"waited for {wait.cause}", amounts.seconds(wait.ended - wait.started))
        for wait in step.waits[:6]
        if wait.ended is not None
    ]
    lines = [f"{name}: {plain(value)[:200]}" for name, value in facts if value]
    if op is not None:
        lines.append(plain(describe(op)))
    return (
        f'<pre style="{_PRE};background:none;padding:0;opacity:.8">{html.escape(chr(10).join(lines))}</pre>'
    )


def _files(files: Sequence[str]) -> str:
    if not files:
        return ""
    shown = [html.escape(amounts.cut(plain(name), 160)) for name in files[:40]]
    more = f"\n… and {len(files) - 40} more: build.files" if len(files) > 40 else ""
    text = f'<pre style="{_PRE}">{chr(10).join(shown)}{more}</pre>'
    return _fold(amounts.count(len(files), "changed file"), "", text, opened=False)


def _log(step: StepView, budget: int) -> str:
    data = step.log_bytes
    if not data:
        return ""
    # Escapes and entities make text longer than the bytes it came from; six times is the worst.
    text, kept = to_html(data[-budget:] if budget > 0 else b""), len(data)
    while len(text.encode("utf-8", "replace")) > max(budget, 0) and kept > 400:
        kept = min(kept, max(budget, 0)) // 2
        text = to_html(data[-kept:].partition(b"\n")[2])
    said = ""
    if kept < len(data) or budget < len(data):
        call = html.escape(f'build.log("{amounts.short(step.digest, 12)}")')
        whole = f'<code style="{_CODE}">{call}</code>'
        said = (
            f'<div style="{_QUIET}">Only the end of {amounts.size(len(data))} is shown. Whole: {whole}</div>'
        )
    return f'{said}<pre style="{_PRE};max-height:360px;overflow:auto">{text}</pre>'
