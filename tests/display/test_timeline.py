"""The chart of what ran beside what."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from msgspec.structs import replace

from bknb.digest import Digest
from bknb.display import BuildView, fold_all
from bknb.display.timeline import longest_chain, timeline, worked
from bknb.events import BuildEvent, Outcome, VertexEvent
from tests.display import streams

Views = Callable[[str], BuildView]
SPACE = "{http://www.w3.org/2000/svg}"


def test_longest_chain(view: Views) -> None:
    """The chain leads from the last step back through whatever ended last; the other base image is not on it."""
    chain = longest_chain(view("first"))
    labels = [step.label for step in chain.steps]
    assert labels[0] == "FROM python:3.12-slim"
    assert labels[-1] == "COPY --from=build /app/dist /app"
    assert "FROM gcr.io/distroless/python3" not in labels
    assert round(chain.seconds, 2) == 6.86


def test_a_bar_for_each_step_that_worked(view: Views) -> None:
    """Bars do not leave the picture; a wait is drawn; what was cached has no row."""
    build = view("first")
    document = ET.fromstring(timeline(build))
    bars = document.findall(f"{SPACE}rect")
    assert len(bars) == len(worked(build)) == 9
    for bar in bars:
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= 980
    assert any(path.attrib.get("stroke-dasharray") for path in document.findall(f"{SPACE}path"))
    assert len(worked(view("cached"))) == 1


def test_nothing_worked() -> None:
    """Without a step that took time there is no chart."""
    assert timeline(BuildView()) == ""


def test_many_rows_are_bounded() -> None:
    """Of very many steps the longest are drawn, and it is said how many are not."""
    text = timeline(fold_all(BuildView(), streams.large(600, fresh=600)))
    assert "and 570 more steps, none longer than" in text
    ET.fromstring(text)


def test_a_running_build(view: Views) -> None:
    """A step that runs has a bar up to the last thing that is known."""
    ET.fromstring(timeline(view("running")))


def test_a_cycle_ends() -> None:
    """The chain of a hostile graph ends."""
    assert longest_chain(fold_all(BuildView(), streams.hostile())).steps


def test_a_step_of_no_time_is_well_formed() -> None:
    """A time that is written with "<" is text in the picture, not a tag."""
    quick = VertexEvent(
        Digest.of(b"quick"), "[1/2] RUN true", kind="exec", started=1.0, completed=1.0002, outcome=Outcome.RAN
    )
    again = replace(quick, started=1.5, completed=1.5002)  # it worked twice, with a pause
    slow = VertexEvent(
        Digest.of(b"slow"), "[2/2] RUN sleep", kind="exec", started=1.1, completed=3.0, outcome=Outcome.RAN
    )
    document = timeline(
        fold_all(BuildView(), [BuildEvent("b", 1.0), quick, again, slow, BuildEvent("b", 3.0, finished=True)])
    )
    assert "&lt;1 ms" in document
    ET.fromstring(document)
