"""What a build would do, foretold and then done: over fakes of a worker, and the real solver and store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from bknb.analysis.predict import Foreseen, Prediction, predict
from bknb.analysis.shadow import ShadowStore
from bknb.cache.store import SqliteCacheStore
from bknb.digest import Digest
from bknb.keys import CacheMapSpec, ContentSelector, DepSpec
from bknb.llb.marshal import walk
from bknb.llb.vertex import Vertex
from bknb.platforms import Platform
from bknb.protocols import CacheMap, Job
from tests.fakes import FakeSession, FakeWorker, World, decode, parse, read
from tests.solver.conftest import Bench

PLATFORM = Platform("linux", "amd64")


@dataclass
class FakeFacts:
    """What a `FakeWorker` would find; counts what it is asked."""

    world: World
    asked: Counter[str]

    def keys(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        self.asked["keys"] += 1
        return FakeWorker(self.world).resolve(vertex).cache_maps(job)

    async def content(
        self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
    ) -> Digest | None:
        self.asked["content"] += 1
        kind, name, _ = decode(vertex)
        if result:
            value = self.world.results[result]
        elif kind in ("source", "local", "image"):
            value = self.world.files.get(name, name)
        else:
            return None
        return Digest.of_text(read(value, selectors[0].path if selectors else ""))

    async def present(self, result: str) -> bool:
        self.asked["present"] += 1
        return result in self.world.results


def map_of(vertex: Vertex) -> CacheMapSpec:
    """The cache map that a `FakeWorker` gives a vertex, as data."""
    operation = FakeWorker(World()).resolve(vertex)
    cache_map = operation.cache_map
    assert cache_map is not None
    specs = []
    for dep, (_, part) in zip(cache_map.deps, operation.marks, strict=True):
        selectors = (ContentSelector(part),) if part else ()
        specs.append(DepSpec(dep.selector, selectors if dep.content is not None else None))
    return CacheMapSpec(cache_map.digest, "", tuple(specs))


async def foresee(
    bench: Bench, text: str, store: ShadowStore | None = None
) -> tuple[dict[str, Foreseen], Prediction]:
    """What building a graph would do, by the names of its vertices."""
    session = f"s{bench.builds + 1}"  # as the build after it
    edges = parse(text, session)
    top = list(edges.values())[-1]
    facts = FakeFacts(bench.world, Counter())
    shadow = store or ShadowStore(bench.store)
    found = await predict(
        [top], shadow, facts, platform=PLATFORM, session=FakeSession(session), map_of=map_of
    )
    names = {vertex.digest: decode(vertex)[1] for vertex in walk(top.vertex)}
    return {names[digest]: verdict.outcome for digest, verdict in found.verdicts.items()}, found


def test_a_chain_over_a_context(store: SqliteCacheStore) -> None:
    """A first build runs all; the same again is cached; an edit runs what reads it, and what reads that is open."""

    async def run() -> None:
        bench = Bench(store)
        graph = (
            "base = source\nctx = local\nbuilt = run base ctx*\ncopied = run base built*\ntop = run copied\n"
        )
        found, told = await foresee(bench, graph)
        assert set(found.values()) == {Foreseen.RUN} and told.unknown == 0
        await bench.build(graph)
        found, told = await foresee(bench, graph)
        assert (found["built"], found["top"], told.unknown) == (Foreseen.CACHED, Foreseen.CACHED, 0)
        bench.world.files["ctx"] = "other"
        found, told = await foresee(bench, graph)
        assert found["built"] is Foreseen.RUN
        assert found["copied"] is found["top"] is Foreseen.UNKNOWN
        assert told.unknown == 2 / 5

    asyncio.run(run())
