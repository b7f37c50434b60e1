"""Events fold into a view, whatever their order."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bknb.digest import Digest
from bknb.display.model import BuildView, State, fold, fold_all, in_order
from bknb.events import BuildEvent, LogEvent, Outcome, StatusEvent, VertexEvent, from_json
from tests.display import streams

A, B = Digest.of_text("a"), Digest.of_text("b")


def states(view: BuildView) -> dict[str, State]:
    """State by label."""
    return {step.label: step.state for step in view.steps.values()}


def test_one_by_one_is_all_at_once() -> None:
    """`fold` repeated gives what `fold_all` gives."""
    events = streams.first()
    one = BuildView()
    for event in events:
        one = fold(one, event)
    assert one == fold_all(BuildView(), events)


@given(st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_any_order(chance: random.Random) -> None:
    """A shuffled stream gives the same states, times, sizes and results."""
    for name in ("edited", "failed", "cached"):
        events = getattr(streams, name)()
        whole = fold_all(BuildView(), events)
        shuffled = list(events)
        chance.shuffle(shuffled)
        other = fold_all(BuildView(), shuffled)
        assert states(other) == states(whole)
        for digest, step in whole.steps.items():
            found = other.steps[digest]
            assert (found.duration, found.size, found.result) == (step.duration, step.size, step.result)
        assert (other.duration, other.result, other.error) == (whole.duration, whole.result, whole.error)


def test_folding_is_pure() -> None:
    """A view that was folded further is as it was."""
    before = fold_all(BuildView(), streams.first(until=2.0))
    again = fold_all(BuildView(), streams.first(until=2.0))
    fold_all(before, streams.first())
    assert before == again


def test_json_replays() -> None:
    """A stream that went through JSON folds into the same view."""
    events = streams.first()
    assert fold_all(BuildView(), [from_json(e.to_json()) for e in events]) == fold_all(BuildView(), events)


def test_log_before_its_vertex() -> None:
    """A log line of an unknown vertex is kept, and not shown before the vertex is named."""
    view = fold(BuildView(), LogEvent(A, 1, b"early\n", 1.0))
    assert view.shown == ()
    view = fold(view, VertexEvent(A, "[2/4] RUN make", started=0.5))
    assert [(s.command, s.number, s.log_bytes) for s in view.shown] == [("RUN make", 2, b"early\n")]


def test_vertex_that_runs_again() -> None:
    """A vertex that is keyed and later executed has two spans; its duration is their sum, without the gap."""
    keyed = VertexEvent(A, "x", started=1.0, completed=1.5)
    view = fold_all(BuildView(), [keyed, VertexEvent(A, "x", started=5.0)])
    assert view.steps[A].state is State.RUNNING
    view = fold(view, VertexEvent(A, "x", started=5.0, completed=6.0, outcome=Outcome.RAN))
    assert view.steps[A].duration == 1.5


def test_what_was_left_at_the_end() -> None:
    """What never began is skipped when the build succeeded, cancelled when it failed."""
    waiting = VertexEvent(A, "x")
    done = fold_all(BuildView(), [waiting, BuildEvent("b", 1.0, True)])
    failed = fold_all(BuildView(), [waiting, BuildEvent("b", 1.0, True, error="no")])
    assert (done.steps[A].state, failed.steps[A].state) == (State.SKIPPED, State.CANCELLED)


def test_internal_vertices_are_not_counted() -> None:
    """What the frontend does for itself is no step."""
    view = fold_all(BuildView(), [VertexEvent(A, "[internal] load metadata"), VertexEvent(B, "[1/1] FROM x")])
    assert sum(view.counts().values()) == 1
    assert [step.label for step in view.shown] == ["FROM x"]


def test_a_finished_status_stays_finished() -> None:
    """An older progress report that comes late changes nothing."""
    done = StatusEvent(A, "layer", 10, 10, 2.0, completed=2.0)
    late = StatusEvent(A, "layer", 5, 10, 1.0)
    assert fold_all(BuildView(), [done, late]).steps[A].statuses["layer"] == done


def test_waits_are_paired() -> None:
    """The beginning and the end of a wait are one wait."""
    view = fold_all(BuildView(), streams.first())
    waits = [w for step in view.steps.values() for w in step.waits]
    assert [(w.cause, round((w.ended or 0) - w.started, 1)) for w in waits] == [("content-hash", 0.3)]


def test_a_cycle_does_not_hang() -> None:
    """Inputs that go round in a circle are listed once each."""
    view = fold_all(BuildView(), [VertexEvent(A, "a", (B,)), VertexEvent(B, "b", (A,))])
    assert {step.digest for step in in_order(view)} == {A, B}


def test_inputs_come_first() -> None:
    """The order of steps is that of the graph."""
    view = fold_all(BuildView(), [VertexEvent(B, "b", (A,)), VertexEvent(A, "a")])
    assert [step.digest for step in in_order(view)] == [A, B]


def test_first_word() -> None:
    """An instruction is shown strong, and so is the scheme of an identifier."""
    names = ("RUN make all", "docker-image://docker.io/library/busybox:latest", "merge")
    steps = fold_all(BuildView(), [VertexEvent(Digest.of_text(n), n) for n in names]).shown
    assert [step.words for step in steps] == [
        ("RUN", "make all"),
        ("docker-image", "busybox:latest"),
        ("merge", ""),
    ]


def test_names_are_cleaned() -> None:
    """No control character gets from a name into a picture."""
    view = fold(BuildView(), VertexEvent(A, "RUN \x1b[31mx\x1b[0m\ny\u202e"))
    assert view.steps[A].label == "RUN x y"
