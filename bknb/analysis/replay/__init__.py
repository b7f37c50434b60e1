"""Replay: what builds of the last commits would have found in the cache, without running any of them.

Each commit is compiled from git's objects and predicted by the solver itself (`bknb.analysis.predict`) over the cache
that the commits before it would have left. What comes out is a cell for each commit and step, what each instruction
costs over that history, and what another order of the same instructions would have saved, measured by replaying
the changed Dockerfile as well.

- `git`: commits, trees and blobs.        - `tree`: content digests over them.
- `compile`: Dockerfiles to graphs.       - `walk`: from commit to commit.     - `rows`: which step is which.
- `moves`, `args`: changes of order, with `installs`: what package managers read, and `edits`: lines of a file.
- `run`: all of it.                       - `model`: what comes out.
"""

from bknb.analysis.replay.git import Commit, Repository
from bknb.analysis.replay.model import (
    Cell,
    Change,
    Clock,
    Column,
    Cost,
    Outcome,
    Reordering,
    Replay,
    Row,
    Timeline,
)
from bknb.analysis.replay.run import replay
from bknb.analysis.replay.walk import Question

__all__ = [
    "Cell", "Change", "Clock", "Column", "Commit", "Cost", "Outcome", "Question", "Reordering", "Replay", "Repository", "Row",
    "Timeline", "replay",
]  # fmt: skip
