"""The vertices that are being built now.

An `ActiveVertex` is one vertex with its operation, shared by every job whose graph has it; an `ActiveEdge`
is one of its outputs with what is known of its keys. A vertex is told apart by its digest and by which of
the vertices at or below it ignore the cache: what stands on a step that was forced to run is not the same
as what stands on a cached one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from bknb.digest import Digest
from bknb.errors import DefinitionError, StepError
from bknb.llb.vertex import Edge, Vertex
from bknb.protocols import CacheMap, CacheRecord, CacheStore, Operation, Ref

if TYPE_CHECKING:
    from bknb.flight import Flight, Waits
    from bknb.solver.combined import Import
    from bknb.solver.job import Job, Status

Identity = str
"""Digest of the vertex, followed by `ActiveVertex.forced`."""


NOTHING: frozenset[str] = frozenset()
OPEN, FOUND = 1, 2
"""Bits of `ActiveEdge.state`: more may come of an input; something was found."""


class ActiveEdge(Struct, eq=False):
    """One output of an active vertex.

    Attributes:
        keys: cache keys that are known to lead to it.
        records: results of those keys, newest first.
        by_content: those of them that only the content of an input has led to.
        found: for each input, the keys of this edge that it leads to.
        state: for each input, whether anything was found, and whether more may come (`OPEN`, `FOUND`).
        counts: how many inputs are in each of the four states; in the first are those that lead to nothing for good.
        closed: nothing more can be said about its keys before it is realised.
        done: it is realised: `ref` is its result (None is scratch), `result_keys` the keys of that result.
        solving: the flight that realises it; `waits` is what that waits for.
        wanted: such a flight has been under way.
    """

    vertex: ActiveVertex
    index: int
    keys: frozenset[str] = NOTHING
    records: tuple[CacheRecord, ...] = ()
    by_content: frozenset[str] = NOTHING
    found: list[frozenset[str]] = []
    state: list[int] = []
    counts: list[int] = []
    closed: bool = False
    done: bool = False
    ref: Ref | None = None
    result_keys: tuple[str, ...] = ()
    solving: Flight[None] | None = None
    waits: Waits | None = None
    wanted: bool = False

    def __post_init__(self) -> None:
        if count := len(self.vertex.inputs):
            self.found, self.state, self.counts = [NOTHING] * count, [OPEN] * count, [0, count, 0, 0]

    def finish(self, ref: Ref | None, keys: tuple[str, ...]) -> None:
        """It is realised; whoever only waited for that is told."""
        self.ref, self.result_keys = ref, keys
        self.done = self.closed = True
        self.solving = self.waits = None
        for above, reading in self.vertex.consumers.items():
            for number in reading:
                if above.inputs[number] is self and above.is_plain(number):
                    above.realised(number)


class ActiveVertex(Struct, eq=False):
    """One vertex that some job wants.

    Attributes:
        identity: what it is told apart by.
        forced: digest of the set of vertices at or below it that ignore the cache; "" for none.
        inputs: what it reads.
        consumers: active vertices that read it, and the numbers of the inputs that do.
        rank: longer than the way to any input; a topological order.
        ignore_cache: it runs even if the cache has it.
        cache: who is asked for it; `imports` are those of its jobs' caches that are part of that.
        map: its cache map; None for a source that has not been asked.
        digests: of all cache maps asked so far; more than one for a source only.
        mapped: no further cache map is to come; `maps` gives a source's next one.
        content: the key of the content of each input, by number, once it is known.
        ready: the numbers of the inputs that are realised and prepared.
        jobs: who wants it; it lives as long as there is one.
        below: vertices that its nested builds or its twin made it wait for.
        outputs: what it made, one for each output, when it has run.
        broken: errors that hold Refs, to be released with it.
    """

    vertex: Vertex
    identity: Identity
    forced: str
    inputs: tuple[ActiveEdge, ...]
    operation: Operation
    ignore_cache: bool
    status: Status
    cache: CacheStore
    imports: tuple[Import, ...] = ()
    consumers: dict[ActiveVertex, list[int]] = {}
    rank: int = 1
    map: CacheMap | None = None
    digests: tuple[Digest, ...] = ()
    mapped: bool = False
    maps: AsyncIterator[CacheMap] | None = None
    content: dict[int, str] = {}
    ready: dict[int, None] = {}
    edges: dict[int, ActiveEdge] = {}
    jobs: dict[Job, None] = {}
    below: tuple[ActiveVertex, ...] = ()
    broken: tuple[StepError, ...] = ()
    outputs: tuple[Ref | None, ...] | None = None
    mapping: Flight[None] | None = None
    running: Flight[None] | None = None
    realising: dict[int, Flight[None]] = {}

    def __post_init__(self) -> None:
        if self.inputs:
            self.rank = 1 + max([edge.vertex.rank for edge in self.inputs])
        if (cache_map := self.operation.cache_map) is not None:
            self.set_map(cache_map)
            self.mapped = True

    def set_map(self, cache_map: CacheMap) -> None:
        """Take a cache map; a source may be given several.

        Raises:
            DefinitionError: it does not fit the vertex.
        """
        if len(cache_map.deps) != len(self.inputs):
            raise DefinitionError(
                f"{self.vertex!r} has {len(self.inputs)} inputs and a cache map for {len(cache_map.deps)}"
            )
        self.map = cache_map
        self.digests += (cache_map.digest,)

    def is_plain(self, number: int) -> bool:
        """Nothing has to be done with an input but to realise it."""
        assert self.map is not None
        dep = self.map.deps[number]
        return dep.preprocess is None and dep.content is None

    def realised(self, number: int) -> None:
        """An input is there, and prepared."""
        self.ready[number] = None

    @property
    def unready(self) -> int:
        """How many inputs are not realised and prepared."""
        return len(self.inputs) - len(self.ready)

    def forget_maps(self) -> None:
        """A source failed, or was stopped, before it had a key that hit: it is asked anew next time."""
        self.map = self.maps = self.mapping = None
        self.digests = ()

    def edge(self, index: int) -> ActiveEdge:
        """One of its outputs."""
        found = self.edges.get(index)
        if found is None:
            found = self.edges[index] = ActiveEdge(self, index)
        return found

    def take_refs(self) -> list[Ref]:
        """Every Ref that it holds, to be released by the caller."""
        refs = [ref for ref in self.outputs or () if ref is not None]
        for edge in self.edges.values():
            if edge.done:
                if edge.ref is not None and edge.ref not in refs:
                    refs.append(edge.ref)
                edge.ref, edge.done = None, False
        for error in self.broken:
            refs += [ref for ref in (*error.inputs, *error.outputs) if ref is not None]
        self.outputs, self.broken = None, ()
        self.edges.clear()  # they name each other: without this the collector would have to find them
        return refs

    def __repr__(self) -> str:
        return f"<Active {self.vertex!r}>"


def topological(edges: Iterable[Edge]) -> Iterator[Vertex]:
    """Every vertex below some edges once, inputs first. Nothing recurses: a chain may be of any length."""
    seen: set[Digest] = set()
    stack: list[tuple[Vertex, bool]] = [(edge.vertex, False) for edge in edges]
    stack.reverse()
    while stack:
        vertex, finished = stack.pop()
        if finished:
            yield vertex
        elif vertex.digest not in seen:
            seen.add(vertex.digest)
            if vertex.inputs:
                stack.append((vertex, True))
                stack += [(edge.vertex, False) for edge in vertex.inputs[::-1] if edge.vertex.digest not in seen]
            else:
                yield vertex


class ActiveGraph:
    """All active vertices of one solver.

    Args:
        resolve: gives a vertex its operation.
        status: makes what is shown of a vertex that nothing is known of yet.
        cache: the local one.
    """

    def __init__(
        self, resolve: Callable[[Vertex], Operation], status: Callable[[], Status], cache: CacheStore
    ) -> None:
        self._resolve = resolve
        self._status = status
        self._cache = cache
        self._active: dict[Identity, ActiveVertex] = {}
        self._forced: dict[Digest, ActiveVertex] = {}

    def load(
        self, edges: Iterable[Edge], ignores: Callable[[Vertex], bool]
    ) -> dict[Digest, tuple[Vertex, ActiveVertex]]:
        """The vertices below some edges with their active ones, inputs first; made where there were none.

        Raises:
            DefinitionError: an op that the worker does not know.
        """
        pairs: dict[Digest, tuple[Vertex, ActiveVertex]] = {}
        try:
            for vertex in topological(edges):
                pairs[vertex.digest] = (vertex, self._load(vertex, pairs, ignores(vertex)))
        except BaseException:
            for _, active in reversed(list(pairs.values())):
                if not active.jobs:
                    self.drop(active)
            raise
        return pairs

    def _load(
        self, vertex: Vertex, pairs: Mapping[Digest, tuple[Vertex, ActiveVertex]], ignore: bool
    ) -> ActiveVertex:
        inputs = [pairs[edge.vertex.digest][1].edge(edge.index) for edge in vertex.inputs] if vertex.inputs else ()
        forced = _forced(vertex, inputs, ignore) if ignore or self._forced else ""
        identity = vertex.digest + forced if forced else vertex.digest
        active = self._active.get(identity)
        if active is None and not forced:
            # Somebody has this step run anew at the moment: as good as what is cached, and never older.
            active = self._forced.get(vertex.digest)
        if active is None:
            operation = self._resolve(vertex)
            active = ActiveVertex(
                vertex, identity, forced, tuple(inputs), operation, ignore, self._status(), self._cache
            )
            self._active[identity] = active
            for number, edge in enumerate(inputs):
                edge.vertex.consumers.setdefault(active, []).append(number)
            if forced:
                self._forced[vertex.digest] = active
        return active

    def drop(self, active: ActiveVertex) -> None:
        """Nobody wants it any more."""
        self._active.pop(active.identity, None)
        if active.forced and self._forced.get(active.vertex.digest) is active:
            del self._forced[active.vertex.digest]
        for edge in active.inputs:
            edge.vertex.consumers.pop(active, None)

    def importing(self, source: Import) -> list[ActiveVertex]:
        """Those that are looked for in an imported cache, inputs first."""
        found = [active for active in self._active.values() if source in active.imports]
        return sorted(found, key=lambda active: active.rank)

    def __len__(self) -> int:
        return len(self._active)


def _forced(vertex: Vertex, inputs: Iterable[ActiveEdge], ignore: bool) -> str:
    """`ActiveVertex.forced` of a vertex on top of these."""
    below = {edge.vertex.forced for edge in inputs if edge.vertex.forced}
    if ignore:
        below.add(vertex.digest)
    return Digest.of_text("\0".join(sorted(below))) if below else ""


def reaches(start: ActiveVertex, goal: ActiveVertex) -> bool:
    """Whether `start` waits, or may come to wait, for `goal`: by its inputs, a nested build or a twin."""
    seen = {start}
    stack = [start]
    while stack:
        active = stack.pop()
        if active is goal:
            return True
        for other in (*(edge.vertex for edge in active.inputs), *active.below):
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return False
