"""A definition beside its source: lines name steps and steps name lines, where nothing but HTML is kept."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from bknb import llb
from bknb.digest import Digest
from bknb.display.definition import Compiled, beside_source, compiled_view, definition_bundle
from bknb.display.html import LARGEST
from bknb.display.model import State
from bknb.errors import Range
from bknb.llb import Constraints, Definition, Location, SourceInfo

TEXT = b"FROM alpine\nRUN make \\\n  all\n# said\nRUN true && echo '<b>'\n"
FILE = SourceInfo("Dockerfile", TEXT, "Dockerfile")


def at(*lines: int) -> Constraints:
    """It comes from these lines of the file."""
    return Constraints(locations=(Location(FILE, (Range(lines[0], 0, lines[-1], 0),)),))


def definition() -> Definition:
    """Three steps: one of them from two lines, one whose name has to be escaped."""
    base = llb.image("alpine", constraints=at(1))
    made = base.run("make all", constraints=at(2, 3))
    return made.run(["sh", "-c", "echo '<b>'"], constraints=at(5)).marshal(platform="linux/amd64")


class Tips(HTMLParser):
    """What hovering shows: the text of each `<code title>` with its title."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.found: list[tuple[str, str]] = []
        self._title: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._title = dict(attrs).get("title") if tag == "code" else None

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self.found.append((data, self._title))
            self._title = None


def tips(page: str) -> Tips:
    """The page, read."""
    read = Tips()
    read.feed(page)
    return read


def test_a_line_names_its_steps() -> None:
    """Hovering a line says which steps come from it; a line without any says so."""
    found = dict(tips(beside_source(definition())).found)
    assert found["RUN make \\"] == found["  all"] == "2 make all"
    assert found["# said"] == "no step"


def test_a_step_names_its_lines() -> None:
    """Hovering a step says where it comes from, with the lines themselves."""
    found = dict(tips(beside_source(definition())).found)
    assert found["make all"] == "Dockerfile:2-3\nRUN make \\\n  all"


def test_page_holds_only_what_pages_keep() -> None:
    """No script, no style sheet, no inline SVG, and nothing that only works with them; text is escaped."""
    page = definition_bundle(definition())["text/html"]
    assert tips(page).tags <= {
        "div",
        "table",
        "tr",
        "td",
        "th",
        "code",
        "abbr",
        "details",
        "summary",
        "span",
        "pre",
        "img",
    }
    assert not re.search(r"onclick|class=\"(?!tex2jax)|data-|var\(|<b>'", page)


def test_steps_are_compiled_and_have_numbers() -> None:
    """In the picture no step ran or was skipped; the text has a row for each, in order."""
    found = Compiled.read(definition())
    view = compiled_view(found)
    assert {step.state for step in view.shown} == {State.COMPILED}
    rows = definition_bundle(definition())["text/plain"].splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert Digest(found.vertices[1].digest).short[:8] in rows[1]


def test_source_answers_both_ways() -> None:
    """`Definition.source` is what the page is made of."""
    source = definition().source
    assert source is not None
    second = Compiled.read(definition()).vertices[1].digest
    assert source.vertices_at(3) == (second,)
    assert source.ranges(second)[0].end_line == 3


def test_scratch_and_rubbish_are_a_line() -> None:
    """What cannot be drawn is said."""
    assert definition_bundle(llb.scratch())["text/plain"] == "scratch: no op"
    broken = definition_bundle(Definition((b"\xff",)))
    assert broken["text/plain"].startswith("not a definition that can be built: ")


@pytest.mark.timeout(20)
def test_page_is_bounded() -> None:
    """Many steps, long names, and ranges that span the world make a page that a notebook can hold."""
    state = llb.image("alpine")
    wide = Constraints(
        locations=(Location(SourceInfo("f", b"x" * 900 + b"\ny\n" * 9000), (Range(1, 0, 2**30, 0),)),)
    )
    for number in range(400):
        state = state.run(["echo", str(number) + "n" * 300], constraints=wide)
    page = definition_bundle(state)["text/html"]
    assert len(page) < 4 * LARGEST
    assert "and 281 more steps" in page
