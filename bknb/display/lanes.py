"""From ranks to lanes: coordinates for a picture that stays readable at any number of steps.

Three shapes, by what fits into `WIDTH` without being scaled down to nothing:

- **ranks**: up to six ranks; a column for each, so that what could run side by side stands side by side;
- **flow**: each lane is a paragraph of boxes that wraps, as text does; lanes follow each other downwards;
- **tiles**: beyond `TILES_ABOVE` boxes; a small tile for each step, its number in the stage on it.

The shape follows from the graph alone, not from what was cached: a rebuild's picture lies over the first.
Only the folding of cached runs, which sets in with `boxes.FOLD_ABOVE`, gives that up for legibility.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bknb.display.boxes import Arrow, Box, Plan
from bknb.display.graph import Places

WIDTH = 980.0
PAD = 9.0
SIDE = 6.0
LABEL = 20.0
BOX_HEIGHT = 58.0
CONTEXT_HEIGHT, CONTEXT_WIDTH = 28.0, 300.0
GAP = 18.0
ROW_GAP = 16.0
LANE_GAP = 8.0
WIDEST, NARROWEST = 178.0, 145.0
MOST_COLUMNS = 6
TILES_ABOVE = 90
TILE, TILE_GAP = (40.0, 24.0), 6.0


class Shape(enum.StrEnum):
    """How boxes are put."""

    RANKS = "ranks"
    FLOW = "flow"
    TILES = "tiles"


@dataclass(frozen=True, slots=True)
class Place:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan with coordinates. `lanes` are the bands behind the boxes; `wires` are SVG paths of arrows."""

    shape: Shape
    width: float
    height: float
    lanes: tuple[Place, ...]
    boxes: Mapping[str, Place]
    wires: tuple[tuple[Arrow, str], ...]


def layout(plan: Plan, places: Places) -> Layout:
    """Coordinates for every box, lane and arrow of a plan."""
    columns = sorted({x for x, _ in places.values()})
    if len(plan.boxes) > TILES_ABOVE:
        shape, boxes = Shape.TILES, _flow(plan, places, Shape.TILES)
    elif len(columns) <= MOST_COLUMNS:
        shape, boxes = Shape.RANKS, _ranks(plan, places, columns)
    else:
        shape, boxes = Shape.FLOW, _flow(plan, places, Shape.FLOW)
    right = max((p.x + p.width for p in boxes.values()), default=0.0) + SIDE
    lanes = _bands(plan, boxes, right)
    drawn = [arrow for arrow in plan.arrows if not arrow.faint and shape is not Shape.TILES]
    wires = tuple((arrow, _wire(boxes[arrow.source], boxes[arrow.target], shape)) for arrow in drawn)
    bottom = max((lane.y + lane.height for lane in lanes), default=0.0)
    return Layout(shape, right, bottom, lanes, boxes, wires)


def _bands(plan: Plan, boxes: Mapping[str, Place], right: float) -> tuple[Place, ...]:
    """The grounds of the lanes; the outermost of a row reach to the edges."""
    bands: list[Place] = []
    for index, label in enumerate(plan.lanes):
        inside = [boxes[box.id] for box in plan.boxes if box.lane == index]
        left, end = min(p.x for p in inside) - SIDE, max(p.x + p.width for p in inside) + SIDE
        top = min(p.y for p in inside) - _head(label, _lane_boxes(plan, index))
        bands.append(Place(left, top, end - left, max(p.y + p.height for p in inside) + PAD - top))
    for at, band in enumerate(bands):
        beside = [other for other in bands if other.y == band.y and other is not band]
        left = band.x if any(other.x < band.x for other in beside) else 0.0
        end = band.x + band.width if any(other.x > band.x for other in beside) else right
        bands[at] = Place(left, band.y, end - left, band.height)
    return tuple(bands)


def _lane_boxes(plan: Plan, index: int) -> list[Box]:
    return [box for box in plan.boxes if box.lane == index]


def _height(lane: Sequence[Box]) -> float:
    return CONTEXT_HEIGHT if all(box.steps[0].kind == "local" for box in lane) else BOX_HEIGHT


def _head(label: str, lane: Sequence[Box]) -> float:
    """What a lane has above its boxes; a context says its name itself."""
    return LABEL if label and _height(lane) > CONTEXT_HEIGHT else PAD


def _ranks(plan: Plan, places: Places, columns: Sequence[float]) -> dict[str, Place]:
    column = {x: at for at, x in enumerate(columns)}
    width = WIDEST if len(columns) < MOST_COLUMNS else NARROWEST
    found: dict[str, Place] = {}
    y = 0.0
    for index, label in enumerate(plan.lanes):
        lane = _lane_boxes(plan, index)
        height = _height(lane)
        y += _head(label, lane)
        filled: dict[int, int] = {}
        for box in lane:
            # No arrow is drawn from a context, so nothing is gained by putting it beside its first reader.
            at = column[places[box.id][0]] if height > CONTEXT_HEIGHT else 0
            row = filled.get(at, 0)
            filled[at] = row + 1
            wide = CONTEXT_WIDTH if height == CONTEXT_HEIGHT else width
            found[box.id] = Place(SIDE + at * (width + GAP), y + row * (height + ROW_GAP), wide, height)
        rows = max(filled.values(), default=1)
        y += rows * height + (rows - 1) * ROW_GAP + PAD + LANE_GAP
    return found


def _flow(plan: Plan, places: Places, shape: Shape) -> dict[str, Place]:
    lanes = [_lane_boxes(plan, index) for index in range(len(plan.lanes))]
    per_row = _per_row([len(lane) for lane in lanes])
    width, height, gap, row_gap = WIDEST, BOX_HEIGHT, GAP, ROW_GAP
    if shape is Shape.TILES:
        (width, height), gap, row_gap = TILE, TILE_GAP, TILE_GAP
        per_row = int((WIDTH - 2 * SIDE + gap) // (width + gap))
    elif per_row == MOST_COLUMNS:
        width = NARROWEST
    found: dict[str, Place] = {}
    y = below = 0.0
    taken = per_row
    for label, lane in zip(plan.lanes, lanes, strict=True):
        context = _height(lane) == CONTEXT_HEIGHT
        tall = CONTEXT_HEIGHT if context else height
        alone = context or shape is Shape.TILES
        if taken + len(lane) > per_row or alone:  # a new row; short lanes share one
            y, taken = below, 0
        top = y + _head(label, lane)
        for at, box in enumerate(sorted(lane, key=lambda b: places[b.id][0])):
            row, column = divmod(taken + at, per_row)
            wide = CONTEXT_WIDTH if context else width
            found[box.id] = Place(SIDE + column * (wide + gap), top + row * (tall + row_gap), wide, tall)
        rows = -(-len(lane) // per_row)
        below = max(below, top + rows * tall + (rows - 1) * row_gap + PAD + LANE_GAP)
        taken = per_row if alone else taken + len(lane)
    return found


def _per_row(lengths: Sequence[int]) -> int:
    """Five or six boxes in a row: whichever needs fewer rows, and then leaves the fuller last ones."""

    def cost(count: int) -> tuple[int, int]:
        rows = sum(-(-length // count) for length in lengths)
        return rows, sum(length % count == 1 and length > count for length in lengths)

    return min((5, 6), key=cost)


def _wire(a: Place, b: Place, shape: Shape) -> str:
    """An arrow's path: sideways within a row and between ranks, else through the gaps between boxes."""
    ax, ay = a.x + a.width, a.y + a.height / 2
    bx, by = b.x, b.y + b.height / 2
    same_row = abs(ay - by) < 1
    if bx > ax - 1 and (same_row or shape is Shape.RANKS):
        if same_row and bx - ax > 2 * GAP:
            return _bow(a, b)
        bend = min(GAP / 2 + abs(ay - by) / 6, max(GAP / 2, (bx - ax) / 2))
        return f"M{ax:g},{ay:g} C{ax + bend:g},{ay:g} {bx - bend:g},{by:g} {bx:g},{by:g}"
    if b.y <= a.y or shape is Shape.RANKS:
        top, down = (a.y + a.height, b.y) if b.y > a.y else (a.y, b.y + b.height)
        x1, x2 = a.middle[0], b.middle[0]
        pull = max(14.0, abs(down - top) * 0.45) * (1 if b.y > a.y else -1)
        return f"M{x1:g},{top:g} C{x1:g},{top + pull:g} {x2:g},{down - pull:g} {x2:g},{down:g}"
    drop = b.y - a.y - a.height
    if drop < ROW_GAP + 1 and bx < a.x:
        return _corners(
            (ax, ay), (ax + 6, ay), (ax + 6, ay + a.height / 2 + 8), (bx - 6, b.y - 8), (bx - 6, by), (bx, by)
        )
    start, x1, x2 = (a.middle[0], a.y + a.height), a.middle[0], b.middle[0]
    if drop < LABEL + PAD + LANE_GAP + 1:
        return _corners(
            start, (x1, start[1] + PAD + LANE_GAP / 2), (x2, b.y - LABEL - LANE_GAP / 2), (x2, b.y)
        )
    if bx > GAP:
        gutter = bx - GAP / 2
        return _corners(start, (x1, start[1] + 8), (gutter, start[1] + 8), (gutter, b.y + 14), (bx, b.y + 14))
    gutter = b.x + b.width + GAP / 2
    return _corners(
        start, (x1, start[1] + 8), (gutter, start[1] + 8), (gutter, b.y - 8), (x2, b.y - 8), (x2, b.y)
    )


def _corners(*points: tuple[float, float], radius: float = 6.0) -> str:
    """A line through points at right angles, its corners rounded."""
    path = f"M{points[0][0]:g},{points[0][1]:g}"
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        before, after = abs(x1 - x0) + abs(y1 - y0), abs(x2 - x1) + abs(y2 - y1)
        if before == 0 or after == 0:
            continue
        r = min(radius, before / 2, after / 2)
        into = (x1 - r * (x1 - x0) / before, y1 - r * (y1 - y0) / before)
        out = (x1 + r * (x2 - x1) / after, y1 + r * (y2 - y1) / after)
        path += f"L{into[0]:g},{into[1]:g}Q{x1:g},{y1:g} {out[0]:g},{out[1]:g}"
    return path + f"L{points[-1][0]:g},{points[-1][1]:g}"


def _bow(a: Place, b: Place) -> str:
    """Over the boxes in between."""
    x1, x2, top = a.middle[0], b.middle[0], a.y
    return f"M{x1:g},{top:g} C{x1:g},{top - 12:g} {x2:g},{top - 12:g} {x2:g},{top:g}"
