"""How long a planned build would take, and what a touched file means."""

from __future__ import annotations

from pathlib import Path

import pytest

from bknb.analysis.plan import untouched
from bknb.analysis.plan_facts import Folder
from bknb.analysis.plan_time import Durations, longest
from bknb.cache.contenthash import Tree
from bknb.protocols import LocalDirectory
from bknb.record import Record, StepRecord


def steps(text: str) -> list[StepRecord]:
    """A graph as text: ``name: inputs``, inputs first."""
    found = []
    for line in text.split(", "):
        name, _, given = line.partition(":")
        found.append(StepRecord(name, inputs=tuple(given.split())))
    return found


@pytest.mark.parametrize(
    ("graph", "slots", "seconds"),
    [
        ("", None, 0.0),
        ("a", None, 1.0),
        ("a, b: a, c: b", None, 3.0),
        ("a, b, c", None, 1.0),
        ("a, b, c", 1, 3.0),
        ("a, b, c", 2, 2.0),
        ("a, b: a, x, top: b x", None, 3.0),
        ("x, a, b: a, top: b x", 1, 4.0),
        ("a, b: a outside", None, 2.0),
    ],
)
def test_the_longest_chain(graph: str, slots: int | None, seconds: float) -> None:
    """Steps run side by side as far as inputs and slots allow."""
    found = steps(graph) if graph else []
    assert longest(found, {step.digest: 1.0 for step in found}, slots) == seconds


def test_what_hangs_on_a_step_decides_its_turn() -> None:
    """With two slots the long chain begins first, whatever the order of the graph is."""
    graph = steps("short1, short2, long1, long2: long1, top: short1 short2 long2")
    seconds = {"short1": 1.0, "short2": 1.0, "long1": 2.0, "long2": 2.0}
    assert longest(graph, seconds, 2) == 4.0


def test_steps_without_a_duration_take_none() -> None:
    """Nothing is guessed."""
    assert longest(steps("a, b: a, c: b"), {"b": 2.5}) == 2.5


def ran(digest: str, command: str, seconds: float, outcome: str = "ran", stage: str = "s") -> StepRecord:
    """A step of an earlier build."""
    return StepRecord(
        digest,
        command=command,
        stage=stage,
        kind="exec",
        outcome=outcome,
        started=10.0,
        completed=10.0 + seconds,
    )


def test_the_last_run_counts() -> None:
    """Of a step's own digest before that of one in its place; what was cached or failed tells nothing."""
    found = Durations.of(
        [
            Record("3", steps=(ran("c", "RUN x", 0.0, "definition"), ran("d", "RUN y", 9.0, "failed"))),
            Record("2", steps=(ran("b", "RUN x", 2.0),)),
            Record("1", steps=(ran("a", "RUN x", 1.0), ran("b", "RUN x", 7.0))),
        ]
    )
    assert found.find("a", "s", "exec", "RUN x") == 1.0
    assert found.find("b", "s", "exec", "RUN x") == 2.0
    assert found.find("c", "s", "exec", "RUN x") == 2.0
    assert found.find("d", "s", "exec", "RUN y") is None
    assert found.find("e", "other", "exec", "RUN x") is None


def test_a_stage_without_a_name_is_one_place() -> None:
    """The last stage was the third and is the second now: its steps ran all the same."""
    step = StepRecord("a", command="RUN x", stage="stage-2", kind="exec", outcome="ran", started=1.0, completed=3.0)
    found = Durations.of([Record("1", steps=(step,))])
    assert found.find("b", "stage-1", "exec", "RUN x") == 2.0
    assert found.find("b", "build", "exec", "RUN x") is None


def test_what_a_touched_file_means(tmp_path: Path) -> None:
    """It is there or not; if it is, why it changes nothing, if it does not."""
    folder = Folder(
        LocalDirectory("/ctx"),
        frozenset(["src", "src/a.py"]),
        ("*.log", "!keep.log"),
        ("open.ipynb",),
        Tree(),
    )
    names = ("src/a.py", "a.log", "keep.log", "open.ipynb", "gone")
    idle, missing = untouched(
        {f"/ctx/{name}": name for name in names}, [folder], lambda path: not path.endswith("gone")
    )
    assert missing == ["gone"]
    assert idle == {
        "a.log": ".dockerignore leaves it out",
        "keep.log": "no step reads it",
        "open.ipynb": "it is withheld from the context",
    }
    idle, _ = untouched({"/ctx/src/a.py": "src/a.py"}, [], lambda path: True)
    assert idle == {"src/a.py": "no step of this target reads the context"}
