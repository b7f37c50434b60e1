"""Which earlier build a build is compared with: by cell, tag, file and notebook, and never an unrelated one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bknb.history import History, new_id
from bknb.history.baseline import baseline, targets_of
from bknb.protocols import ExportRequest, Origin, SolveRequest
from bknb.record import Record, StepRecord

COPY, LIST, COUNT, OTHER = "COPY src /src", "RUN ls /src > /list", "RUN wc /list", "RUN echo something else > /else"


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty one."""
    history = History(tmp_path / "history.db")
    yield history
    history.close()


def request(cell: str = "", tag: str = "", file: str = "", target: str = "", folder: str = "/w") -> SolveRequest:
    """A build from a notebook."""
    exports = (ExportRequest("image", {"name": f"docker.io/library/{tag}:latest"}),) if tag else ()
    origin = Origin("n.ipynb", cell, context=folder, dockerfile=file)
    return SolveRequest("dockerfile.v0", {"target": target} if target else {}, exports=exports, origin=origin)


def steps(*commands: str) -> tuple[StepRecord, ...]:
    """Steps of a stage."""
    return tuple(StepRecord(f"sha256:{one}", one, one, "stage-0", "exec", outcome="ran") for one in commands)


class Builds:
    """Builds one after another."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._now = 1.0

    def build(self, asked: SolveRequest, *commands: str, error: str = "") -> str:
        """Record one; its id."""
        self._now += 1
        made = Record(
            new_id(self._now), targets=targets_of(asked), definition="d", error=error, steps=steps(*commands)
        )
        self._history.add(made, (), ())
        return made.id

    def before(self, asked: SolveRequest, *commands: str) -> str | None:
        """What the next one would be compared with."""
        found = baseline(self._history, new_id(self._now + 1), targets_of(asked), steps(*commands))
        return found.id if found is not None else None


def test_the_same_cell_comes_first(history: History) -> None:
    """However it was tagged and edited, and whatever was built since."""
    builds = Builds(history)
    mine = builds.build(request("a", "one"), COPY, LIST)
    builds.build(request("b", "two"), COPY, LIST)
    assert builds.before(request("a", "two"), COPY, COUNT) == mine


def test_a_new_cell_is_compared_with_the_same_tag_then_file_then_text(history: History) -> None:
    """A cell without a run of its own, or whose run was of another Dockerfile."""
    builds = Builds(history)
    tagged = builds.build(request("a", "one"), COPY, LIST, COUNT)
    filed = builds.build(request("b", file="/w/Dockerfile"), COPY, LIST, COUNT)
    written = builds.build(request("c", "two"), COPY, LIST, COUNT)
    assert builds.before(request("d", "one"), COPY, LIST, COUNT) == tagged
    assert builds.before(request("d", file="/w/Dockerfile"), COPY, LIST, COUNT) == filed
    assert builds.before(request("d"), COPY, LIST, COUNT) == written
    builds.build(request("d"), OTHER, "RUN cat /proc/version > /version")
    assert builds.before(request("d", "one"), COPY, LIST, COUNT) == tagged


def test_an_unrelated_build_is_none(history: History) -> None:
    """Another file or folder, and in one notebook what has not most instructions in common."""
    builds = Builds(history)
    builds.build(request("a", "one"), COPY, LIST)
    builds.build(request("b", file="/w/Dockerfile"), COPY, LIST)
    assert builds.before(request("c", "three"), COPY, OTHER) is None
    assert builds.before(request("c", "one", folder="/v"), COPY, LIST) is None
    assert builds.before(request("c", file="/w/other/Dockerfile"), COPY, LIST) is None
    assert builds.before(request("b", file="/w/Dockerfile"), OTHER) is None


def test_the_same_target_comes_before_another(history: History) -> None:
    """Of one Dockerfile."""
    builds = Builds(history)
    test = builds.build(request(file="/w/Dockerfile", target="test"), COPY, LIST)
    assert builds.before(request(file="/w/Dockerfile", target="app"), COPY, LIST) == test
    app = builds.build(request(file="/w/Dockerfile", target="app"), COPY, LIST)
    assert builds.before(request(file="/w/Dockerfile", target="app"), COPY, LIST) == app
    assert builds.before(request(file="/w/Dockerfile", target="test"), COPY, LIST) == test


def test_a_failed_build_is_taken_where_no_other_is(history: History) -> None:
    """The one that worked says more, also if it was asked for elsewhere."""
    builds = Builds(history)
    failed = builds.build(request("a", "one"), COPY, LIST, error="exit code: 1")
    assert builds.before(request("a", "one"), COPY, LIST) == failed
    worked = builds.build(request("b", "one"), COPY, LIST)
    assert builds.before(request("a", "one"), COPY, LIST) == worked


def test_a_later_build_is_no_baseline(history: History) -> None:
    """An old build is asked about: what came after it does not count."""
    builds = Builds(history)
    first, second = (builds.build(request("a"), COPY, LIST) for _ in range(2))
    found = baseline(history, second, targets_of(request("a")), steps(COPY, LIST))
    assert found is not None and found.id == first
    assert baseline(history, first, targets_of(request("a")), steps(COPY, LIST)) is None


def test_a_file_of_an_earlier_version_is_used(tmp_path: Path) -> None:
    """Its builds have one target each, in a column: they are no baselines, those that follow are."""
    history = History(tmp_path / "history.db")
    history.close()
    with closing(sqlite3.connect(tmp_path / "history.db")) as db:
        db.execute("DROP TABLE target")
        db.execute("DROP TABLE build")
        db.execute("CREATE TABLE build(id TEXT PRIMARY KEY, started REAL NOT NULL, target TEXT NOT NULL, record BLOB NOT NULL)")
        db.execute("CREATE INDEX build_target ON build(target, id)")
    history = History(tmp_path / "history.db")
    builds = Builds(history)
    assert builds.before(request("a"), COPY, LIST) is None
    made = builds.build(request("a"), COPY, LIST)
    assert builds.before(request("a"), COPY, LIST) == made
    history.close()
