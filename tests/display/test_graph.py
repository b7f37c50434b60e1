"""The graph: what is drawn, where, and that all of it can be read."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from bknb.digest import Digest
from bknb.display import BuildView, fold_all, graph, lanes, render_dot, render_svg, svg
from bknb.display.boxes import Plan, plan
from bknb.display.lanes import Layout, Shape
from bknb.errors import Range
from bknb.events import VertexEvent
from tests.conftest import need
from tests.display import streams

Views = Callable[[str], BuildView]
NAMES = ["first", "edited", "failed", "running", "forty", "large", "hostile", "llb"]


def drawn(view: BuildView) -> tuple[Plan, Layout]:
    """A plan and its coordinates, by `dot`."""
    whole = plan(view)
    places = graph.places(whole)
    assert places is not None
    return whole, lanes.layout(whole, places)


@pytest.mark.parametrize("name", NAMES)
def test_no_box_lies_on_another(view: Views, name: str) -> None:
    """Boxes keep apart, inside of the picture, and within the width of a page."""
    need("dot")
    whole, layout = drawn(view(name))
    assert set(layout.boxes) == {box.id for box in whole.boxes}
    assert layout.width <= lanes.WIDTH + 1
    for a, b in itertools.combinations(layout.boxes.values(), 2):
        apart = a.x + a.width < b.x or b.x + b.width < a.x or a.y + a.height < b.y or b.y + b.height < a.y
        assert apart, (a, b)
    for box in layout.boxes.values():
        assert box.x >= 0 and box.x + box.width <= layout.width
        assert box.y >= 0 and box.y + box.height <= layout.height


@pytest.mark.parametrize("name", NAMES)
def test_text_stays_in_its_box(view: Views, name: str) -> None:
    """No line of text is wider than its box, measured with the widest font."""
    need("dot")
    document = ET.fromstring(render_svg(view(name)))
    space = "{http://www.w3.org/2000/svg}"
    for group in document.iter(f"{space}g"):
        width = float(group.find(f"{space}rect").attrib["width"])  # type: ignore[union-attr]
        for text in group.iter(f"{space}text"):
            if text.attrib["class"] != "o":
                assert svg.text_width("".join(text.itertext()), 11) <= width - 13, "".join(text.itertext())


def test_rebuild_lies_over_the_first(view: Views) -> None:
    """The same Dockerfile gives the same boxes in the same places, whatever was cached."""
    need("dot")
    pictures = [drawn(view(name))[1] for name in ("first", "edited", "cached", "failed", "running")]
    for other in pictures[1:]:
        assert other.boxes == pictures[0].boxes
        assert [path for _, path in other.wires] == [path for _, path in pictures[0].wires]


def test_forty_steps_are_folded_not_shrunk(view: Views) -> None:
    """Forty steps become boxes of full size on a picture that is not higher than a screen."""
    need("dot")
    whole, layout = drawn(view("forty"))
    assert layout.shape is Shape.FLOW
    assert len(whole.boxes) < 30
    assert layout.height < 700


def test_three_hundred_steps_show_the_changed_path(view: Views) -> None:
    """Each step that ran has a box of its own; the cached ones are folded."""
    whole = plan(view("large"))
    alone = [box for box in whole.boxes if len(box.steps) == 1]
    ran = sum(step.state.value == "ran" for step in view("large").steps.values())
    assert sum(box.state.value == "ran" for box in alone) == ran
    assert len(whole.boxes) < 60


def test_three_hundred_fresh_steps_are_tiles() -> None:
    """Where nothing can be folded, each step is a tile."""
    need("dot")
    view = fold_all(BuildView(), streams.large(300, fresh=300))
    whole = plan(view, fold_above=10_000)
    layout = lanes.layout(whole, graph.places(whole) or {})
    assert layout.shape is Shape.TILES
    assert layout.height < 1200


def test_state_is_colour_sign_and_word(view: Views) -> None:
    """DOT says each state three times; clusters are the stages."""
    source = render_dot(view("failed"))
    for word in ("= cached", "≈ cached by content", "✓ ran · 60 ms", "✗ failed", "– skipped", "⊘ cancelled"):
        assert word in source
    for label in ("label=build", "label=docs", "label=final"):
        assert label in source
    assert "#fbd5c8" in source


def test_hostile_names_stay_text(view: Views) -> None:
    """A name that closes tags is text in SVG, and one string in DOT."""
    need("dot")
    document = render_svg(view("hostile"))
    ET.fromstring(document)
    assert "<script" not in document
    assert graph.places(plan(view("hostile"))) is not None


def test_a_shared_base_image_stands_in_its_first_stage() -> None:
    """One vertex that several stages begin with is drawn where it is read first; one stage needs no label."""
    base, early, late = (Digest.of_text(name) for name in ("base", "early", "late"))
    events = [
        VertexEvent(base, "[stage-1 1/2] FROM busybox", kind="image", stage="stage-1", ranges=(Range(4),)),
        VertexEvent(early, "[deps 2/2] RUN a", (base,), "exec", "deps", (Range(2),)),
        VertexEvent(late, "[stage-1 2/2] RUN b", (base, early), "exec", "stage-1", (Range(5),)),
    ]
    whole = plan(fold_all(BuildView(), events))
    assert whole.lanes == ("deps", "final")
    assert [(box.lane, box.keyword) for box in whole.boxes] == [(0, "FROM"), (0, "RUN"), (1, "RUN")]
    assert plan(fold_all(BuildView(), events[:1])).lanes == ("",)


def test_no_program(view: Views, tmp_path: Path) -> None:
    """Without a program, and with one that fails, there are no places, and no exception."""
    whole = plan(view("first"))
    assert graph.places(whole, str(tmp_path / "missing")) is None
    assert graph.places(whole, "/bin/false") is None
    assert lanes.layout(whole, graph.order(whole)).boxes


def test_both_programs_agree(view: Views) -> None:
    """`dot` and the wheel's program put the boxes into the same order of ranks."""
    whole = plan(view("forty"))
    ranks = []
    for program in (need("dot"), need("graphviz-pure")):
        places = graph.places(whole, program)
        assert places is not None
        columns = sorted({x for x, _ in places.values()})
        ranks.append({box: columns.index(x) for box, (x, _) in places.items()})
    assert ranks[0] == ranks[1]


def test_words_are_broken_between(view: Views) -> None:
    """Words are broken at spaces, long ones at a slash."""
    assert svg.break_lines("pip install -r requirements.txt", 90, 130) == (
        "pip install -r",
        "requirements.txt",
    )
    assert svg.break_lines("gcr.io/distroless/python3", 70, 130)[0] in ("gcr.io/", "")
    assert re.fullmatch(r"x+…", svg.break_lines("x" * 500, 60, 100)[1])
