"""The active graph: order, sharing, who may wait for whom."""

from __future__ import annotations

import asyncio

from bknb.cache.store import SqliteCacheStore
from bknb.solver.graph import ActiveGraph, reaches, topological
from bknb.solver.job import Slots, Status
from tests.fakes import FakeWorker, World, parse

DIAMOND = "s = source\na = run s\nb = run s\ntop = run a b a\n"


def test_topological_order() -> None:
    """Inputs come before what reads them, each vertex once, however often it is read."""
    edges = parse(DIAMOND)
    found = [vertex.meta.name for vertex in topological([edges["top"], edges["a"]])]
    assert found == ["s", "a", "b", "top"]


def test_vertices_are_shared_by_digest_and_by_what_ignores_the_cache(store: SqliteCacheStore) -> None:
    """Two graphs share what is the same in both; what stands on a forced vertex is another."""
    graph = ActiveGraph(FakeWorker(World()).resolve, Status, store)
    edges = parse(DIAMOND)
    one = graph.load([edges["top"]], lambda vertex: False)
    again = graph.load([edges["b"]], lambda vertex: False)
    forced = graph.load([edges["top"]], lambda vertex: vertex.meta.name == "a")
    same = {name: edges[name].vertex.digest for name in ("s", "a", "b", "top")}
    assert again[same["b"]][1] is one[same["b"]][1]
    shared = {name: forced[digest][1] is one[digest][1] for name, digest in same.items()}
    assert shared == {"s": True, "a": False, "b": True, "top": False}
    for _, active in [*forced.values(), *one.values()]:
        graph.drop(active)
    assert len(graph) == 0 and not one[same["s"]][1].consumers


def test_who_waits_for_whom(store: SqliteCacheStore) -> None:
    """A vertex reaches its inputs, and what its nested build waits for."""
    graph = ActiveGraph(FakeWorker(World()).resolve, Status, store)
    edges = parse(DIAMOND + "other = source\n")
    found = graph.load([edges["top"], edges["other"]], lambda vertex: False)
    top, s, other = (found[edges[name].vertex.digest][1] for name in ("top", "s", "other"))
    assert reaches(top, s) and not reaches(s, top) and not reaches(top, other)
    s.below += (other,)
    assert reaches(top, other)


async def test_slots() -> None:
    """A limiter says when it is full, and lets no more in; without a limit it never is."""
    slots, entered = Slots(1), []

    async def work(name: str) -> None:
        async with slots.slot():
            entered.append(name)
            assert slots.full
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(work(name))
    assert entered == ["a", "b"] and not slots.full
    async with Slots().slot():
        assert not Slots().full
