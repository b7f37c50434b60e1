"""The first sentence answers the reader's question."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bknb.digest import Digest
from bknb.display import BuildView, fold_all
from bknb.display.sentence import explanation, headline
from bknb.events import BuildEvent, DecisionEvent, Outcome, Phase, VertexEvent
from tests.display.streams import T0

Views = Callable[[str], BuildView]
A, B = Digest.of_text("a"), Digest.of_text("b")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("first", "demo:latest built in 6.9 s · all 8 steps ran"),
        ("edited", "demo:latest built in 2.5 s · 5 of 8 steps cached"),
        ("cached", "demo:latest is up to date · all 8 steps cached · 60 ms"),
        ("failed", "demo:latest failed after 1.9 s · at RUN python -m build"),
        ("running", "demo:latest is being built · 5 of 9 steps done"),
    ],
)
def test_headline(view: Views, name: str, said: str) -> None:
    """Each outcome has its sentence."""
    assert str(headline(view(name))) == said


def test_time_of_a_running_build(view: Views) -> None:
    """The time so far is told when the clock is given."""
    assert str(headline(view("running"), now=T0 + 3)).endswith("· 3.0 s")


def test_cancelled(view: Views) -> None:
    """A cancelled build says what is kept."""
    stopped = fold_all(view("running"), [BuildEvent("b", T0 + 4, True, cancelled=True)])
    said = "demo:latest was cancelled after 4.0 s · 4 finished steps kept for the next build"
    assert str(headline(stopped)) == said
    assert explanation(stopped) == ""


def test_run_anew() -> None:
    """A step that ran only because it was asked to is not called changed."""
    events = [
        BuildEvent("b", 0.0),
        VertexEvent(A, "[1/2] FROM x", started=0.0, completed=0.0, outcome=Outcome.DEFINITION),
        VertexEvent(B, "[2/2] RUN make", (A,), started=0.0, completed=1.0, outcome=Outcome.RAN),
        DecisionEvent(1, B, Phase.KEY, "ignored", (), 0.0),
        BuildEvent("b", 1.0, True),
    ]
    assert explanation(fold_all(BuildView(), events)) == "Run anew, as asked: RUN make."
