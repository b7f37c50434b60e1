"""Replay, held against real builds; and as people ask for it: in Python, on a command line, in a notebook."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb.api import Build, Client, Preferences, replay
from bknb.options import parse
from tests.conftest import need
from tests.histories import git, make, project

CACHED = ("definition", "content", "merged")
COMMITS, SAMPLED, SEED = 200, 20, 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One builder, with an empty cache at first."""
    need("busybox")
    client = Client(Preferences(root=str(tmp_path_factory.mktemp("state")), offline=True))
    yield client
    client.close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 commits."""
    folder = tmp_path_factory.mktemp("project")
    make(folder, project(COMMITS, SEED))
    return folder


def told(build: Build) -> Counter[tuple[str, str, str]]:
    """What a real build did with each instruction: stage, instruction, ``ran`` or ``cached``."""
    found: Counter[tuple[str, str, str]] = Counter()
    for step in build.steps:
        if step.command and step.view.kind in ("exec", "file", "merge") and step.outcome != "skipped":
            outcome = "cached" if step.outcome in CACHED else step.outcome
            found[step.stage, step.command, outcome] += 1
    return found


def test_equals_real_builds(shared: Client, repository: Path, tmp_path: Path) -> None:
    """The table is what real builds of 20 sampled commits do, in sequence, wherever it is not known only at run time."""
    ids = git(repository, "rev-list", "--reverse", "main").decode().split()
    sampled = [ids[at] for at in sorted(random.Random(SEED).sample(range(COMMITS), SAMPLED))]
    words = [word for id in sampled for word in ("--rev", id)]
    table = replay(str(repository), *words, client=shared).table
    assert (table["error"] == "").all()
    work = tmp_path / "work"
    git(repository, "worktree", "add", "--detach", str(work), sampled[0])
    open_, certain = 0, 0
    for id in sampled:
        git(work, "checkout", "--detach", "-q", id)
        real = told(shared.build(parse([str(work)], cell=False)))
        rows = table[table["commit"] == id]
        foretold = Counter(zip(rows["stage"], rows["instruction"], rows["outcome"], strict=True))
        unknown = Counter({key: count for key, count in foretold.items() if key[2] == "known only at run time"})
        places = {key[:2] for key in unknown}
        assert {k: n for k, n in (foretold - unknown).items() if k[:2] not in places} == {
            k: n for k, n in real.items() if k[:2] not in places
        }, id
        open_ += unknown.total()
        certain += foretold.total() - unknown.total()
    assert certain > 10 * SAMPLED and {"cached", "ran"} <= set(table["outcome"])
    assert open_ > 0  # the history is such that some of it cannot be known
