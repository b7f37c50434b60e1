"""The solver: turns edges into results, doing only what the cache does not have.

Read in this order:

- `graph`: the vertices that are being built now, shared by all jobs that want them.
- `sweep`: everything that can be said from the cache without waiting for anything: keys of all edges in one
  topological pass, what can still match, and what would have to be looked at next to know more.
- `combined`: the local cache and those that a build imports from, as one; `importing` opens them.
- `solver`: coroutines for what is left: load, or realise the inputs and run, each once for all who want it.
- `run`: executing a vertex, once for all that come to the same key; `index` knows which those are.
- `board`: what is said of a vertex, to all jobs that show it.
- `job`: one request being served, and what an operation sees of it.

In the words of *Build Systems a la Carte*: a suspending scheduler and a constructive-trace rebuilder, keyed
by definition first and by content second.
"""

from __future__ import annotations

from bknb.solver.job import Slots
from bknb.solver.solver import Solver

__all__ = ["Slots", "Solver"]
