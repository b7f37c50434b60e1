"""Which steps of a predicted build may turn out otherwise, because they read what another step has yet to write.

A step that would run in the prediction may be found after all if content that nobody knows yet equals what was
there before. That needs a key in the cache to which *everything that is known* of the step leads, and which has a
result. `Doubts` works out those keys, inputs first; a step without any runs for certain.

It may also come to the key of another step of the same build, and share the run of that. Most such keys are in the
cache that the prediction has left; those of steps that stand on a folder of the client as a whole are in none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from bknb.analysis.shadow import ShadowStore
from bknb.digest import Digest
from bknb.events import Outcome
from bknb.keys.cachekey import VOLATILE
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
        blind: vertices that stand on content that is not known.
        open: vertices that may be found.
        idle: vertices that may not be needed, because one that is open may be found.
        shared: vertices that may turn out to be one with another of this build, of which one runs then.
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
        self._found: dict[ActiveEdge, frozenset[str]] = {}
        self._kept: dict[ActiveEdge, frozenset[str]] = {}
        self._passing: dict[tuple[str, int, int, str, str], set[str]] = {}
        self._volatile: dict[tuple[str, int], set[str]] = {}
        self.open: set[ActiveVertex] = set()
        self.shared: set[ActiveVertex] = set()
        for active in graph:
            if active.status.outcome in RAN and active.map is not None:
                self._note_passing(active)
        for active in graph:
            if active.status.outcome in RAN and active.map is not None:
                self._weigh(active)
            for edge in active.edges.values():
                self._recall(edge)
        self.blind = self._blind(graph)
        self.idle = self._idle(reversed(graph), goals) if self.open else set()

    def about(self, active: ActiveVertex) -> bool:
        """Whether it is in doubt what becomes of a vertex."""
        return active in self.open or active in self.idle or active in self.shared

    def _blind(self, graph: Sequence[ActiveVertex]) -> set[ActiveVertex]:
        blind: set[ActiveVertex] = set()
        for active in graph if self._stood_in else ():
            for number, given in enumerate(active.inputs):
                if given.vertex in blind or (active.vertex.digest, number) in self._stood_in:
                    blind.add(active)
                    break
        return blind

    def _note_passing(self, active: ActiveVertex) -> None:
        """Remember links to keys that last for this build only: no cache has them, and what comes to one runs once."""
        assert active.map is not None
        digest = active.map.digest
        for edge in active.edges.values():
            keys = {key for key in edge.result_keys if key.startswith(VOLATILE)}
            if keys and active.inputs:
                self._volatile.setdefault((digest, edge.index), set()).update(keys)
                for number, given in enumerate(active.inputs):
                    for key, selector in _pairs(active, number, given.result_keys):
                        self._passing.setdefault((key, number, edge.index, digest, selector), set()).update(keys)

    def _weigh(self, active: ActiveVertex) -> None:
        """Work out the keys that a vertex may have beside those that it has in the prediction.

        It may be found by some, and when it has run it may be kept under more: what was run although the cache had it
        is known by its old keys from then on.
        """
        numbers = range(len(active.inputs))
        blind = {number for number in numbers if (active.vertex.digest, number) in self._stood_in}
        if not blind and not any(given in self._kept for given in active.inputs):
            return
        for edge in active.edges.values():
            kept = self._keys(edge, blind, self._kept, results=True)
            if kept:
                self._kept[edge] = kept
                if not active.ignore_cache:
                    self._found[edge] = kept
                    if any(key.startswith(VOLATILE) for key in kept):
                        self.shared.add(active)
            found = NOTHING if active.ignore_cache else self._keys(edge, blind, self._found, results=False)
            if any(self._store.records(key) for key in found):
                self.open.add(active)

    def _recall(self, edge: ActiveEdge) -> None:
        """Doubts of earlier predictions on this store about the keys of an edge, and those of this one for later."""
        own = edge.keys.union(edge.result_keys)
        earlier = self._store.suspects(own)
        if earlier:
            self._kept[edge] = self._kept.get(edge, NOTHING) | earlier
            self._found[edge] = self._found.get(edge, NOTHING) | earlier
        if own and edge in self._kept:
            self._store.suspect(own | self._kept[edge])

    def _keys(
        self,
        edge: ActiveEdge,
        blind: Collection[int],
        more: Mapping[ActiveEdge, frozenset[str]],
        *,
        results: bool,
    ) -> frozenset[str]:
        """Where all inputs that are known lead to, by what they may have `more` of too."""
        active = edge.vertex
        assert active.map is not None
        digest, index = active.map.digest, edge.index
        keys = self._store.keyed(digest, index).union(self._volatile.get((digest, index), ()))
        keys -= edge.keys.union(edge.result_keys)
        for number, given in enumerate(active.inputs):
            if keys and number not in blind:
                own = (*given.keys, *given.result_keys) if results else given.keys
                keys &= self._reached(edge, number, (*own, *more.get(given, ())))
        return keys

    def _reached(self, edge: ActiveEdge, number: int, keys: Iterable[str]) -> frozenset[str]:
        """Where one input leads to."""
        active = edge.vertex
        assert active.map is not None
        digest, reached = active.map.digest, set[str]()
        for key, selector in _pairs(active, number, keys):
            reached |= self._store.targets(key, number, edge.index, digest, selector)
            reached.update(self._passing.get((key, number, edge.index, digest, selector), ()))
        return frozenset(reached)

    def _idle(self, downwards: Iterable[ActiveVertex], goals: Collection[ActiveVertex]) -> set[ActiveVertex]:
        idle: set[ActiveVertex] = set()
        for active in downwards:
            if active.status.outcome in RAN and active not in goals:
                uses = ((above, number) for above, numbers in active.consumers.items() for number in numbers)
                if not any(self.surely_takes(above, number, idle) for above, number in uses):
                    idle.add(active)
        return idle

    def surely_takes(self, above: ActiveVertex, number: int, idle: set[ActiveVertex]) -> bool:
        """Whether a vertex needs an input whatever comes of what is open: for its content, or to run."""
        sure = above not in self.open and above not in idle
        if number in above.content:
            return sure or not self._known_without_content(above, number)
        return sure and above.status.outcome in RAN

    def _known_without_content(self, above: ActiveVertex, number: int) -> bool:
        """Whether the keys of an input lead somewhere, so that its content is looked at later or never."""
        assert above.map is not None
        given, digest = above.inputs[number], above.map.digest
        selector = above.map.deps[number].selector or ""
        return any(
            self._store.targets(key, number, edge.index, digest, selector) & edge.found[number]
            for edge in above.edges.values()
            for key in given.keys
        )


def _pairs(active: ActiveVertex, number: int, keys: Iterable[str]) -> list[tuple[str, str]]:
    """What links start from at one input with these keys: each with its selector, and its content if that was looked at."""
    assert active.map is not None
    selector, content = active.map.deps[number].selector or "", active.content.get(number)
    pairs = [(key, selector) for key in keys]
    return pairs if content is None else [*pairs, (content, "")]
