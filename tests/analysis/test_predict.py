"""What a build would do, foretold and then done: over fakes of a worker, and the real solver and store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

import pytest

from bknb.analysis.predict import Foreseen, Prediction, predict
from bknb.analysis.shadow import ShadowStore
from bknb.cache.store import SqliteCacheStore
from bknb.digest import Digest
from bknb.errors import PathError
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

    def missing(self, results: Collection[str]) -> Collection[str]:
        self.asked["present"] += 1
        return [result for result in results if result not in self.world.results]


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


def test_what_no_content_decides_is_never_open(store: SqliteCacheStore) -> None:
    """Without a step that is keyed by the content of a step that would run, nothing is left open."""

    async def run() -> None:
        bench = Bench(store)
        graph = "ctx = local\na = run ctx*\nb = run a\ntop = run b\n"
        await bench.build(graph)
        bench.world.files["ctx"] = "other"
        found, told = await foresee(bench, graph)
        assert set(found.values()) == {Foreseen.RUN} and told.unknown == 0

    asyncio.run(run())


def test_a_step_that_the_cache_never_saw_runs(store: SqliteCacheStore) -> None:
    """Content that nobody knows yet cannot be that of an earlier build if no build ever had the step."""

    async def run() -> None:
        bench = Bench(store)
        await bench.build("ctx = local\nmade = run ctx*\n")
        bench.world.files["ctx"] = "other"
        found, _ = await foresee(bench, "ctx = local\nmade = run ctx*\ntop = run made*\n")
        assert found["made"] is found["top"] is Foreseen.RUN

    asyncio.run(run())


def test_no_more_is_asked_than_a_build_would(store: SqliteCacheStore) -> None:
    """Where the definition decides, no file is hashed; where the top is found, what is below is not asked for."""

    async def run() -> None:
        bench = Bench(store)
        graph = "base = source\nctx = local\nlow = run base\ntop = run low\nside = run ctx*\n"
        await bench.build(graph, "top")
        edges = parse(graph, "s9")
        facts = FakeFacts(bench.world, Counter())
        found = await predict(
            [edges["top"]], ShadowStore(bench.store), facts,
            platform=PLATFORM, session=FakeSession("s9"), map_of=map_of,
        )  # fmt: skip
        assert found.verdicts[edges["top"].vertex.digest].outcome is Foreseen.CACHED
        assert facts.asked == {"keys": 1, "present": 1}

    asyncio.run(run())


def test_a_result_that_is_gone_is_not_promised(store: SqliteCacheStore) -> None:
    """The cache knows of a result whose files are gone: the step would run, and the store still knows afterwards."""

    async def run() -> None:
        bench = Bench(store)
        graph = "base = source\ntop = run base\n"
        await bench.build(graph)
        bench.world.results.clear()
        found, _ = await foresee(bench, graph)
        assert found["top"] is Foreseen.RUN
        assert store.results(), "a plan forgets nothing"

    asyncio.run(run())


def test_a_step_that_cannot_begin_fails(store: SqliteCacheStore) -> None:
    """A file that is not there is known before anything runs."""

    class Missing(FakeFacts):
        async def content(
            self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
        ) -> Digest | None:
            raise PathError("src: not found")

    async def run() -> None:
        bench = Bench(store)
        edges = parse("ctx = local\ntop = run ctx*\n")
        found = await predict(
            [edges["top"]], ShadowStore(store), Missing(bench.world, Counter()),
            platform=PLATFORM, session=FakeSession(), map_of=map_of,
        )  # fmt: skip
        verdict = found.verdicts[edges["top"].vertex.digest]
        assert (verdict.outcome, verdict.error) == (Foreseen.FAIL, "src: not found")
        assert found.error is not None and "src: not found" in str(found.error)

    asyncio.run(run())


def test_a_store_of_its_own_remembers(store: SqliteCacheStore) -> None:
    """Builds that are foretold in a row on one store find what the earlier ones would have made."""

    async def run() -> None:
        bench = Bench(store)
        shadow = ShadowStore()
        graph = "ctx = local\nmade = run ctx*\ntop = run made*\n"
        for content, expected in (
            ("one", (Foreseen.RUN, Foreseen.RUN)),
            ("one", (Foreseen.CACHED, Foreseen.CACHED)),
            ("two", (Foreseen.RUN, Foreseen.UNKNOWN)),
            ("one", (Foreseen.CACHED, Foreseen.CACHED)),
        ):
            bench.world.files["ctx"] = content
            bench.builds += 1
            found, _ = await foresee(bench, graph, shadow)
            assert (found["made"], found["top"]) == expected

    asyncio.run(run())


def test_two_steps_that_are_one_run_once(store: SqliteCacheStore) -> None:
    """Of two steps with one key one would run; the other shares it."""

    async def run() -> None:
        found, told = await foresee(
            Bench(store), "base = source\na = same base\nb = same base\ntop = run a b\n"
        )
        assert Counter([found["a"], found["b"]]) == {Foreseen.RUN: 1, Foreseen.CACHED: 1}
        assert "merged" in {verdict.by for verdict in told.verdicts.values()}

    asyncio.run(run())


def lose(bench: Bench, *names: str) -> None:
    """Let results of some steps be gone."""
    for result, value in list(bench.world.results.items()):
        if value.startswith(tuple(f"{name}(" for name in names)):
            del bench.world.results[result]


def test_what_is_found_while_it_is_waited_for(store: SqliteCacheStore) -> None:
    """The top waits for `a` and `b`, as nothing leads to it until `a` has run; the content of `m` leads to `b`.

    Whether `b`, whose result is gone, begins before the top is found is a matter of time; and so is what becomes of
    `x`, which is needed only if `b` runs. Where the result is there, nothing is in doubt.
    """

    async def run() -> None:
        bench = Bench(store)
        graph = "s = source\nm = run! s\na = run m s*\nx = run s\nb = run m* x\nc = run m*\ntop = run b c a\n"
        await bench.build(graph)
        found, told = await foresee(bench, graph)
        assert (found["b"], found["c"], found["x"], told.unknown) == (*[Foreseen.CACHED] * 3, 0)
        lose(bench, "b", "x")
        found, _ = await foresee(bench, graph)
        assert found["b"] is found["x"] is Foreseen.UNKNOWN
        del found["b"], found["x"]
        await bench.build(graph)
        happened = bench.events.outcomes()
        assert {name for name, outcome in found.items() if outcome is Foreseen.RUN} == {"m", "a"}
        assert {name for name in found if happened[name] == "ran"} == {"m", "a"}
        assert found["s"] is found["c"] is found["top"] is Foreseen.CACHED

    asyncio.run(run())


def test_a_loss_that_shows_too_late(store: SqliteCacheStore) -> None:
    """As above, with no more than is needed: `b` ends as skipped, stopped or run; the others are certain.

    Where the cache has noticed before that the result is gone, it has the key still, and `b` is as likely to be skipped.
    """

    async def run() -> None:
        bench = Bench(store)
        graph = "s = source\nm = run! s\na = run m s*\nb = run m*\ntop = run b a\n"
        await bench.build(graph)
        lose(bench, "b")
        for _ in range(2):
            found, told = await foresee(bench, graph)
            assert (found["b"], told.unknown) == (Foreseen.UNKNOWN, 1 / 5)
            assert (found["a"], found["top"]) == (Foreseen.RUN, Foreseen.CACHED)
            for result in store.results():
                if result not in bench.world.results:
                    store.forget(result)

    asyncio.run(run())


def test_a_step_is_left_before_it_begins(store: SqliteCacheStore) -> None:
    """The top is found as soon as `l` has run, and `b`, whose result is gone, waits for that too: it never begins."""

    async def run() -> None:
        bench = Bench(store)
        graph = "s = source\nm = run! s\nl = run m\na = run l\nn = run l\nb = run n\ntop = run a b\n"
        await bench.build(graph)
        lose(bench, "b")
        found, told = await foresee(bench, graph)
        assert (found["b"], found["top"], told.unknown) == (Foreseen.UNNEEDED, Foreseen.CACHED, 0)
        await bench.build(graph)
        happened = bench.events.outcomes()
        assert (happened["b"], happened["top"]) == ("skipped", "definition")
        assert bench.world.ran["b"] == 1

    asyncio.run(run())


@pytest.mark.parametrize("held_up", ["k", "l"])
def test_a_step_may_begin_before_it_is_left(store: SqliteCacheStore, held_up: str) -> None:
    """The top is found when `k` and `l` have run: `b`, whose result is gone and which needs `l` only, may be sooner."""

    async def run() -> None:
        bench = Bench(store)
        graph = "s = source\nm = run! s\nk = run m\nl = run m\na = run k\nb = run l\ntop = run a b\n"
        await bench.build(graph)
        lose(bench, "b")
        found, told = await foresee(bench, graph)
        assert (found["b"], found["top"], told.unknown) == (Foreseen.RUN, Foreseen.CACHED, 0)
        bench.world.reset()
        bench.world.gates[held_up] = asyncio.Event()
        building = asyncio.create_task(bench.build(graph))
        for name in ("l", "k", *(["b"] if held_up == "k" else [])):
            await bench.world.reached(name)
        while bench.world.running > 1:
            await asyncio.sleep(0)
        bench.world.gates[held_up].set()
        await building
        happened = bench.events.outcomes()
        assert happened["b"] in (("ran", "cancelled") if held_up == "k" else ("skipped",))
        assert happened["top"] == "definition"

    asyncio.run(run())


def test_what_a_step_that_is_left_would_need(store: SqliteCacheStore) -> None:
    """As `b` may begin before it is left, so may `x`, which it needs and whose result is gone; or neither of them."""

    async def run() -> None:
        bench = Bench(store)
        text = "s = source\nm = run! s\nk = run m\nl = run m\na = run k\nx = run s\nb = run x l\ntop = run a b\n"
        await bench.build(text)
        lose(bench, "b", "x")
        found, told = await foresee(bench, text)
        assert found["b"] is found["x"] is Foreseen.RUN and told.unknown == 0
        bench.world.gates["x"] = asyncio.Event()
        await bench.build(text)
        happened = bench.events.outcomes()
        assert (happened["b"], happened["x"], happened["top"]) == ("skipped", "cancelled", "definition")

    asyncio.run(run())


def test_two_steps_that_may_be_one(store: SqliteCacheStore) -> None:
    """Two steps with one op read a context as a whole, which no cache knows, and by content what is yet to be made."""

    async def run() -> None:
        bench = Bench(store)
        graph = "ctx = local\nm = run ctx\na = same m* ctx\nb = same m/part* ctx\nc = run m* ctx\ntop = run a b c\n"
        found, told = await foresee(bench, graph)
        assert found["a"] is found["b"] is Foreseen.UNKNOWN and told.unknown == 2 / 6
        await bench.build(graph)
        happened = bench.events.outcomes()
        assert Counter([happened["a"], happened["b"]]) == {"ran": 1, "merged": 1}

    asyncio.run(run())


def test_one_that_ignores_the_cache_follows_nobody(store: SqliteCacheStore) -> None:
    """Of two steps that are one, both would run if the one that ignores the cache were second; which is, nobody knows."""

    async def run() -> None:
        found, told = await foresee(
            Bench(store), "base = source\na = same! base\nb = same base\ntop = run a b\n"
        )
        assert found["a"] is found["b"] is Foreseen.RUN and told.unknown == 0

    asyncio.run(run())
