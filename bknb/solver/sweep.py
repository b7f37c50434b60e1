"""What the cache says, without waiting for anything.

`update` works out one edge from the keys of its inputs; `sweep` does so for a whole graph, inputs first,
and `propagate` for what stands on vertices of which something became known. `frontier` names what has to be
looked at next where an edge is still open. The rules are those of BuildKit's solver/edge.go, told as a
function of state instead of by messages:

- A key of an edge is what the links of *all* of its inputs agree on.
- Content is looked at only where it can matter: first for inputs that nothing in the cache stands on; for the
  others only when the definitions agree on nothing.
- As soon as one input rules a match out, the edge is closed: what it needs can start to run, whatever the
  other inputs are (a step that needs no context starts before the context has been looked at).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from bknb.keys.cachekey import root_key
from bknb.protocols import CacheStore
from bknb.solver.graph import ActiveEdge, ActiveVertex

Wanted = tuple[ActiveVertex, int]
"""An input, by number, whose content is wanted; number -1 is a source whose cache map is wanted."""


def sweep(vertices: Iterable[ActiveVertex], store: CacheStore) -> list[ActiveEdge]:
    """Work out every edge of a graph given inputs first; returns those that were found in the cache."""
    hits = []
    for active in vertices:
        for edge in active.edges.values():
            known = bool(edge.records)
            update(edge, store)
            if edge.records and not known:
                hits.append(edge)
    return hits


def propagate(start: Iterable[ActiveVertex], store: CacheStore, hit: Callable[[ActiveEdge], None]) -> None:
    """Work out some vertices again, and everything above them for which that changes something."""
    queue = [(active.rank, id(active), active) for active in start]
    heapq.heapify(queue)
    queued = {active for _, _, active in queue}
    while queue:
        active = heapq.heappop(queue)[2]
        queued.discard(active)
        changed = False
        for edge in active.edges.values():
            known = bool(edge.records)
            changed = update(edge, store) or edge.done or changed
            if edge.records and not known:
                hit(edge)
        if changed:
            for above in active.consumers:
                if above not in queued:
                    queued.add(above)
                    heapq.heappush(queue, (above.rank, id(above), above))


def update(edge: ActiveEdge, store: CacheStore) -> bool:
    """Work out the keys of one edge from those of its inputs; tells whether anything is new."""
    active = edge.vertex
    if edge.done or active.map is None:
        return False
    if active.ignore_cache:
        changed, edge.closed = not edge.closed, True
        return changed
    before = (edge.keys, edge.closed, bool(edge.records))
    if not active.inputs:
        edge.keys = frozenset(root_key(digest, edge.index) for digest in active.digests)
        closed = active.mapped
    else:
        closed = _match(edge, store)
    edge.records = _records(edge.keys, store)
    edge.closed = closed or bool(edge.records)
    return (edge.keys, edge.closed, bool(edge.records)) != before


def _match(edge: ActiveEdge, store: CacheStore) -> bool:
    """Set the keys that all inputs agree on; tells whether that is the last word before running."""
    active, index = edge.vertex, edge.index
    assert active.map is not None
    digest = active.map.digest
    common: frozenset[str] | None = None
    dead, settled = False, True
    for number, (given, dep) in enumerate(zip(active.inputs, active.map.deps, strict=True)):
        selector = dep.selector or ""
        found: frozenset[str] = frozenset()
        for key in given.keys:
            found |= store.targets(key, number, index, digest, selector)
        content = active.content[number]
        if content is not None:
            found |= store.targets(content, number, index, digest, "")
        edge.matched[number] = bool(found)
        open_ = not given.closed or (dep.content is not None and content is None)
        dead = dead or not (found or open_)
        settled = settled and not open_
        common = found if common is None else common & found
    edge.keys = common or frozenset()
    return dead or settled


def _records(keys: frozenset[str], store: CacheStore) -> tuple:  # type: ignore[type-arg]
    if len(keys) == 1:
        return store.records(next(iter(keys)))
    every = [record for key in keys for record in store.records(key)]
    return tuple(sorted(every, key=lambda record: (bool(record.remote), -record.created, record.result)))


def frontier(edge: ActiveEdge) -> list[Wanted]:
    """What has to become known next for an open edge, and nothing that may turn out not to matter."""
    wanted: dict[Wanted, None] = {}
    seen = {edge}
    stack = [edge]
    while stack:
        current = stack.pop()
        active = current.vertex
        if current.closed:
            continue
        if not active.inputs:
            wanted[active, -1] = None
            continue
        assert active.map is not None
        first = [number for number, matched in enumerate(current.matched) if not matched]
        chosen = [number for number in first if _is_open(active, number)]
        if not chosen:
            chosen = [number for number in range(len(active.inputs)) if _is_open(active, number)]
        for number in chosen:
            given = active.inputs[number]
            if given.closed:
                wanted[active, number] = None
            elif given not in seen:
                seen.add(given)
                stack.append(given)
    return list(wanted)


def _is_open(active: ActiveVertex, number: int) -> bool:
    assert active.map is not None
    if not active.inputs[number].closed:
        return True
    return active.map.deps[number].content is not None and active.content[number] is None
