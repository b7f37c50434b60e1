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
from collections.abc import Callable, Iterable, Sequence

from bknb.keys.cachekey import root_key
from bknb.protocols import CacheMap, CacheRecord
from bknb.solver.graph import FOUND, NOTHING, OPEN, ActiveEdge, ActiveVertex

Wanted = tuple[ActiveVertex, int]
"""An input, by number, whose content is wanted; number -1 is a source whose cache map is wanted."""


def sweep(vertices: Iterable[ActiveVertex]) -> list[ActiveEdge]:
    """Work out every edge of a graph given inputs first; returns those that were found in the cache."""
    hits = []
    for active in vertices:
        for edge in active.edges.values():
            known = edge.records
            update(edge)
            if edge.records and not known:
                hits.append(edge)
    return hits


def propagate(
    start: ActiveVertex, hit: Callable[[ActiveEdge], None], numbers: Sequence[int] | None = None
) -> list[ActiveEdge]:
    """Work out a vertex again, and everything above it for which that changes something.

    Args:
        start: of which something became known.
        hit: told of each edge that was found.
        numbers: the inputs of `start` that it became known of; None for all.

    Returns:
        The edges that were found, inputs first.
    """
    hits: list[ActiveEdge] = []
    queue = [(start.rank, id(start), start)]
    changes: dict[ActiveVertex, list[int] | None] = {start: None if numbers is None else list(numbers)}
    while queue:
        active = heapq.heappop(queue)[2]
        news = changes.pop(active)
        changed = False
        for edge in active.edges.values():
            known = edge.records
            changed = update(edge, news) or edge.done or changed
            if edge.records and not known:
                hit(edge)
                hits.append(edge)
        if changed:
            for above, reading in active.consumers.items():
                if above not in changes:
                    changes[above] = []
                    heapq.heappush(queue, (above.rank, id(above), above))
                pending = changes[above]
                if pending is not None:
                    pending += reading
    return hits


def update(edge: ActiveEdge, numbers: Sequence[int] | None = None) -> bool:
    """Work out the keys of one edge from those of its inputs; tells whether anything is new.

    Args:
        edge: which.
        numbers: the inputs of which something may have become known; None for all.
    """
    active, cache_map = edge.vertex, edge.vertex.map
    if edge.done or cache_map is None:
        return False
    if active.ignore_cache:
        changed, edge.closed = not edge.closed, True
        return changed
    if not active.inputs:
        index = edge.index
        keys = frozenset([root_key(digest, index) for digest in active.digests])
        closed = active.mapped
    else:
        for number in range(len(active.inputs)) if numbers is None else numbers:
            _look(edge, number, cache_map)
        keys, closed = _agreed(edge)
    records = _records(active, keys) if keys else ()
    if records:
        closed = True
    changed = edge.closed != closed or edge.keys != keys or bool(edge.records) != bool(records)
    edge.keys, edge.records, edge.closed = keys, records, closed
    return changed


def _look(edge: ActiveEdge, number: int, cache_map: CacheMap) -> None:
    """What one input leads to, and whether more may come of it."""
    active, index, digest = edge.vertex, edge.index, cache_map.digest
    dep, given, targets = cache_map.deps[number], active.inputs[number], active.cache.targets
    content, selector = active.content.get(number), dep.selector or ""
    found = NOTHING
    for key in given.keys:
        more = targets(key, number, index, digest, selector)
        found = found | more if found else more
    if content is not None:
        found |= targets(content, number, index, digest, "")
    state = FOUND if found else 0
    if not given.closed or (content is None and dep.content is not None):
        state |= OPEN
    edge.found[number] = found
    edge.counts[edge.state[number]] -= 1
    edge.counts[state] += 1
    edge.state[number] = state


def _agreed(edge: ActiveEdge) -> tuple[frozenset[str], bool]:
    """The keys that all inputs lead to, and whether that is the last word."""
    dead, unknown, _, hopeful = edge.counts
    if dead or unknown:
        return NOTHING, dead > 0
    first = edge.found[0]
    return (first.intersection(*edge.found[1:]) if len(edge.found) > 1 else first), not hopeful


def _records(active: ActiveVertex, keys: frozenset[str]) -> tuple[CacheRecord, ...]:
    """Results of several keys: local ones first, then the newest, then the first cache that was named."""
    store = active.cache
    if len(keys) == 1:
        (key,) = keys
        return store.records(key)
    every = [record for key in keys for record in store.records(key)]
    named = [each.source.name for each in active.imports]
    return tuple(
        sorted(
            every,
            key=lambda record: (
                bool(record.remote), -record.created, named.index(record.remote) if record.remote else 0, record.result,
            ),
        )
    )  # fmt: skip


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
        chosen = [number for number, state in enumerate(current.state) if state == OPEN]
        if not chosen:
            chosen = [number for number, state in enumerate(current.state) if state & OPEN]
        for number in chosen:
            given = active.inputs[number]
            if given.closed:
                wanted[active, number] = None
            elif given not in seen:
                seen.add(given)
                stack.append(given)
    return list(wanted)
