"""What a vertex is keyed by beyond its definition: the cache maps of sources, and the content of inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.events import Outcome, Phase
from bknb.flight import Flight, Waits
from bknb.keys.cachekey import CONTENT, root_key
from bknb.protocols import CacheStore
from bknb.solver import board
from bknb.solver.graph import ActiveEdge, ActiveVertex
from bknb.solver.importing import Fly
from bknb.solver.job import StepJob
from bknb.solver.sweep import Wanted

if TYPE_CHECKING:
    from bknb.solver.solver import Solver


class Keying:
    """Asks sources, and looks at what inputs contain, each once for all who want to know.

    Args:
        solver: whom sources and content hashes may ask for nested builds.
        store: where what leads to a key is kept.
        fly: makes a flight of the solver's.
        solving: the flight that realises an input.
        propagate: told of what became known of a vertex, by the numbers of its inputs.
    """

    def __init__(
        self,
        solver: Solver,
        store: CacheStore,
        fly: Fly,
        solving: Callable[[ActiveEdge], Flight[None]],
        propagate: Callable[..., None],
    ) -> None:
        self._solver = solver
        self._store = store
        self._fly = fly
        self._solving = solving
        self._propagate = propagate

    def answer(self, wanted: Wanted) -> Flight[None]:
        """What finds out one thing that has to become known."""
        active, number = wanted
        return self.mapping(active) if number < 0 else self.realising(active, number)

    def mapping(self, active: ActiveVertex) -> Flight[None]:
        """What asks a source for its next cache map."""
        if active.mapping is None:
            active.mapping = self._fly(lambda: self._map(active), active.forget_maps)
        return active.mapping

    def realising(self, active: ActiveVertex, number: int) -> Flight[None]:
        """What realises one input, prepares it, and computes its content key where there is one."""
        found = active.realising.get(number)
        if found is None:
            found = active.realising[number] = self._fly(
                lambda: self._realise(active, number), lambda: active.realising.pop(number, None)
            )
        return found

    async def _map(self, active: ActiveVertex) -> None:
        if active.maps is None:
            board.begin(active)
            active.maps = active.operation.cache_maps(StepJob(self._solver, active))
        try:
            cache_map = await anext(active.maps, None)
            if cache_map is not None:
                active.set_map(cache_map)
                self._store.note(cache_map.digest, cache_map.plaintext)
                board.decide(active, Phase.KEY, "keyed", cache_map.digest)
            elif active.map is None:
                raise DefinitionError(f"{active.vertex!r} has no cache key")
            active.mapped = cache_map is None or cache_map.final
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and active.mapping is None:  # else it is asked again already
                board.complete(active, Outcome.CANCELLED)
            if not isinstance(error, Exception):
                raise
            raise board.fail(active, error) from error
        active.mapping = None
        self._propagate(active)
        if active.mapped and not any(edge.records for edge in active.edges.values()):
            board.pause(active)

    async def _realise(self, active: ActiveVertex, number: int) -> None:
        given = active.inputs[number]
        with Waits() as waits:
            while not given.done:
                await waits.on(self._solving(given))
        assert active.map is not None
        dep = active.map.deps[number]
        if dep.preprocess is not None or dep.content is not None:
            job = StepJob(self._solver, active)
            held = given.ref.clone() if given.ref is not None else None
            try:
                if dep.preprocess is not None:
                    await dep.preprocess(job, held)
                if dep.content is not None:
                    with job.waiting("content-hash"):
                        digest = await dep.content(job, held)
                    board.decide(active, Phase.CONTENT, "keyed", f"input:{number}", digest)
                    self._connect(active, number, digest)
            except Exception as error:
                raise board.fail(active, error, [each.ref for each in active.inputs]) from error
            finally:
                if held is not None:
                    await held.release()
        active.realised(number)
        self._propagate(active, number)

    def _connect(self, active: ActiveVertex, number: int, content_digest: Digest) -> None:
        """Content is known: what it leads to, the definition of the same input leads to from now on."""
        assert active.map is not None
        selector = active.map.deps[number].selector or ""
        content = active.content[number] = root_key(content_digest, CONTENT)
        given = active.inputs[number]
        sources = [(key, selector) for key in given.result_keys] + [(content, "")]
        if not active.ignore_cache:
            for edge in active.edges.values():
                digest = active.map.digest
                known = frozenset[str]().union(
                    *(active.cache.targets(key, number, edge.index, digest, selector) for key in given.keys)
                )
                edge.by_content |= active.cache.connect(sources, number, edge.index, digest) - known
