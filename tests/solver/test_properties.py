"""A cached build equals a clean one, whatever was built before."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bknb.cache.store import SqliteCacheStore
from tests.fakes import World
from tests.solver.conftest import Bench

PARTS = ("", "/part", "/rest")


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """A random graph as text, its last vertex on top of everything."""
    lines = [f"s{i} = {draw(st.sampled_from(['source', 'local']))}" for i in range(draw(st.integers(1, 3)))]
    names = [f"s{i}" for i in range(len(lines))]
    for i in range(draw(st.integers(1, 6))):
        inputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        words = [name + draw(st.sampled_from(PARTS)) + draw(st.sampled_from(["", "*"])) for name in inputs]
        ignore = draw(st.sampled_from(["", "", "", "", "!"]))
        lines.append(f"v{i} = {draw(st.sampled_from(['run', 'same']))}{ignore} {' '.join(words)}")
        names.append(f"v{i}")
    used = {word.strip("*").partition("/")[0] for line in lines for word in line.split()[2:]}
    lines.append("top = run " + " ".join(name for name in names if name not in used))
    return "\n".join(lines) + "\n"


CONTENTS = st.fixed_dictionaries(
    {
        f"s{i}": st.builds("part={} rest={}".format, st.sampled_from("ab"), st.sampled_from("xy"))
        for i in range(3)
    }
)
LOSSES = st.lists(st.integers(0, 30), max_size=3)


async def _clean(graph: str, files: dict[str, str]) -> str:
    store = SqliteCacheStore(":memory:")
    try:
        return await Bench(store, World(dict(files))).build(graph)
    finally:
        store.close()


async def _compare(graph: str, builds: list[tuple[dict[str, str], list[int]]]) -> None:
    store = SqliteCacheStore(":memory:")
    bench = Bench(store)
    try:
        for files, losses in builds:
            bench.world.files = dict(files)
            for loss in losses:
                bench.world.results.pop(f"r{loss}", None)
            assert await bench.build(graph) == await _clean(graph, files)
            assert not bench.world.leaked
        bench.world.reset()
        assert await bench.build(graph) == await _clean(graph, files)
        if "!" not in graph and "local" not in graph:
            assert not bench.world.ran, "what is known by definition does not run again"
    finally:
        store.close()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.lists(st.tuples(CONTENTS, LOSSES), min_size=1, max_size=4))
def test_a_cached_build_equals_a_clean_one(
    graph: str, builds: list[tuple[dict[str, str], list[int]]]
) -> None:
    """However sources change and results are lost, what comes out is what a clean build makes."""
    asyncio.run(_compare(graph, builds))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), CONTENTS, st.integers(1, 3))
def test_jobs_side_by_side_agree(graph: str, files: dict[str, str], limit: int) -> None:
    """Several jobs at once over one solver with few slots end, agree, and leave nothing held."""

    async def run() -> None:
        store = SqliteCacheStore(":memory:")
        bench = Bench(store, World(dict(files)))
        async with bench.solver(limit) as solver, asyncio.TaskGroup() as group:
            tasks = [group.create_task(bench.build(graph, solver=solver)) for _ in range(3)]
        store.close()
        assert {task.result() for task in tasks} == {await _clean(graph, files)}
        assert not bench.world.leaked and bench.world.most_running <= limit

    asyncio.run(asyncio.wait_for(run(), 30))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), CONTENTS, st.integers(0, 40))
def test_cancelled_anywhere(graph: str, files: dict[str, str], steps: int) -> None:
    """A build that is cancelled at any moment leaves nothing held or running, and the next one succeeds."""
    asyncio.run(asyncio.wait_for(_cancelled(graph, files, steps), 30))


async def _cancelled(graph: str, files: dict[str, str], steps: int) -> None:
    store = SqliteCacheStore(":memory:")
    bench = Bench(store, World(dict(files)))
    async with bench.solver() as solver:
        task = asyncio.ensure_future(bench.build(graph, solver=solver))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert not bench.world.leaked and bench.world.running == 0
        assert await bench.build(graph, solver=solver) == await _clean(graph, files)
    store.close()
    assert not bench.world.leaked


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.lists(st.tuples(CONTENTS, LOSSES), min_size=1, max_size=4), CONTENTS, st.integers(0, 60))
def test_at_length(
    graph: str, builds: list[tuple[dict[str, str], list[int]]], files: dict[str, str], steps: int
) -> None:
    """As the tests above, with new random graphs each time."""
    asyncio.run(_compare(graph, builds))
    asyncio.run(asyncio.wait_for(_cancelled(graph, files, steps), 30))
