"""Several caches as one: the local one first, then those that a build was told to import from.

The local one is read and written; the others are only read (solver/combinedcache.go). A key is known to the cache
that gave it, so a step is found where one cache alone leads from the graph's roots to it: links of two caches never
add up to a hit. What is loaded from another cache is kept in the local one (`adopt`).
"""

from __future__ import annotations

from collections.abc import Sequence

from bknb.protocols import CacheRecord, CacheSource, CacheStore
from bknb.solver.graph import ActiveEdge


class Import:
    """A cache source in use by a solver.

    Attributes:
        source: whom to ask.
        tried: it has been opened, or could not be.
        answers: it is open.
    """

    __slots__ = ("answers", "source", "tried")

    def __init__(self, source: CacheSource) -> None:
        self.source = source
        self.tried = False
        self.answers = False


class CombinedCache:
    """A `CacheStore` over the local one and imports, in the order in which they are asked."""

    def __init__(self, main: CacheStore, imports: Sequence[Import]) -> None:
        self._main = main
        self._imports = tuple(imports)

    def refresh(self) -> None:
        """See what other kernels have written to the local one."""
        self._main.refresh()

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        """Keys that a link of any of them leads to."""
        found = self._main.targets(key, input, output, digest, selector)
        for each in self._imports:
            if each.answers:
                found |= each.source.targets(key, input, output, digest, selector)
        return found

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Results of a key: the local ones, newest first, then those of each import."""
        found = self._main.records(key)
        for each in self._imports:
            if each.answers:
                found += each.source.records(key)
        return found

    def connect(
        self, sources: Sequence[tuple[str, str]], input: int, output: int, digest: str
    ) -> frozenset[str]:
        """All targets of several pairs; links are added in the local one only."""
        found = self._main.connect(sources, input, output, digest)
        for each in self._imports:
            if each.answers:
                found = found.union(
                    *(each.source.targets(key, input, output, digest, selector) for key, selector in sources)
                )
        return found

    def save(
        self,
        digest: str,
        output: int,
        deps: Sequence[Sequence[tuple[str, str]]],
        result: str,
        *,
        vertex: str = "",
    ) -> str:
        """Keep a result in the local one."""
        return self._main.save(digest, output, deps, result, vertex=vertex)

    def link(
        self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]], *, vertex: str = ""
    ) -> str:
        """Keep a key in the local one."""
        return self._main.link(digest, output, deps, vertex=vertex)

    def forget(self, result: str) -> None:
        """A result is gone, wherever it was."""
        self._main.forget(result)
        for each in self._imports:
            if each.answers:
                each.source.forget(result)

    def note(self, digest: str, plaintext: str) -> None:
        """Remember what a digest is taken of."""
        self._main.note(digest, plaintext)

    def plaintext(self, digest: str) -> str | None:
        """What a digest was taken of, if that is still known."""
        return self._main.plaintext(digest)


def adopt(edge: ActiveEdge, store: CacheStore, result: str) -> tuple[str, ...]:
    """Keep a result of another cache in the local one, with the keys of everything that it stands on.

    Returns:
        The keys of the result in the local cache.
    """
    kept: dict[ActiveEdge, tuple[str, ...]] = {}
    stack = [edge]
    while stack:
        current = stack[-1]
        missing = [
            given
            for given in current.vertex.inputs
            if given.keys and given not in kept and not _is_local(given)
        ]
        if missing and current not in kept:
            stack += missing
            continue
        stack.pop()
        if current not in kept:
            kept[current] = _keep(current, store, kept, result if current is edge else None)
    return kept[edge]


def _is_local(edge: ActiveEdge) -> bool:
    """The local cache leads to it already: its keys are the names that it has there."""
    return edge.done or not edge.vertex.inputs or bool(edge.records and not edge.records[0].remote)


def _local_keys(edge: ActiveEdge, kept: dict[ActiveEdge, tuple[str, ...]]) -> tuple[str, ...]:
    if edge in kept:
        return kept[edge]
    if edge.done:
        return edge.result_keys
    if not edge.vertex.inputs:
        return tuple(sorted(edge.keys))
    return (edge.records[0].key,) if edge.records and not edge.records[0].remote else ()


def _keep(
    edge: ActiveEdge, store: CacheStore, kept: dict[ActiveEdge, tuple[str, ...]], result: str | None
) -> tuple[str, ...]:
    active = edge.vertex
    assert active.map is not None
    deps: list[list[tuple[str, str]]] = []
    for number, (given, dep) in enumerate(zip(active.inputs, active.map.deps, strict=True)):
        deps.append([(key, dep.selector or "") for key in _local_keys(given, kept)])
        if number in active.content:
            deps[number].append((active.content[number], ""))
    digests = active.digests[-1:] if active.inputs else active.digests
    digest = active.vertex.digest
    if result is None:
        return tuple(store.link(each, edge.index, deps, vertex=digest) for each in digests)
    return tuple(store.save(each, edge.index, deps, result, vertex=digest) for each in digests)
