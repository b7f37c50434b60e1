"""What is not looked at: cases of BuildKit's solver/scheduler_test.go that count accesses."""

from __future__ import annotations

import asyncio

import pytest

from bknb.errors import DefinitionError, StepError
from tests.fakes import Events, FakeRef
from tests.solver.conftest import Bench


async def test_slow_keys_are_not_computed_where_fast_ones_hit(bench: Bench) -> None:
    """A chain with a content key in it is found by its definition alone (TestSlowCacheAvoidAccess)."""
    graph = "v2 = source\nv1 = copy v2/sel*\nv0 = run v1\n"
    await bench.build(graph)
    bench.world.reset()
    await bench.build(graph)
    assert not bench.world.hashed and not bench.world.ran and bench.world.loaded.total() == 1


async def test_an_input_that_may_match_is_not_loaded_for_its_checksum(bench: Bench) -> None:
    """While another input has no key yet, one that has is not realised (TestSlowCacheAvoidLoadOnCache)."""
    graph = "v3 = source\nv1 = copy v3/part*\nv2 = source\nv0 = copy v1 v2*\nmain = run v0\n"
    bench.world.files["v3"] = "part=1 a"
    await bench.build(graph)
    bench.world.reset()
    bench.world.files["v3"] = "part=1 b"
    await bench.build(graph)
    assert bench.world.ran == {"v3": 1} and bench.world.hashed == {"v1": 1}
    assert [bench.world.results[id] for id in bench.world.loaded] == ["main(v0(v1(1), v2))"]


async def test_what_is_found_while_it_waits_needs_its_inputs_no_more(bench: Bench) -> None:
    """When the step that had to run again has come to its old key, only the top of all that stands on it is loaded."""
    graph = "s = source\nm = run! s\nl = run m\na = run l\nb = run a\nc = run l\ntop = run b c\n"
    await bench.build(graph)
    bench.world.reset()
    await bench.build(graph)
    assert bench.world.ran == {"m": 1, "l": 1}
    assert [bench.world.results[id].partition("(")[0] for id in bench.world.loaded] == ["s", "top"]
    assert bench.events.outcomes()["a"] == bench.events.outcomes()["c"] == "definition"


async def test_a_result_that_is_gone_is_missed_where_it_is_found(bench: Bench) -> None:
    """It does not count as cached for what stands on it, however long it takes to load."""
    graph = "s = source\nm = run! s\nl = run m\na = run l\nb = run a\ntop = run b s*\n"
    await bench.build(graph)
    for result, value in list(bench.world.results.items()):
        if value.startswith(("top(", "b(")):
            del bench.world.results[result]
    bench.world.reset()
    await bench.build(graph)
    assert bench.world.ran == {"m": 1, "l": 1, "b": 1, "top": 1}
    assert [bench.world.results[id].partition("(")[0] for id in bench.world.loaded] == ["s", "a"]


async def test_parallel_inputs(bench: Bench) -> None:
    """Inputs of a vertex are asked for keys, and run, side by side (TestParallelInputs)."""
    for name in ("x", "y"):
        bench.world.gates[name] = asyncio.Event()
        bench.world.gates[f"map:{name}"] = asyncio.Event()
    task = asyncio.ensure_future(bench.build("x = source\ny = source\nall = run x y\n"))
    for prefix in ("map:", ""):
        for name in ("x", "y"):
            await bench.world.reached(prefix + name)
        for name in ("x", "y"):
            bench.world.gates[prefix + name].set()
    assert await task == "all(x, y)"


async def test_only_the_top_is_loaded(bench: Bench) -> None:
    """Of a wide and deep graph that is cached one result is loaded (TestHugeGraph, TestOptimizedCacheAccess)."""
    lines = ["s = source"] + [f"v{i} = run {'s' if i < 3 else f'v{i - 3} v{i // 2}'}" for i in range(60)]
    lines.append("top = run " + " ".join(f"v{i}" for i in range(50, 60)))
    graph = "\n".join(lines)
    await bench.build(graph)
    assert set(bench.world.ran.values()) == {1}
    bench.world.reset()
    await bench.build(graph)
    assert not bench.world.ran and bench.world.loaded.total() == 1


async def test_ignoring_jobs_share_one_run(bench: Bench) -> None:
    """Jobs that both ignore the cache run a vertex once if they meet (TestParallelBuildsIgnoreCache)."""
    graph = "s = source\na = run s\n"
    await bench.build(graph)
    bench.world.reset()
    bench.world.gates["a"] = asyncio.Event()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(bench.build(graph, solver=solver, ignore_cache=True, events=Events()))
            for _ in range(2)
        ]
        await bench.world.reached("a")
        bench.world.gates["a"].set()
    assert {task.result() for task in tasks} == {"a(s)"}
    assert bench.world.ran == {"s": 1, "a": 1}


async def test_a_plain_job_takes_what_is_being_run_anew(bench: Bench) -> None:
    """A job that would use the cache takes what another job has run anew at the moment."""
    graph = "s = source\na = run s\n"
    bench.world.gates["a"] = asyncio.Event()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        first = group.create_task(bench.build(graph, solver=solver, ignore_cache=True, events=Events()))
        await bench.world.reached("a")
        second = group.create_task(bench.build(graph, solver=solver, events=Events()))
        await asyncio.sleep(0)
        bench.world.gates["a"].set()
    assert first.result() == second.result() and bench.world.ran["a"] == 1


async def test_a_forced_build_does_not_take_a_cached_one(bench: Bench) -> None:
    """A job that ignores the cache runs although another job has the result in its hands."""
    graph = "s = source\na = run s\nb = run a\n"
    bench.world.gates["b"] = asyncio.Event()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        first = group.create_task(bench.build(graph, solver=solver, events=Events()))
        await bench.world.reached("b")
        second = group.create_task(bench.build(graph, "a", solver=solver, ignore_cache=True, events=Events()))
        await second
        assert bench.world.ran["a"] == 2
        bench.world.gates["b"].set()
        await first


async def test_a_slow_key_of_a_slow_key(bench: Bench) -> None:
    """Content keys on top of content keys are found from the bottom up (TestCacheSlowWithSelector)."""
    graph = "s = source\na = copy s/part*\nb = copy a/part*\nc = run b\n"
    bench.world.files["s"] = "part=1 x"
    first = await bench.build(graph)
    bench.world.reset()
    bench.world.files["s"] = "part=1 y"
    assert await bench.build(graph) == first
    assert bench.world.ran == {"s": 1} and bench.world.hashed == {"a": 1}


async def test_a_graph_that_cannot_be_loaded_leaves_nothing(bench: Bench) -> None:
    """An op that the worker does not know is an error at once, and what was made active before it goes."""
    bench.world.unknown.add("b")
    async with bench.solver() as solver:
        with pytest.raises(DefinitionError, match="unknown op"):
            await bench.build("s = source\na = run s\nb = run a\n", solver=solver)
        assert len(solver._graph) == 0 and not bench.world.ran


async def test_errors_of_content_keys(bench: Bench) -> None:
    """A content key that cannot be computed fails its vertex, and the error holds the input until it is released."""
    bench.world.broken["hash:a"] = ValueError("no such path")
    async with bench.solver() as solver:
        with pytest.raises(StepError, match=r"^a: no such path$") as caught:
            await bench.build("s = source\na = copy s*\n", solver=solver)
        assert bench.events.outcomes() == {"s": "ran", "a": "failed"}
        (held,) = caught.value.inputs
        assert isinstance(held, FakeRef) and held.value == "s"
        assert bench.world.leaked == {held.id: 1}, "the job is over, and only the error holds it"
        await held.release()
    assert not bench.world.leaked
