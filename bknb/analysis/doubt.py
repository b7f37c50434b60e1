"""Which steps of a predicted build may turn out otherwise, because they read what another step has yet to write.

A step that would run in the prediction may be found after all if content that nobody knows yet equals what was
there before. That needs a key in the cache to which *everything that is known* of the step leads, and which has a
result. `Doubts` works out those keys, inputs first; a step without any runs for certain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from bknb.analysis.shadow import ShadowStore
from bknb.digest import Digest
from bknb.events import Outcome
from bknb.solver.graph import NOTHING, ActiveEdge, ActiveVertex

RAN: Final = (Outcome.RAN, Outcome.MERGED)


class Doubts:
    """What is in doubt of a predicted build.

    Args:
        graph: every vertex, inputs first, as the prediction has left it.
        goals: those that were asked for.
        store: as the prediction has left it.
        stood_in: the inputs, by vertex and number, whose content is not known.

    Attributes:
        open: vertices that may be found.
        idle: vertices that may not be needed, because one that is open may be found.
    """

    def __init__(
        self,
        graph: Sequence[ActiveVertex],
        goals: Collection[ActiveVertex],
        store: ShadowStore,
        stood_in: Collection[tuple[Digest, int]],
    ) -> None:
        self._store = store
        self._stood_in = stood_in
        self._possible: dict[ActiveEdge, frozenset[str]] = {}
        self.open: set[ActiveVertex] = set()
        for active in graph:
            for edge in active.edges.values():
                keys = self._keys(edge)
                if keys:
                    self._possible[edge] = keys
                    if any(store.records(key) for key in keys):
                        self.open.add(active)
        self.idle = self._idle(reversed(graph), goals) if self.open else set()

    def _keys(self, edge: ActiveEdge) -> frozenset[str]:
        """Keys that an edge may have beside those that it has in the prediction."""
        active = edge.vertex
        if active.status.outcome not in RAN or active.ignore_cache or active.map is None:
            return NOTHING
        numbers = range(len(active.inputs))
        blind = {number for number in numbers if (active.vertex.digest, number) in self._stood_in}
        if not blind and not any(given in self._possible for given in active.inputs):
            return NOTHING
        keys = self._store.keyed(active.map.digest, edge.index) - edge.keys - frozenset(edge.result_keys)
        for number in numbers:
            if keys and number not in blind:
                keys &= self._reached(edge, number)
        return keys

    def _reached(self, edge: ActiveEdge, number: int) -> frozenset[str]:
        """Where one input leads to, with every key that it may have."""
        active, given = edge.vertex, edge.vertex.inputs[number]
        assert active.map is not None
        selector = active.map.deps[number].selector or ""
        pairs = [(key, selector) for key in (*given.keys, *self._possible.get(given, ()))]
        content = active.content[number]
        if content is not None:
            pairs.append((content, ""))
        digest = active.map.digest
        return NOTHING.union(*(self._store.targets(k, number, edge.index, digest, s) for k, s in pairs))

    def _idle(self, downwards: Iterable[ActiveVertex], goals: Collection[ActiveVertex]) -> set[ActiveVertex]:
        idle: set[ActiveVertex] = set()
        for active in downwards:
            if active.status.outcome in RAN and active not in goals:
                uses = ((above, number) for above, numbers in active.consumers.items() for number in numbers)
                if not any(self._surely_takes(above, number, idle) for above, number in uses):
                    idle.add(active)
        return idle

    def _surely_takes(self, above: ActiveVertex, number: int, idle: set[ActiveVertex]) -> bool:
        """Whether a vertex needs an input whatever comes of what is open: for its content, or to run."""
        if above.content[number] is not None:
            known = any(edge.found[number] & edge.keys for edge in above.edges.values())
            return above not in self.open or not known
        return above.status.outcome in RAN and above not in self.open and above not in idle
