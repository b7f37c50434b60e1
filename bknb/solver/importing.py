"""Opening the caches that jobs import from, each once for all who miss in the local one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

from bknb.errors import BknbError
from bknb.events import Phase
from bknb.flight import Flight
from bknb.protocols import CacheStore
from bknb.solver import board
from bknb.solver.combined import CombinedCache, Import
from bknb.solver.graph import ActiveEdge, ActiveGraph, ActiveVertex
from bknb.solver.sweep import sweep

Fly: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]], Callable[[], object]], Flight[None]]
"""Makes a flight of a coroutine function, and of what forgets it when it fails."""


class Importing:
    """The imports of a solver's jobs.

    Args:
        graph: whose vertices are looked for.
        store: the local cache.
        fly: makes a flight of the solver's.
        found: told of what was found in one that was opened.
    """

    def __init__(
        self,
        graph: ActiveGraph,
        store: CacheStore,
        fly: Fly,
        found: Callable[[Sequence[ActiveEdge]], None],
    ) -> None:
        self._graph = graph
        self._store = store
        self._fly = fly
        self._found = found
        self._opening: dict[Import, Flight[None]] = {}

    def look_in(self, active: ActiveVertex, imports: Sequence[Import]) -> None:
        """Have a vertex looked for in these caches too."""
        new = [each for each in imports if each not in active.imports]
        if new:
            active.imports += tuple(new)
            active.cache = CombinedCache(self._store, active.imports)

    def opening(self, each: Import) -> Flight[None]:
        """What opens an import, and looks for everything in it that may be found there."""
        if each not in self._opening:
            self._opening[each] = self._fly(lambda: self._open(each), lambda: self.forget([each]))
        return self._opening[each]

    def forget(self, imports: Iterable[Import]) -> None:
        """Their job has ended."""
        for each in imports:
            self._opening.pop(each, None)

    async def _open(self, each: Import) -> None:
        asking = self._graph.importing(each)
        for active in asking:
            board.decide(active, Phase.WAIT, "begin", "pull")
        try:
            await each.source.open()
            each.answers = True
        except (BknbError, OSError) as error:
            for active in self._graph.importing(each):
                board.decide(active, Phase.LOAD, "unreachable", each.source.name, str(error))
        finally:
            for active in asking:
                board.decide(active, Phase.WAIT, "end", "pull")
        each.tried = True
        hits = sweep(self._graph.importing(each))
        for edge in hits:
            board.hit(edge)
        self._found(hits)
