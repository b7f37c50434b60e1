"""Values as JSON: what is written is read back, and what is none is refused."""

from __future__ import annotations

import json

import pytest

from bknb.digest import Digest
from bknb.errors import Range
from bknb.events import DecisionEvent, Event, LogEvent, Outcome, Phase, VertexEvent, WarningEvent, from_json
from bknb.record import Record, StepRecord

EVENTS: tuple[Event, ...] = (
    VertexEvent(
        Digest("sha256:a"),
        "RUN",
        (Digest("sha256:b"),),
        "exec",
        ranges=(Range(1, 0, 2, 3),),
        outcome=Outcome.RAN,
    ),
    VertexEvent(Digest("sha256:a"), "a name that is no UTF-8: \udcff"),
    LogEvent(Digest("sha256:a"), 2, b"\xff\0", 1.5),
    WarningEvent(Digest("sha256:a"), 1, "short", ("more",)),
    DecisionEvent(1, Digest("sha256:a"), Phase.KEY, "hit", ("sha256:k", "r"), 2.0),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_read_back(event: Event) -> None:
    """As values and as a line; what has its default is not written."""
    line = event.to_bytes()
    assert from_json(json.loads(line)) == event == from_json(event.to_json())
    assert json.loads(line) == json.loads(json.dumps(event.to_json()))
    assert b"\n" not in line and b"progress_group" not in line


def test_digests_are_digests_again() -> None:
    """What was a digest is one when it is read."""
    again = from_json(EVENTS[0].to_json())
    assert (
        isinstance(again, VertexEvent)
        and isinstance(again.digest, Digest)
        and isinstance(again.inputs[0], Digest)
    )
    assert isinstance(again.ranges[0], Range)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"event": "unknown"},
        {"event": "vertex"},
        {"event": "vertex", "digest": 7, "name": "x"},
        {"event": "log", "vertex": "sha256:a", "stream": 1, "data": "%", "time": 0},
        {"event": "vertex", "digest": "sha256:a", "name": "x", "outcome": "of a later version"},
        [],
        None,
    ],
    ids=str,
)
def test_what_is_no_event_is_refused(values: dict[str, object]) -> None:
    """A file may come from anybody: one clear error, whatever is in it."""
    with pytest.raises(ValueError, match="not an event"):
        from_json(values)


def test_fields_of_a_later_version_are_passed_over() -> None:
    """So that a build that was saved by a newer bknb can be looked at."""
    event = EVENTS[2]
    assert from_json({**event.to_json(), "colour": "red"}) == event
    record = Record("a", steps=(StepRecord("d", inputs=("e",), outcome="ran"),), opts={"build-arg:V": "1"})
    assert Record.from_json({**record.to_json(), "colour": "red"}) == record
    with pytest.raises(ValueError, match="not the record of a build"):
        Record.from_json({"id": 1})
