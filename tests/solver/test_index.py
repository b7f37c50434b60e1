"""Twins: who runs what a key names."""

from __future__ import annotations

from bknb.cache.store import SqliteCacheStore
from bknb.solver.graph import ActiveGraph
from bknb.solver.index import RunningIndex
from bknb.solver.job import Status
from tests.fakes import FakeWorker, World, parse

DIAMOND = "s = source\na = run s\nb = run s\ntop = run a b a\n"


def test_running_index(store: SqliteCacheStore) -> None:
    """A twin is one that every input leads to."""
    graph = ActiveGraph(FakeWorker(World()).resolve, Status, store)
    found = graph.load([parse(DIAMOND)["top"]], lambda vertex: False)
    one, two = [active for _, active in found.values()][:2]
    index = RunningIndex()
    index.add(one, "d", [[("k1", ""), ("c", "")], [("k2", "")]])
    assert index.find("d", [[("other", ""), ("c", "")], [("k2", "")]]) == [one]
    assert index.find("d", [[("c", "")], [("k3", "")]]) == []
    assert index.find("x", [[("c", "")], [("k2", "")]]) == []
    index.add(two, "source", [])
    assert index.find("source", []) == [two]
    index.remove(one)
    assert index.find("d", [[("c", "")], [("k2", "")]]) == []
