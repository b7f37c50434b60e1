"""What a replay finds out: a cell for each commit and step."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bknb.analysis.replay.git import Commit


class Outcome(enum.StrEnum):
    """What a build of a commit would have done with a step."""

    CACHED = "cached"
    RAN = "ran"
    UNKNOWN = "known only at run time"
    """It reads what an earlier step writes, and that step would have run; or it stands on such a step."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One step of one commit.

    Attributes:
        outcome: what a build would have done with it.
        how: a cached one is found: ``definition``, ``content``, ``merged`` (with its twin).
        command: the instruction as it was in that commit.
    """

    outcome: Outcome
    how: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A step over the history. An instruction that was edited, or moved within its stage, stays the same row.

    Attributes:
        stage: the stage that it belongs to.
        command: the instruction as it was last.
        line: where that stood in its Dockerfile.
        kind: ``exec``, ``file``, ``merge``...
        now: the newest commit has it.
    """

    stage: str
    command: str
    line: int = 0
    kind: str = ""
    now: bool = True

    @property
    def name(self) -> str:
        """Stage and instruction."""
        return f"[{self.stage}] {self.command}" if self.stage else self.command


@dataclass(frozen=True, slots=True)
class Column:
    """A commit.

    Attributes:
        commit: which.
        cells: one for each row; None where it has no such step, or does not need it.
        error: why it cannot be built; "" if it can.
    """

    commit: Commit
    cells: tuple[Cell | None, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One Dockerfile over a history, commits oldest first."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]

    def counts(self, row: int) -> Mapping[Outcome, int]:
        """How often a step came to each outcome."""
        found = dict.fromkeys(Outcome, 0)
        for column in self.columns:
            cell = column.cells[row] if column.cells else None
            if cell is not None:
                found[cell.outcome] += 1
        return found

    def total(self, outcome: Outcome) -> int:
        """Cells with an outcome."""
        return sum(cell.outcome is outcome for _, _, cell in self)

    def __iter__(self) -> Iterator[tuple[Column, Row, Cell]]:
        """Every cell, commit by commit."""
        for column in self.columns:
            for row, cell in zip(self.rows, column.cells, strict=False):
                if cell is not None:
                    yield column, row, cell


@dataclass(frozen=True, slots=True)
class Cost:
    """What an instruction costs over a history.

    Attributes:
        row: which.
        ran: commits in which it ran; `unknown` those in which it may have; `cached` the others that have it.
        each: seconds of one run, the median of `samples` earlier ones; None where none is known.
    """

    row: Row
    ran: int
    unknown: int
    cached: int
    each: float | None = None
    samples: int = 0

    @property
    def seconds(self) -> float | None:
        """Of all runs that are certain; None where no earlier duration is known."""
        return None if self.each is None else self.ran * self.each


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of the Dockerfile does to one instruction: in how many commits it runs before and after.

    `open` are the commits in which it may run as well after the change, which count as runs in what is saved.
    """

    stage: str
    command: str
    before: int
    after: int
    open: int = 0
    each: float | None = None
    samples: int = 0

    @property
    def saved(self) -> int:
        """Runs that are certainly saved; negative where the change costs runs."""
        return self.before - self.after - self.open


@dataclass(frozen=True, slots=True)
class Reordering:
    """A change of the Dockerfile that keeps what the build means, and what it would have saved.

    Attributes:
        title: in a few words.
        because: why it is the same build, and what is taken for granted with that.
        diff: the lines of the newest Dockerfile that change, as a unified diff.
        changes: the instructions that would have run less or more often, the most saved first.
        commits: how many commits could have been changed so; `of` how many were replayed.
    """

    title: str
    because: str
    diff: tuple[str, ...]
    changes: tuple[Change, ...]
    commits: int
    of: int

    @property
    def runs(self) -> int:
        """Runs of commands that are saved."""
        return sum(change.saved for change in self.changes if change.command.upper().startswith("RUN"))

    @property
    def seconds(self) -> float | None:
        """Seconds that are saved, of the instructions of which earlier durations are known; None where of none is."""
        known = [change.saved * change.each for change in self.changes if change.each is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Replay:
    """Everything that a replay has found out.

    Attributes:
        timeline: of the Dockerfile as it was.
        costs: of each row, the dearest first.
        reorderings: what would have saved work, the most first.
        notes: what was taken for granted, one sentence each.
        filename: the Dockerfile.
        repository: where the history is.
    """

    timeline: Timeline
    costs: tuple[Cost, ...] = ()
    reorderings: tuple[Reordering, ...] = ()
    notes: tuple[str, ...] = ()
    filename: str = "Dockerfile"
    repository: str = ""


Durations = Mapping[tuple[str, str], Sequence[float]]
"""Seconds of earlier runs, by stage and instruction."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What one run of an instruction takes, from earlier runs."""

    durations: Durations = field(default_factory=dict)

    def find(self, stage: str, command: str) -> tuple[float | None, int]:
        """The median in seconds and the number of runs that it is of; of other stages where this one has none."""
        runs = self.durations.get((stage, command)) or [
            seconds for (_, other), found in self.durations.items() if other == command for seconds in found
        ]
        if not runs:
            return None, 0
        ordered = sorted(runs)
        middle = len(ordered) // 2
        return (ordered[middle] + ordered[~middle]) / 2, len(ordered)
