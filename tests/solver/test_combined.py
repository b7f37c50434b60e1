"""Several cache sources for one vertex: local before remote, loaded lazily, kept afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from bknb.cache.store import SqliteCacheStore
from bknb.errors import SourceError
from bknb.protocols import CacheRecord, Ref
from tests.fakes import Events, FakeRef, World, parse
from tests.solver.conftest import Bench

CHAIN = "base = source\na = run base\nb = run a\n"


class Remote:
    """A `CacheSource` over what another machine's store holds, with key names of its own; counts what is asked."""

    def __init__(self, store: SqliteCacheStore, world: World, name: str = "far") -> None:
        self.store = store
        self.world = world
        self.name = name
        self.opened = 0
        self.asked = 0
        self.loaded: Counter[str] = Counter()
        self.gone: set[str] = set()
        self.error: Exception | None = None

    async def open(self) -> None:
        self.opened += 1
        await self.world.gate(f"open:{self.name}")
        if self.error is not None:
            raise self.error

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        self.asked += 1
        found = self.store.targets(self._theirs(key), input, output, digest, selector)
        return frozenset(f"{self.name} {target}" for target in found)

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        return tuple(
            CacheRecord(
                key, record.result, record.created, self.name, lambda id=record.result: self._load(id)
            )  # type: ignore[misc]
            for record in self.store.records(self._theirs(key))
            if record.result not in self.gone
        )

    def forget(self, result: str) -> None:
        self.gone.add(result)

    def _theirs(self, key: str) -> str:
        return key.removeprefix(f"{self.name} ")

    async def _load(self, id: str) -> Ref | None:
        self.loaded[self.world.results.get(id, "gone")] += 1
        return FakeRef(self.world, id) if id in self.world.results else None


@pytest.fixture
async def remote(bench: Bench) -> AsyncIterator[Remote]:
    """What another machine built of CHAIN, and nothing here."""
    store = SqliteCacheStore(":memory:")
    await Bench(store, bench.world).build(CHAIN)
    bench.world.reset()
    yield Remote(store, bench.world)
    store.close()


async def test_a_remote_result_is_loaded_once_and_kept(bench: Bench, remote: Remote) -> None:
    """What another cache has does not run; only the top is loaded; the local cache has it afterwards (TestMultipleCacheSources)."""
    assert await bench.build(CHAIN, cache_from=[remote]) == "b(a(base))"
    assert not bench.world.ran and remote.loaded == {"b(a(base))": 1}
    assert bench.events.outcomes() == {"base": "remote", "a": "remote", "b": "remote"}
    hits = [d for d in bench.events.decisions(parse(CHAIN)["b"].vertex) if d[1] == "hit"]
    assert [causes[2] for _, _, causes in hits] == ["far"]
    assert await bench.build(CHAIN) == "b(a(base))"
    assert not bench.world.ran and bench.events.outcomes()["b"] == "definition"
    assert remote.opened == 1 and not bench.world.leaked


async def test_what_stands_on_a_remote_result_runs_and_is_found_again(bench: Bench, remote: Remote) -> None:
    """A new step on top of an imported one takes its result, and both are local afterwards (TestMultipleCacheSources)."""
    graph = CHAIN + "c = run b\n"
    assert await bench.build(graph, cache_from=[remote]) == "c(b(a(base)))"
    assert bench.world.ran == {"c": 1} and remote.loaded == {"b(a(base))": 1}
    bench.world.reset()
    assert await bench.build(graph) == "c(b(a(base)))"
    assert not bench.world.ran


async def test_a_cached_build_asks_no_other_cache(bench: Bench, remote: Remote) -> None:
    """Where the local cache leads to the result, the index of another one is not even brought."""
    await bench.build(CHAIN)
    bench.world.reset()
    assert await bench.build(CHAIN, cache_from=[remote]) == "b(a(base))"
    assert remote.opened == remote.asked == 0 and not remote.loaded and not bench.world.ran


async def test_local_before_remote(bench: Bench, remote: Remote) -> None:
    """A result that both have is taken from here; of several imports the first that has it is asked."""
    await bench.build(CHAIN, "a")
    bench.world.reset()
    second = Remote(remote.store, bench.world, "farther")
    assert await bench.build(CHAIN + "d = run a\nall = run b d\n", cache_from=[remote, second])
    assert bench.world.ran == {"d": 1, "all": 1} and remote.loaded == {"b(a(base))": 1} and not second.loaded
    assert bench.events.outcomes()["a"] == "definition"


async def test_two_caches_never_add_up_to_a_hit(bench: Bench, remote: Remote) -> None:
    """A step of which each cache knows one input only is a miss (solver/combinedcache.go asks each by itself)."""
    graph = "x = source\ny = source\nall = run x y\n"
    await bench.build("x = source\nz = source\nall = run x z\n")
    await Bench(remote.store, bench.world).build("z = source\ny = source\nall = run z y\n")
    bench.world.reset()
    await bench.build(graph, cache_from=[remote])
    assert bench.world.ran == {"all": 1}


async def test_a_content_key_hits_in_another_cache(bench: Bench, remote: Remote) -> None:
    """Files that are new here and known there are a remote hit, which is local the next time."""
    graph = "ctx = local\nb = copy ctx*\nc = run b\n"
    await Bench(remote.store, bench.world).build(graph, session="there")
    bench.world.reset()
    assert await bench.build(graph, cache_from=[remote]) == "c(b(ctx))"
    assert bench.world.ran == {"ctx": 1} and remote.loaded == {"c(b(ctx))": 1}
    bench.world.reset()
    assert await bench.build(graph) == "c(b(ctx))"
    assert bench.world.ran == {"ctx": 1}


async def test_a_cache_that_cannot_be_asked_is_no_error(bench: Bench, remote: Remote) -> None:
    """The build goes on without it, and says for each step that it was not asked and why."""
    remote.error = SourceError("connection refused")
    assert await bench.build(CHAIN, cache_from=[remote]) == "b(a(base))"
    assert bench.world.ran == {"base": 1, "a": 1, "b": 1} and remote.opened == 1
    said = bench.events.decisions(parse(CHAIN)["b"].vertex)
    assert ("load", "unreachable", ("far", "connection refused")) in said


async def test_a_remote_result_that_is_gone_is_a_miss(bench: Bench, remote: Remote) -> None:
    """What an index names and nobody has any more is forgotten; the next best is taken."""
    gone = next(id for id, value in bench.world.results.items() if value == "b(a(base))")
    del bench.world.results[gone]
    assert await bench.build(CHAIN, cache_from=[remote]) == "b(a(base))"
    assert bench.world.ran == {"b": 1} and remote.loaded == {"gone": 1, "a(base)": 1}
    assert not bench.world.leaked


async def test_a_local_result_that_is_lost_is_looked_for_elsewhere(bench: Bench, remote: Remote) -> None:
    """Only when the local record leads to nothing is another cache opened."""
    await bench.build(CHAIN)
    far = set(remote.store.results())
    for id in [id for id in bench.world.results if id not in far]:
        del bench.world.results[id]
    bench.world.reset()
    assert await bench.build(CHAIN, cache_from=[remote]) == "b(a(base))"
    assert not bench.world.ran and remote.opened == 1 and remote.loaded == {"b(a(base))": 1}


async def test_a_forced_step_is_not_imported(bench: Bench, remote: Remote) -> None:
    """A job that ignores the cache asks no other cache either."""
    assert await bench.build(CHAIN, cache_from=[remote], ignore_cache=True) == "b(a(base))"
    assert bench.world.ran.total() == 3 and remote.opened == 0


async def test_cancelled_while_a_cache_is_opened(bench: Bench, remote: Remote) -> None:
    """A job that ends while the index comes takes nobody with it; the next one opens it anew."""
    bench.world.gates["open:far"] = asyncio.Event()
    async with bench.solver() as solver:
        first = asyncio.ensure_future(bench.build(CHAIN, solver=solver, cache_from=[remote], events=Events()))
        await bench.world.reached("open:far")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        bench.world.gates["open:far"].set()
        assert await bench.build(CHAIN, solver=solver, cache_from=[remote]) == "b(a(base))"
    assert remote.opened == 2 and not bench.world.ran and not bench.world.leaked


async def test_jobs_with_and_without_imports_share(bench: Bench, remote: Remote) -> None:
    """A job that imports nothing takes what another one imports at the moment."""
    bench.world.gates["open:far"] = asyncio.Event()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        first = group.create_task(bench.build(CHAIN, solver=solver, cache_from=[remote], events=Events()))
        await bench.world.reached("open:far")
        second = group.create_task(bench.build(CHAIN, solver=solver, events=Events()))
        await asyncio.sleep(0)
        bench.world.gates["open:far"].set()
    assert first.result() == second.result() == "b(a(base))"
    assert not bench.world.ran and remote.loaded == {"b(a(base))": 1}


async def test_waiting_for_an_index_is_said(bench: Bench, remote: Remote) -> None:
    """Who waits for an imported cache says so."""
    await bench.build(CHAIN, cache_from=[remote])
    vertex = parse(CHAIN)["b"].vertex
    waits = [outcome for phase, outcome, causes in bench.events.decisions(vertex) if causes == ("pull",)]
    assert waits == ["begin", "end"]


async def test_an_input_runs_on_until_what_another_cache_offers_is_there(bench: Bench) -> None:
    """A step is found in an import while its input runs: where the result cannot be had, the input has not run for nothing."""
    graph = "s = source\nm = run! s\nl = run m\nx = source\ny = run x\ntop = run l y\n"
    store = SqliteCacheStore(":memory:")
    await Bench(store, bench.world).build(graph)
    remote, world = Remote(store, bench.world), bench.world
    for result, value in list(world.results.items()):
        if value.startswith(("top(", "y(")):
            del world.results[result]
    world.reset()
    world.gates = {"y": asyncio.Event(), "m": asyncio.Event()}
    building = asyncio.ensure_future(bench.build(graph, cache_from=[remote]))
    await world.reached("y")
    world.gates["m"].set()
    top = parse(graph)["top"].vertex
    while "lost" not in [outcome for _, outcome, _ in bench.events.decisions(top)]:
        await asyncio.sleep(0)
    world.gates["y"].set()
    assert await building == "top(l(m(s)), y(x))"
    assert world.ran["y"] == 1 and not world.leaked
    store.close()


async def test_what_an_import_brings_is_told_to_whoever_waits(bench: Bench, remote: Remote) -> None:
    """One job waits for a step to run; another brings a cache that has the result: the first need not wait any longer."""
    bench.world.gates["a"] = asyncio.Event()
    async with bench.solver() as solver:
        first = asyncio.ensure_future(bench.build(CHAIN, solver=solver, events=Events()))
        await bench.world.reached("a")
        more = CHAIN + "c = run base\nall = run b c\n"
        second = asyncio.ensure_future(bench.build(more, solver=solver, cache_from=[remote]))
        assert await first == "b(a(base))"
        assert await second == "all(b(a(base)), c(base))"
    assert bench.world.ran["b"] == 0 and not bench.world.leaked
