"""A history as a heat map: a row for each step, a column for each commit, oldest at the left.

Three values have three textures and not only three colours: what was cached is pale, what ran is full, what is known
only at run time is hatched. A commit that cannot be built is a bar over all rows.
"""

from __future__ import annotations

import html
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from bknb.display import amounts
from bknb.display.ansi import plain
from bknb.display.model import State
from bknb.display.palette import DARK_INK, DARK_SOFT_INK, GREY, INK, LANE, LOOKS, SANS, SOFT_INK
from bknb.display.svg import fit, text_width

WIDTH, LABELS, COSTS, ROW, HEAD, AXIS, LEGEND = 980.0, 292.0, 128.0, 20.0, 22.0, 31.0, 26.0
_CELL: Final = 15.0
_GAP_ABOVE, _ROUND_ABOVE = 6.0, 9.0
"""Cells wider than so many pixels have a gap between them, and round corners; narrower ones are drawn as one."""
MOST_COLUMNS: Final = 560
"""Of a longer history a cell is several commits, and has the value that most of them have."""
_LABEL_ROOM: Final = 92.0
_HOT: Final = ("#d2831b", "#e0952b")
"""What ran, on white and on a dark ground: the hue of ``would run``, stronger."""

CACHED, RAN, OPEN, NONE = "cached", "ran", "open", ""
"""Values of a cell; `NONE` where a commit has no such step."""
_MARKS: Final = {CACHED: "·", RAN: "█", OPEN: "?", NONE: " "}
_LEVELS: Final = "·▁▂▃▄▅▆▇█"


def shown(name: str) -> str:
    r"""A name of anybody's on one line, without what would steer a terminal or break a document.

    >>> shown("RUN a \\\n  b \x1b[31m\x00")
    'RUN a \\ b'
    """
    return " ".join(plain(name).encode("utf-8", "replace").decode().split())


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One step.

    Attributes:
        stage: the stage that it belongs to; rows of one stage stand together.
        name: its instruction.
        cells: a value for each commit.
        ran: in how many commits it ran; `open` in how many it may have.
        cost: what the runs that are certain take, in words; "" where that is not known.
        faded: the newest commit has no such step.
    """

    stage: str
    name: str
    cells: Sequence[str]
    ran: int
    open: int = 0
    cost: str = ""
    faded: bool = False

    @property
    def runs(self) -> str:
        """``4``, or ``4–200`` where some are known only at run time."""
        return f"{self.ran:,}–{self.ran + self.open:,}" if self.open else f"{self.ran:,}"

    @property
    def time(self) -> str:
        """What that costs, or at least costs."""
        return f"≥ {self.cost}" if self.cost and self.open else self.cost


@dataclass(frozen=True, slots=True)
class HeatColumn:
    """One commit: the beginning of its id, when it was made (unix seconds); `failed` if it cannot be built."""

    name: str
    time: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class HeatMap:
    """What is drawn: rows from top to bottom, those of a stage together; columns from left to right."""

    rows: Sequence[HeatRow]
    columns: Sequence[HeatColumn]

    @property
    def stages(self) -> list[tuple[str, list[HeatRow]]]:
        """Neighbouring rows of one stage."""
        return [(stage, list(rows)) for stage, rows in groupby(self.rows, key=lambda row: row.stage)]


# --- as a picture -------------------------------------------------------------------------------------------


def svg(heat: HeatMap) -> str:
    """The map as an SVG document for an ``<img>``."""
    return _Drawing(heat).draw()


def width(heat: HeatMap) -> float:
    """How wide the picture is, in pixels."""
    return _Drawing(heat).width


def _style() -> str:
    cached, open_ = LOOKS[State.DEFINITION], LOOKS[State.OPEN]
    return (
        f".k{{font-weight:600}}.t{{fill:{INK}}}.s{{fill:{SOFT_INK};font-size:11px}}.l{{fill:{GREY};font-size:11px}}"
        f".lane{{fill:{LANE};fill-opacity:.1}}.c{{fill:{cached.fill}}}.r{{fill:{_HOT[0]}}}.u{{fill:url(#h)}}"
        f".hb{{fill:{open_.fill}}}.hl{{stroke:{open_.line};stroke-width:1.6}}.x{{fill:{LOOKS[State.FAILED].line};fill-opacity:.35}}"
        f".faded{{opacity:.55}}"
        f"@media(prefers-color-scheme:dark){{.t{{fill:{DARK_INK}}}.s{{fill:{DARK_SOFT_INK}}}"
        f".c{{fill:{cached.dark_fill}}}.r{{fill:{_HOT[1]}}}.hb{{fill:{open_.dark_fill}}}.hl{{stroke:#c9b93a}}}}"
    )


_HATCH: Final = (
    '<defs><pattern id="h" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hb" width="5" height="5"/><path class="hl" d="M0,0V5"/></pattern></defs>'
)
_CLASSES: Final = {CACHED: "c", RAN: "r", OPEN: "u"}


class _Drawing:
    """One map: its scale, and the parts that need it."""

    def __init__(self, heat: HeatMap) -> None:
        self.each = -(-len(heat.columns) // MOST_COLUMNS) or 1
        self.heat = heat = _squeezed(heat, self.each)
        self.cell = (WIDTH - LABELS - COSTS) / max(len(heat.columns), 1)
        self.cell = min(self.cell, 24.0)
        self.right = LABELS + self.cell * len(heat.columns)
        self.lanes = self.right + COSTS
        self.width = max(self.lanes, LABELS + sum(room for _, _, room in self._keys()))
        stages = heat.stages
        self.bottom = HEAD + sum(len(rows) for _, rows in stages) * ROW + len(stages) * 24.0

    def draw(self) -> str:
        """The whole document."""
        height = self.bottom + AXIS + LEGEND
        size = f'width="{self.width:g}" height="{height:g}" viewBox="0 0 {self.width:g} {height:g}"'
        font = f'font-family="{html.escape(SANS)}" font-size="12"'
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}><style>{_style()}</style>{_HATCH}']
        parts += self._rows()
        parts += self._failures()
        parts += self._axis()
        parts += self._legend(height - 8)
        return "".join(parts) + "</svg>"

    def _rows(self) -> Iterator[str]:
        yield f'<text class="l" x="{self.right + 12:g}" y="14">runs</text>'
        if any(row.cost for row in self.heat.rows):
            yield f'<text class="l" x="{self.right + COSTS - 6:g}" y="14" text-anchor="end">time</text>'
        y = HEAD
        for stage, rows in self.heat.stages:
            height = 20 + len(rows) * ROW
            yield f'<rect class="lane" x="0" y="{y:g}" width="{self.lanes:g}" height="{height:g}" rx="8"/>'
            yield f'<text class="l" x="10" y="{y + 14:g}">{html.escape(fit(shown(stage) or "build", LABELS - 20, 11))}</text>'
            y += 18
            for row in rows:
                yield from self._row(row, y)
                y += ROW
            y += 6

    def _row(self, row: HeatRow, y: float) -> Iterator[str]:
        keyword, _, rest = shown(row.name).partition(" ")
        room = LABELS - 24 - text_width(keyword + " ") * 1.08
        faded = " faded" if row.faded else ""
        yield (
            f'<g class="row{faded}"><text class="t" x="10" y="{y + 13:g}"><tspan class="k">{html.escape(keyword)}</tspan> '
            f"{html.escape(fit(rest, room))}</text>"
        )
        yield from self._cells(row, y + 2)
        yield f'<text class="s" x="{self.right + 12:g}" y="{y + 13:g}">{row.runs}</text>'
        cost = html.escape(row.time)
        yield f'<text class="s" x="{self.right + COSTS - 6:g}" y="{y + 13:g}" text-anchor="end">{cost}</text></g>'

    def _cells(self, row: HeatRow, y: float) -> Iterator[str]:
        if self.cell >= _ROUND_ABOVE:
            for at, value in enumerate(row.cells):
                if value:
                    place = f'x="{LABELS + at * self.cell:.1f}" y="{y:g}" width="{self.cell - 1:.1f}" height="{_CELL:g}"'
                    yield f'<rect class="{_CLASSES[value]}" {place} rx="2"/>'
            return
        paths: dict[str, list[str]] = {}
        for value, at, count in self._runs(row):
            width = count * self.cell - (1 if self.cell >= _GAP_ABOVE else 0)
            corners = f"M{LABELS + at * self.cell:.1f},{y:g}h{width:.2f}v{_CELL:g}h-{width:.2f}z"
            paths.setdefault(_CLASSES[value], []).append(corners)
        for kind, corners_ in paths.items():
            yield f'<path class="{kind}" d="{"".join(corners_)}"/>'

    def _runs(self, row: HeatRow) -> Iterator[tuple[str, int, int]]:
        """Neighbours of one value: the value, the first one's place, how many; each alone where there is a gap between."""
        at = 0
        for value, run in groupby(row.cells):
            count = len(list(run))
            if value and self.cell >= _GAP_ABOVE:
                yield from ((value, place, 1) for place in range(at, at + count))
            elif value:
                yield value, at, count
            at += count

    def _failures(self) -> Iterator[str]:
        for at, column in enumerate(self.heat.columns):
            if column.failed:
                x, height = LABELS + at * self.cell, self.bottom - HEAD - 6
                yield f'<rect class="x" x="{x:.1f}" y="{HEAD:g}" width="{max(self.cell - 1, 1):.1f}" height="{height:g}"/>'

    def _axis(self) -> Iterator[str]:
        """The ends, and as many commits between them as have room, by day and id."""
        count = len(self.heat.columns)
        labels = max(2, min(int(self.cell * count / _LABEL_ROOM), 7)) if count > 1 else 1
        places = (
            sorted({round(at * (count - 1) / max(labels - 1, 1)) for at in range(labels)}) if count else []
        )
        if self.cell * count < _LABEL_ROOM * 1.6:
            places = places[-1:]
        for place in places:
            column = self.heat.columns[place]
            x = LABELS + (place + 0.5) * self.cell
            anchor = "start" if place == 0 and count > 1 else "end" if place == count - 1 else "middle"
            x += {"start": -self.cell / 2, "end": self.cell / 2, "middle": 0}[anchor]
            day = time.strftime("%-d %b %Y", time.gmtime(column.time))
            for line, text in enumerate((day, column.name)):
                y = self.bottom + 10 + 13 * line
                yield f'<text class="l" x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{html.escape(text)}</text>'

    def _keys(self) -> list[tuple[str, str, float]]:
        """What the legend explains: class, words, and the room that they take."""
        values = {value for row in self.heat.rows for value in row.cells}
        said = [(RAN, "r", "would have run"), (CACHED, "c", "cached"), (OPEN, "u", "known only at run time")]
        there = [(kind, words) for value, kind, words in said if value in values]
        if any(column.failed for column in self.heat.columns):
            there.append(("x", "cannot be built"))
        if self.each > 1:
            there.append(("none", f"a cell is {self.each} commits"))
        return [(kind, words, 36 + text_width(words, 11)) for kind, words in there]

    def _legend(self, y: float) -> Iterator[str]:
        x = LABELS
        for kind, words, room in self._keys():
            if kind != "none":
                yield f'<rect class="{kind}" x="{x:g}" y="{y - 10:g}" width="13" height="12" rx="2"/>'
            yield f'<text class="s" x="{x + 18:g}" y="{y:g}">{words}</text>'
            x += room


def _squeezed(heat: HeatMap, each: int) -> HeatMap:
    """The same history in so many times fewer columns."""
    if each == 1:
        return heat
    places = range(0, len(heat.columns), each)
    rows = [
        replace(row, cells=[Counter(row.cells[at : at + each]).most_common(1)[0][0] for at in places])
        for row in heat.rows
    ]
    columns = [
        replace(heat.columns[at], failed=all(c.failed for c in heat.columns[at : at + each])) for at in places
    ]
    return HeatMap(rows, columns)


# --- as text ------------------------------------------------------------------------------------------------


def text(heat: HeatMap, width: int = 100) -> list[str]:
    """The map as lines of at most `width` characters; where commits outnumber them, a character is several."""
    names = min(
        max([len(_indent(row) + shown(row.name)) for row in heat.rows], default=0), max(width // 3, 20)
    )
    costs = [_cost(row) for row in heat.rows]
    tail = max(map(len, costs), default=0)
    room = max(width - names - tail - 4, 10)
    count = len(heat.columns)
    each = -(-count // room) if count else 1
    lines: list[str] = []
    stage: str | None = None
    for row, cost in zip(heat.rows, costs, strict=True):
        if row.stage != stage:
            stage = row.stage
            lines.append(f"[{amounts.cut(shown(stage), width - 2)}]" if stage else "")
        name = f"{_indent(row)}{amounts.cut(shown(row.name), names - len(_indent(row)))}".ljust(names)
        cells = "".join(
            "×"
            if any(column.failed for column in heat.columns[at : at + each]) and each == 1
            else _mark(row.cells[at : at + each])
            for at in range(0, count, each)
        )
        lines.append(f"{name}  {cells}  {cost.rjust(tail)}")
    if count:
        lines.append(f"{'':{names}}  {_ends(heat, -(-count // each))}".rstrip())
    lines.append(_key(heat, each))
    return [line for line in lines if line]


def _indent(row: HeatRow) -> str:
    return "  " if row.stage else ""


def _cost(row: HeatRow) -> str:
    return f"{row.runs} run{'' if row.runs == '1' else 's'}" + (f", {row.time}" if row.time else "")


def _mark(values: Sequence[str]) -> str:
    """One character for some neighbouring cells: the share that ran, if any of it is certain."""
    there = [value for value in values if value]
    if len(there) <= 1 or len(set(there)) == 1:
        return _MARKS[there[0] if there else NONE]
    ran = sum(value == RAN for value in there)
    if not ran:
        return "?"
    return _LEVELS[max(1, round(ran / len(there) * (len(_LEVELS) - 1)))]


def _ends(heat: HeatMap, room: int) -> str:
    first, last = heat.columns[0].name, heat.columns[-1].name
    if len(heat.columns) == 1 or room < len(first) + len(last) + 3:
        return last.rjust(room)
    return first + last.rjust(room - len(first))


def _key(heat: HeatMap, each: int) -> str:
    values = {value for row in heat.rows for value in row.cells}
    said = [(RAN, "█ would have run"), (CACHED, "· cached"), (OPEN, "? known only at run time")]
    there = [words for value, words in said if value in values]
    if any(column.failed for column in heat.columns) and each == 1:
        there.append("× cannot be built")
    if each > 1:
        there.append(f"a character is {each} commits: ▁ to ▇ is the share that would have run")
    return "   ".join(there)
