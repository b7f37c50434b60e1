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

import html
from collections.abc import Mapping

from bknb.digest import Digest
from bknb.display import amounts, svg
from bknb.display.ansi import plain, to_html
from bknb.display.details import Files, details
from bknb.display.markup import CODE, PRE, QUIET, fill, fold, image, pill, short_digest, source_lines, words
from bknb.display.model import BuildView, State, StepView
from bknb.display.palette import LOOKS, SANS
from bknb.display.picture import arrange
from bknb.display.reasons import Reasons
from bknb.display.sentence import explanation, headline
from bknb.display.table import table
from bknb.display.text import render_graph
from bknb.display.timeline import longest_chain, timeline, worked

LARGEST, LARGEST_PICTURE = 150_000, 60_000
FAILURE_LINES = 12


def render_html(
    view: BuildView, *, definition: Mapping[Digest, object] | None = None, files: Files | None = None,
    reasons: Reasons | None = None,
) -> str:  # fmt: skip
    """A build as HTML.

    Args:
        view: the build; a running one is drawn as it stands.
        definition: ops by digest, shown in the steps' details.
        files: what each step changed.
        reasons: why it did what it did, if there is a build to compare with.
    """
    first = headline(view)
    look = LOOKS[first.state]
    page = {
        "sans": html.escape(SANS),
        "pill": pill(first.state),
        "sign": look.sign,
        "subject": words(amounts.cut(first.subject, 120)),
        "verdict": words(first.verdict),
        "parts": "".join(f" · {words(part)}" for part in first.parts),
        "digest": f" · {short_digest(view.result)}" if view.result else "",
        "why": _why(view, reasons),
        "failure": _failure(view),
        "graph": graph_image(view),
        "table": table(view, reasons),
        "timeline": _timeline(view),
        "notes": _notes(view),
        "details": "",
    }
    room = LARGEST - sum(len(part.encode("utf-8", "replace")) for part in page.values()) - 1000
    page["details"] = details(view, definition or {}, files or {}, room)
    return fill("build", page)


def _why(view: BuildView, reasons: Reasons | None) -> str:
    said = explanation(view)
    if not said and view.error and not view.failed:
        said = view.error
    line = reasons.html if reasons is not None and reasons.line else words(amounts.cut(said, 400))
    return f'<div style="{QUIET};margin-bottom:4px">{line}</div>' if line else ""


def _failure(view: BuildView) -> str:
    """What a reader of a failed build wants first: the error, the line, the last words of the log."""
    if not view.failed:
        return ""
    step = view.failed[0]
    return fill(
        "failure",
        {
            "line": LOOKS[State.FAILED].line,
            "error": words(amounts.cut(step.error, 600)),
            "excerpt": source_lines(view, step, context=None),
            "log": _log_tail(step),
        },
    )


def _log_tail(step: StepView) -> str:
    kept = step.log_bytes[-16_000:].decode("utf-8", "replace").rstrip("\n").split("\n")[-FAILURE_LINES:]
    text = "\n".join(line[:600] for line in kept)
    return f'<pre style="{PRE}">{to_html(text)}</pre>' if text.strip() else ""


def graph_image(view: BuildView) -> str:
    """The graph as an image, or as text where no layout program is."""
    if not view.shown:
        return ""
    found = arrange(view)
    if found is None:
        return f'<pre style="{PRE}">{html.escape(render_graph(view))}</pre>'
    shown, layout = found
    picture = svg.standalone(shown, layout)
    if len(picture) > LARGEST_PICTURE:
        return f'<div style="{QUIET}">A graph of {len(shown.boxes):,} boxes: build.graph</div>'
    alt = f"Graph of {amounts.count(len(view.shown), 'step')}: {headline(view)}"
    return image(picture, alt, layout.width)


def _timeline(view: BuildView) -> str:
    if not (steps := worked(view)):
        return ""
    chain = longest_chain(view)
    number = sum(step.kind != "local" for step in chain.steps)
    counted = f"the longest chain, {amounts.count(number, 'step')}, took {amounts.seconds(chain.seconds)}"
    remark = counted if number and len(steps) > 1 else ""  # of contexts alone there is nothing to say
    picture = image(timeline(view), f"Timeline of {amounts.count(len(steps), 'step')}", 980)
    return fold("Timeline", remark, picture, opened=bool(remark))


def _notes(view: BuildView) -> str:
    lines: list[str] = []
    withheld = [plain(name) for step in view.steps.values() for name in step.withheld]
    if withheld:
        names = ", ".join(
            f'<code style="{CODE}">{html.escape(amounts.cut(name, 80))}</code>' for name in withheld[:12]
        )
        more = f" and {len(withheld) - 12} more" if len(withheld) > 12 else ""
        lines.append(f"Not sent with the context: {names}{more}")
    for warning in view.warnings[:20]:
        said = words(amounts.cut(plain(warning.short), 300))
        where = f" (line {warning.ranges[0].start_line})" if warning.ranges else ""
        link = (
            f' <a href="{html.escape(warning.url)}">about this check</a>'
            if warning.url.startswith("https://")
            else ""
        )
        lines.append(f"⚠ {said}{where}{link}")
    if view.frontend:
        lines.append(f'<span style="{QUIET}">{words(view.frontend)}</span>')
    return "".join(f'<div style="margin:2px 0">{line}</div>' for line in lines)
