"""The picture of a graph as SVG.

One drawer serves two pages. In a saved notebook the picture is an ``<img>``: a document of its own, so it
carries a style sheet (`standalone`). In the live widget it is part of the page, which has the sheet and
changes a box by setting its ``data-state`` (`inline`), found by ``data-step``: the digest's first 16 digits.
The id of its ``<g>`` is the box's own, the same from build to build.

Text in SVG does not wrap and has no width that Python could ask for. Words are therefore broken by a table
of widths taken from DejaVu Sans, the widest of the fonts that the page may choose.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from bknb.display.boxes import Arrow, Box, Plan
from bknb.display.lanes import CONTEXT_HEIGHT, PAD, Layout, Place, Shape
from bknb.display.model import State
from bknb.display.palette import DARK_INK, DARK_SOFT_INK, GREY, INK, LANE, LOOKS, SANS, SOFT_INK

FONT = 12.0
_NARROW = {**dict.fromkeys("ijl|'!.,:;", 0.33), **dict.fromkeys('ftr()[]{}/\\-I "', 0.41)}
_WIDE = {
    **dict.fromkeys("mM@W%", 0.99),
    **dict.fromkeys("w_=+<>#&…", 0.85),
    **dict.fromkeys("ABDGHNOQRUVX", 0.74),
}
_WIDTHS = {**_NARROW, **_WIDE}


def text_width(text: str, font: float = FONT) -> float:
    """An upper estimate of a text's width in pixels; wide scripts count as squares."""
    return font * sum(_WIDTHS.get(c, 0.64 if c < "\u1100" else 1.05) for c in text)


def fit(text: str, width: float, font: float = FONT) -> str:
    """A text cut to a width, with an ellipsis where something is missing."""
    if text_width(text, font) <= width:
        return text
    room = width - text_width("…", font)
    for at, char in enumerate(text):
        room -= text_width(char, font)
        if room < 0:
            return text[:at].rstrip() + "…"
    return text


def break_lines(text: str, first: float, width: float) -> tuple[str, str]:
    """A text on two lines, the first of `first` pixels; broken between words, or in a path, or anywhere."""
    if text_width(text) <= first:
        return text, ""
    head, room = 0, first
    for word in re.findall(r"\S+\s*", text):
        if text_width(word.rstrip()) > room:
            break
        head, room = head + len(word), room - text_width(word)
    if head == 0 and text_width(text.split(" ", 1)[0]) > width:
        fitting = len(fit(text, first)) - 1
        head = max(text.rfind("/", 0, fitting) + 1, 0) or (fitting if fitting > 4 else 0)
    return text[:head].rstrip(), fit(text[head:], width)


def style() -> str:
    """The sheet of the picture that stands alone."""
    states = "".join(
        f'[data-state="{state}"] .b{{fill:{look.fill};stroke:{look.line}}}'
        f'[data-state="{state}"] .m{{fill:{look.line}}}'
        for state, look in LOOKS.items()
    )
    dark = "".join(f'[data-state="{state}"] .b{{fill:{look.dark_fill}}}' for state, look in LOOKS.items())
    return (
        f".k{{font-weight:600}}.t{{fill:{INK}}}.s{{fill:{SOFT_INK};font-size:11px}}.l{{fill:{GREY};font-size:11px}}"
        f".o{{fill:{SOFT_INK};font-size:10px;fill-opacity:.75}}.lane{{fill:{LANE};fill-opacity:.1}}.b{{stroke-width:1}}"
        f".w{{fill:none;stroke:{GREY};stroke-width:1.2;stroke-opacity:.75}}"
        f".w.strong{{stroke:{LOOKS[State.RAN].line};stroke-width:2.2;stroke-opacity:1}}"
        ".w.dashed{stroke-dasharray:3 4}"
        f'[data-state="skipped"] .b{{stroke-dasharray:4 3}}{states}'
        f"@media(prefers-color-scheme:dark){{.t{{fill:{DARK_INK}}}.s,.o{{fill:{DARK_SOFT_INK}}}{dark}}}"
    )


def standalone(plan: Plan, layout: Layout) -> str:
    """The picture as a document for an ``<img>`` or a file."""
    return _document(plan, layout, f"<style>{style()}</style>", ' xmlns="http://www.w3.org/2000/svg"')


def inline(plan: Plan, layout: Layout) -> str:
    """The picture for a page that has the sheet; boxes can be reached by Tab."""
    return _document(plan, layout, "", ' class="bknb-graph"')


def _document(plan: Plan, layout: Layout, head: str, attributes: str) -> str:
    size = f'width="{layout.width:g}" height="{layout.height:g}"'
    box = f'viewBox="0 0 {layout.width:g} {layout.height:g}"'
    font = f'font-family="{html.escape(SANS)}" font-size="{FONT:g}"'
    parts = [f"<svg{attributes} {size} {box} {font}>{head}"]
    parts += _lanes(plan, layout)
    parts += [_wire(arrow, path) for arrow, path in sorted(layout.wires, key=lambda w: w[0].strong)]
    drawn = _tile if layout.shape is Shape.TILES else _box
    readers = {arrow.target for arrow in plan.arrows if arrow.faint}
    parts += [drawn(b, layout.boxes[b.id], "◂ context" if b.id in readers else "") for b in plan.boxes]
    return "".join(parts) + "</svg>"


def _lanes(plan: Plan, layout: Layout) -> Iterator[str]:
    for label, lane in zip(plan.lanes, layout.lanes, strict=True):
        size = f'width="{lane.width:g}" height="{lane.height:g}"'
        yield f'<rect class="lane" x="{lane.x:g}" y="{lane.y:g}" {size} rx="9"/>'
        if label and lane.height > CONTEXT_HEIGHT + 2 * PAD:
            shown = html.escape(fit(label, lane.width - 20, 11))
            yield f'<text class="l" x="{lane.x + 12:g}" y="{lane.y + 14:g}">{shown}</text>'


def _wire(arrow: Arrow, path: str) -> str:
    names = [name for name in ("strong", "dashed") if getattr(arrow, name)]
    ends = f'data-from="{arrow.source}" data-to="{arrow.target}"'
    return f'<path class="{" ".join(["w", *names])}" {ends} d="{path}"/>'


def _box(box: Box, place: Place, origins: str) -> str:
    x, y, inner = place.x, place.y, place.width - 22
    if box.steps[0].kind == "local":
        status = html.escape(fit(box.status, inner - text_width(box.keyword) * 1.08 - 8, 11))
        said = f'<tspan class="k">{box.keyword}</tspan><tspan class="s" dx="8">{status}</tspan>'
        at = f'x="{x + 13:g}" y="{y + place.height / 2 + 4:g}"'
        return _group(box, place, 8, f'<text class="t" {at}>{said}</text>')
    keyword = fit(box.keyword, inner)
    used = text_width(keyword + " ") * 1.08
    first, second = break_lines(" ".join(box.words.split()), inner - used, inner)
    top = y + (18 if second else 24)
    text = f'<tspan class="k">{html.escape(keyword)}</tspan>' + (f" {html.escape(first)}" if first else "")
    lines = [f'<text class="t" x="{x + 13:g}" y="{top:g}">{text}</text>']
    if second:
        lines.append(f'<text class="t" x="{x + 13:g}" y="{y + 33:g}">{html.escape(second)}</text>')
    lower = y + place.height - 10
    lines.append(f'<text class="s" x="{x + 13:g}" y="{lower:g}">{html.escape(box.status)}</text>')
    if origins and text_width(box.status + origins, 11) < inner:
        at = f'x="{x + place.width - 8:g}" y="{lower:g}"'
        lines.append(f'<text class="o" {at} text-anchor="end">{html.escape(origins)}</text>')
    return _group(box, place, 8, "".join(lines))


def _tile(box: Box, place: Place, origins: str) -> str:
    if box.steps[0].kind == "local":
        return _box(box, place, origins)
    sign = LOOKS[box.state].sign
    number = box.steps[0].number or box.id.rpartition("-")[2]
    x, y = place.x + place.width / 2 + 2, place.y + place.height / 2 + 4
    at = f'x="{x:g}" y="{y:g}" text-anchor="middle" data-number="{number}"'
    return _group(box, place, 5, f'<text class="s" {at}>{sign} {number}</text>')


def _group(box: Box, place: Place, radius: float, text: str) -> str:
    """A box: its body, the strong mark at its left, its text."""
    x, y, width, height = place.x, place.y, place.width, place.height
    step = box.steps[0].digest.rpartition(":")[2][:16]
    half = radius / 2
    return (
        f'<g id="g-{box.id}" data-step="{html.escape(step)}" data-state="{box.state}">'
        f'<rect class="b" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'
        f'<path class="m" d="M{x + 4:g},{y:g}q-4,0 -4,{half:g}v{height - radius:g}q0,{half:g} 4,{half:g}z"/>'
        f"{text}</g>"
    )
