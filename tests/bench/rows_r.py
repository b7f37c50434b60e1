"""Rows r1 to r4: replay of 50, 200 and 800 commits, and of 200 commits of 10,000 files.

There is no program to compare with: the floor is what git alone takes to list the commits and to tell what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bknb.analysis.replay import Repository
from bknb.api import replay
from tests.bench.measure import Row, in_turn
from tests.bench.rows import Bench
from tests.histories import make, project

SIZES = {"r1": (50, 0), "r2": (200, 0), "r3": (800, 0), "r4": (200, 10_000)}
"""Commits, and files beside the project's own."""


def _row(name: str) -> Callable[[Bench], Row]:
    def measure(bench: Bench) -> Row:
        commits, files = SIZES[name]
        folder = bench.place / f"history-{next(bench.numbers)}"
        many = {f"src/many/{at // 100}/{at}.txt": ("100644", b"%d" % at) for at in range(files)}
        make(folder, [(subject, {**state, **many}) for subject, state in project(commits, seed=4)])

        def told() -> None:
            assert len(replay(str(folder), "-n", str(commits), client=bench.client).table) == 16 * commits

        seconds = in_turn({"bknb": told, "git": lambda: _git(folder, commits)}, rounds=3)
        beside = f", {files:,} files" if files else ""
        return Row(name, f"replay of {commits} commits x 16 steps{beside}", seconds, {})

    return measure


def _git(folder: Path, commits: int) -> None:
    with Repository(str(folder)) as repository:
        found = repository.commits(commits)
        repository.files(found[0])
        repository.changes(found)


ROWS: Mapping[str, Callable[[Bench], Row]] = {name: _row(name) for name in SIZES}
