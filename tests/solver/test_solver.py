"""What runs, what is loaded, and what is not looked at: BuildKit's decisions, on graphs written as text."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection

import pytest

from bknb.errors import DefinitionError, ExitError, StepError, StoreError
from bknb.events import DecisionEvent, LogEvent, Phase
from bknb.protocols import CacheMap, Job, Ref
from bknb.solver import Solver
from tests.fakes import Events, FakeOperation, FakeSession, FakeWorker, parse
from tests.solver.conftest import Bench

CHAIN = """
base = source
a = run base
b = run a
"""
COPY = """
base = source
ctx = local
a = run base
b = copy a ctx*
c = run b
"""


async def test_runs_each_vertex_once_then_none(bench: Bench) -> None:
    """A second build of the same graph loads one result and runs nothing."""
    assert await bench.build(CHAIN) == "b(a(base))"
    assert bench.world.ran == {"base": 1, "a": 1, "b": 1}
    assert set(bench.events.outcomes().values()) == {"ran"}
    bench.world.reset()
    assert await bench.build(CHAIN) == "b(a(base))"
    assert not bench.world.ran and bench.world.loaded.total() == 1
    assert set(bench.events.outcomes().values()) == {"definition"}
    assert not bench.world.leaked


async def test_a_change_runs_what_stands_on_it(bench: Bench) -> None:
    """Another source runs everything above it, and nothing beside it."""
    graph = CHAIN + "other = source\nd = run other\nall = run b d\n"
    await bench.build(graph)
    bench.world.reset()
    bench.world.files["base"] = "base2"
    assert await bench.build(graph) == "all(b(a(base2)), d(other))"
    assert set(bench.world.ran) == {"base", "a", "b", "all"}


async def test_content_hit_although_the_definition_is_new(bench: Bench) -> None:
    """Files of a new session that are the same are a hit by content, what stands on them by definition."""
    bench.world.files["ctx"] = "hello"
    first = await bench.build(COPY)
    bench.world.reset()
    assert await bench.build(COPY) == first
    assert bench.world.ran == {"ctx": 1}
    assert bench.events.outcomes() == {
        "base": "definition", "ctx": "ran", "a": "definition", "b": "content", "c": "definition",
    }  # fmt: skip


async def test_edit_runs_exactly_what_comes_after_the_copy(bench: Bench) -> None:
    """An edited file runs the COPY and what stands on it, not what stands before it."""
    bench.world.files["ctx"] = "hello"
    await bench.build(COPY)
    bench.world.reset()
    bench.world.files["ctx"] = "bye"
    assert await bench.build(COPY) == "c(b(a(base), bye))"
    assert bench.world.ran == {"ctx": 1, "b": 1, "c": 1}
    assert bench.events.outcomes()["a"] == "definition"


async def test_a_step_without_context_starts_before_the_context_is_looked_at(bench: Bench) -> None:
    """A step whose inputs do not need the context does not wait for it."""
    bench.world.gates["map:ctx"] = asyncio.Event()
    task = asyncio.ensure_future(bench.build(COPY))
    await bench.world.reached("a")
    assert bench.world.started["map:ctx"].is_set() and not bench.world.ran["ctx"]
    bench.world.gates["map:ctx"].set()
    assert await task == "c(b(a(base), ctx))"


async def test_content_that_cannot_matter_is_not_hashed_before_the_hit(bench: Bench) -> None:
    """An input that already matches by definition is not content-hashed, nor realised."""
    graph = "x = source\ny = source\nc = copy x* y*\n"
    await bench.build(graph)
    bench.world.reset()
    await bench.build(graph)
    assert not bench.world.hashed and not bench.world.ran


async def test_only_the_input_that_misses_is_hashed(bench: Bench) -> None:
    """Where one input matches by definition and the other does not, the other's content decides."""
    graph = "x = source\ny = source\nc = copy x* y*\n"
    bench.world.files["y"] = "part=same v1"
    graph = graph.replace("y*", "y/part*")
    await bench.build(graph)
    bench.world.reset()
    bench.world.files["y"] = "part=same v2"
    assert await bench.build(graph) == "c(x, same)"
    assert bench.world.ran == {"y": 1} and bench.world.hashed == {"c": 1}
    assert bench.events.outcomes()["c"] == "content"
    bench.world.reset()
    await bench.build(graph)
    assert not bench.world.ran, "the new definition leads to the old result from now on"


async def test_selector_narrows_the_key(bench: Bench) -> None:
    """Two selectors of one input are two keys."""
    await bench.build("x = source\nc = copy x/a\n")
    await bench.build("x = source\nc = copy x/b\n")
    assert bench.world.ran["c"] == 2


async def test_equal_output_cuts_the_rebuild_off(bench: Bench) -> None:
    """A step that ran again but made the same content spares what is keyed by that content."""
    graph = "s = source\na = run s/part\nb = copy a*\nc = run b\n"
    bench.world.files["s"] = "part=1 x"
    await bench.build(graph)
    bench.world.reset()
    bench.world.files["s"] = "part=1 y"
    await bench.build(graph)
    assert bench.world.ran == {"s": 1, "a": 1}
    assert bench.events.outcomes()["b"] == "content"


async def test_two_vertices_of_one_key_run_once(bench: Bench) -> None:
    """Two vertices that differ only in what the key leaves out run once; the other says merged."""
    graph = "base = source\np = same base\nq = same base\nall = run p q\n"
    assert await bench.build(graph) == "all(same(base), same(base))"
    assert bench.world.ran["p"] + bench.world.ran["q"] == 1
    assert sorted(bench.events.outcomes()[name] for name in "pq") == ["merged", "ran"]
    assert not bench.world.leaked


async def test_merged_by_content_while_running(bench: Bench) -> None:
    """Two copies of equal content from different sources meet while the first still runs."""
    graph = "x = source\ny = source\np = same x*\nq = same y*\nall = run p q\n"
    bench.world.files |= {"x": "k", "y": "k"}
    await bench.build(graph)
    assert bench.world.ran["p"] + bench.world.ran["q"] == 1


async def test_two_jobs_share_a_running_vertex(bench: Bench) -> None:
    """A vertex that two jobs want at the same time runs once, and both see it run."""
    bench.world.gates["a"] = asyncio.Event()
    one, two = Events(), Events()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        first = group.create_task(bench.build(CHAIN, solver=solver, events=one))
        await bench.world.reached("a")
        second = group.create_task(bench.build(CHAIN, solver=solver, events=two))
        await asyncio.sleep(0)
        bench.world.gates["a"].set()
    assert first.result() == second.result() and bench.world.ran["a"] == 1
    assert one.outcomes()["a"] == two.outcomes()["a"] == "ran"
    assert not bench.world.leaked


async def test_cancelled_job_takes_nobody_down(bench: Bench) -> None:
    """A vertex runs on for the job that still wants it when the other is cancelled."""
    bench.world.gates["a"] = asyncio.Event()
    async with bench.solver() as solver:
        first = asyncio.ensure_future(bench.build(CHAIN, solver=solver, events=Events()))
        await bench.world.reached("a")
        second = asyncio.ensure_future(bench.build(CHAIN, solver=solver, events=Events()))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        bench.world.gates["a"].set()
        assert await second == "b(a(base))"
    assert bench.world.ran["a"] == 1
    assert not bench.world.leaked


async def test_cancel_stops_what_nobody_wants(bench: Bench) -> None:
    """The only job's cancellation ends the running step, shows it, and leaves nothing held."""
    bench.world.gates["a"] = asyncio.Event()
    async with bench.solver() as solver:
        task = asyncio.ensure_future(bench.build(CHAIN, solver=solver))
        await bench.world.reached("a")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bench.world.running == 0
        assert bench.events.outcomes() == {"base": "ran", "a": "cancelled", "b": ""}
        assert not bench.world.leaked
        del bench.world.gates["a"]
        assert await bench.build(CHAIN, solver=solver) == "b(a(base))"
    assert bench.world.ran == {"base": 1, "a": 2, "b": 1}, "what had finished is cached"


async def test_failure_is_forgotten_and_explained(bench: Bench) -> None:
    """A failed vertex names itself, holds its inputs, and is tried again by the next job."""
    bench.world.broken["a"] = ExitError("exit code: 2", 2)
    async with bench.solver() as solver:
        with pytest.raises(StepError) as caught:
            await bench.build(CHAIN, solver=solver)
        error = caught.value
        assert error.name == "a" and isinstance(error.cause, ExitError)
        assert [ref.value for ref in error.inputs] == ["base"]
        for ref in error.inputs:
            await ref.release()
        assert bench.events.outcomes() == {"base": "ran", "a": "failed", "b": ""}
        assert not bench.world.leaked
        bench.world.broken.clear()
        assert await bench.build(CHAIN, solver=solver) == "b(a(base))"
    assert bench.world.ran == {"base": 1, "a": 2, "b": 1}


async def test_failure_of_a_source_map(bench: Bench) -> None:
    """A source that cannot be resolved fails its own vertex."""
    bench.world.broken["base"] = ValueError("no such image")
    with pytest.raises(StepError, match="base: no such image"):
        await bench.build(CHAIN)
    assert not bench.world.leaked


async def test_sibling_is_cancelled_when_one_fails(bench: Bench) -> None:
    """A failure ends the steps beside it that nobody else wants."""
    bench.world.gates["p"] = asyncio.Event()
    bench.world.gates["q"] = asyncio.Event()
    bench.world.broken["q"] = ValueError("no")
    graph = "p = source\nq = source\nall = run p q\n"
    task = asyncio.ensure_future(bench.build(graph))
    await bench.world.reached("p")
    bench.world.gates["q"].set()
    with pytest.raises(StepError):
        await task
    assert bench.events.outcomes() == {"p": "cancelled", "q": "failed", "all": ""}
    assert not bench.world.leaked


async def test_ignore_cache_runs_again_and_all_above(bench: Bench) -> None:
    """A vertex that ignores the cache runs each time, and what is keyed by its definition too."""
    graph = CHAIN.replace("a = run", "a = run!")
    await bench.build(graph)
    await bench.build(graph)
    assert bench.world.ran == {"base": 1, "a": 2, "b": 2}
    await bench.build(CHAIN)
    assert bench.world.ran["a"] == 2, "what it made is there for builds that use the cache"


async def test_ignore_cache_for_the_whole_job(bench: Bench) -> None:
    """A job with --no-cache runs everything, by digest only what it names."""
    await bench.build(CHAIN)
    await bench.build(CHAIN, ignore_cache=True)
    assert bench.world.ran == {"base": 2, "a": 2, "b": 2}
    await bench.build(CHAIN, ignore_cache={parse(CHAIN)["b"].vertex.digest})
    assert bench.world.ran == {"base": 2, "a": 2, "b": 3}


async def test_ignored_step_is_cut_off_by_content(bench: Bench) -> None:
    """What is keyed by the content of a forced step is a hit when the content is the same."""
    graph = "s = source\na = run! s\nb = copy a*\n"
    await bench.build(graph)
    await bench.build(graph)
    assert bench.world.ran == {"s": 1, "a": 2, "b": 1}


async def test_lost_result_is_a_miss(bench: Bench) -> None:
    """A record whose result is gone is forgotten, and the step runs."""
    await bench.build(CHAIN)
    lost = next(id for id, value in bench.world.results.items() if value == "b(a(base))")
    del bench.world.results[lost]
    bench.world.reset()
    assert await bench.build(CHAIN) == "b(a(base))"
    assert bench.world.ran == {"b": 1}
    assert ("load", "lost") in [d[:2] for d in bench.events.decisions(parse(CHAIN)["b"].vertex)]
    bench.world.reset()
    await bench.build(CHAIN)
    assert not bench.world.ran


async def test_everything_lost_runs_everything(bench: Bench) -> None:
    """A wiped disk under a full cache database is a slow build, not an error."""
    await bench.build(COPY)
    bench.world.results.clear()
    assert await bench.build(COPY) == "c(b(a(base), ctx))"
    assert not bench.world.leaked


async def test_one_slot_is_enough(bench: Bench) -> None:
    """With one slot in all, steps run one after the other, and a nested build does not deadlock."""
    graph = "\n".join(f"v{i} = source" for i in range(5)) + "\nall = run v0 v1 v2 v3 v4\n"
    await bench.build(graph, limit=1)
    assert bench.world.most_running == 1
    bench.world.most_running = 0
    await bench.build(graph.replace("v", "w"), parallelism=2)
    assert bench.world.most_running == 2
    bench.world.most_running = 0
    await bench.build(graph.replace("v", "x"))
    assert bench.world.most_running == 5


@pytest.mark.parametrize("of", ["limit", "parallelism"])
async def test_a_nested_build_holds_no_slot(bench: Bench, of: str) -> None:
    """A step that has other steps built, and these others in turn, ends with one slot for all; none is left taken."""
    inner = parse("x = source\ny = run x\nz = run y\n", "s1")
    bench.world.nested = {"a": [inner["y"], inner["z"]], "b": [inner["z"]], "y": [parse("w = source\n", "s1")["w"]]}
    one = {of: 1}
    assert await asyncio.wait_for(bench.build(CHAIN, session="s1", **one), 20) == "b(a(base))"  # type: ignore[arg-type]
    assert bench.world.ran == {"base": 1, "w": 1, "x": 1, "y": 1, "z": 1, "a": 1, "b": 1}
    slots = [e.outcome for e in bench.events if isinstance(e, DecisionEvent) and e.causes == ("slot",)]
    assert slots.count("begin") == slots.count("end")


async def test_a_nested_build_that_fails(bench: Bench) -> None:
    """A step whose nested build fails fails with it, and its slot is free."""
    bench.world.nested["a"] = [parse("x = source\n", "s1")["x"]]
    bench.world.broken["x"] = ValueError("no")
    async with bench.solver(1) as solver:
        with pytest.raises(StepError, match="x: no"):
            await bench.build(CHAIN, session="s1", solver=solver)
        assert await asyncio.wait_for(bench.build("y = source\n", solver=solver), 20) == "y"
    assert bench.world.running == 0


async def test_a_nested_build_that_asks_for_its_ancestor_is_an_error(bench: Bench) -> None:
    """A vertex whose nested build contains it cannot wait for itself."""
    edges = parse(CHAIN, "s1")
    bench.world.nested["a"] = [edges["b"]]
    with pytest.raises(StepError) as caught:
        await bench.build(CHAIN, session="s1")
    assert isinstance(caught.value.cause, DefinitionError)
    for ref in caught.value.inputs:
        await ref.release()
    assert not bench.world.leaked


async def test_a_nested_build_shares_what_runs(bench: Bench) -> None:
    """A vertex may build another graph, of which nothing runs twice."""
    inner = parse("x = source\ny = run x\n", "s1")
    bench.world.nested["a"] = [inner["y"]]
    assert await bench.build(CHAIN + "x = source\nall = run b x\n") == "all(b(a(base)), x)"
    assert bench.world.ran == {"base": 1, "x": 1, "y": 1, "a": 1, "b": 1, "all": 1}
    assert bench.events.outcomes()["y"] == "ran"


async def test_scratch_is_a_result(bench: Bench) -> None:
    """An empty output is cached as such."""
    graph = "e = scratch\nb = run e\n"
    assert await bench.build(graph) == "b(nothing)"
    assert await bench.build(graph, "e") == "nothing"
    assert bench.world.ran == {"e": 1, "b": 1}


async def test_several_outputs_run_once(bench: Bench) -> None:
    """Two outputs of a vertex come from one run, and each is cached."""
    graph = "base = source\na = run base\nb = run a a:1\n"
    assert await bench.build(graph) == "b(a(base), a(base):1)"
    assert bench.world.ran["a"] == 1
    bench.world.reset()
    await bench.build(graph + "c = run a:1\n")
    assert bench.world.ran == {"c": 1}


async def test_a_source_is_asked_for_better_keys_only_when_needed(bench: Bench) -> None:
    """A cheap key that hits spares the expensive one; a new tag on old layers is found by the second."""
    graph = "i = image\na = run i\n"
    await bench.build(graph)
    assert bench.world.mapped["i"] == 2
    bench.world.reset()
    await bench.build(graph)
    assert bench.world.mapped["i"] == 1 and not bench.world.ran
    bench.world.reset()
    bench.world.files["i/tag"] = "new"
    await bench.build(graph)
    assert bench.world.mapped["i"] == 2 and not bench.world.ran


async def test_a_cheap_key_that_leads_on_is_enough(bench: Bench) -> None:
    """A source whose own result is gone is asked no further when what stands on it is cached."""
    graph = "i = image\na = run i\n"
    await bench.build(graph)
    bench.store.forget(next(id for id, value in bench.world.results.items() if value == "i"))
    bench.world.reset()
    await bench.build(graph)
    assert bench.world.mapped["i"] == 1 and not bench.world.ran
    assert bench.events.outcomes()["a"] == "definition"


async def test_cancelled_while_a_source_is_asked(bench: Bench) -> None:
    """A source that was being asked is asked anew by the next job."""
    bench.world.gates["map:base"] = asyncio.Event()
    async with bench.solver() as solver:
        task = asyncio.ensure_future(bench.build(CHAIN, solver=solver))
        await bench.world.reached("map:base")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bench.events.outcomes()["base"] == "cancelled"
        del bench.world.gates["map:base"]
        assert await bench.build(CHAIN, solver=solver) == "b(a(base))"
    assert bench.world.mapped["base"] == 2 and not bench.world.leaked


async def test_a_source_is_asked_anew_while_it_still_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job was cancelled, and the answer takes its time to be given up, say to close a connection: the next asks anew."""
    stopping, stopped = asyncio.Event(), asyncio.Event()
    plain = FakeOperation.cache_maps

    async def slow_to_stop(self: FakeOperation, job: Job) -> AsyncIterator[CacheMap]:
        try:
            async for cache_map in plain(self, job):
                yield cache_map
        except asyncio.CancelledError:
            stopping.set()
            await stopped.wait()
            raise

    monkeypatch.setattr(FakeOperation, "cache_maps", slow_to_stop)
    graph = "base = source\na = run base\n"
    bench.world.gates["map:base"] = asyncio.Event()
    async with bench.solver() as solver:
        first = asyncio.ensure_future(bench.build(graph, solver=solver))
        await bench.world.reached("map:base")
        first.cancel()
        await stopping.wait()
        bench.world.gates["map:base"].set()
        assert await bench.build(graph, solver=solver) == "a(base)"
        stopped.set()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert bench.events.outcomes() == {"base": "ran", "a": "ran"} and not bench.world.leaked


async def test_a_wait_that_is_cut_short_has_ended(bench: Bench) -> None:
    """Whatever a step waited for, and however that ended: each begin of a wait has its end."""
    graph = "s = source\nm = run! s\nk = run m\na = run k\nx = run s\nb = run x\ntop = run a b\n"
    await bench.build(graph)
    for result, value in list(bench.world.results.items()):
        if value.startswith(("b(", "x(")):
            del bench.world.results[result]
    bench.world.gates["x"] = asyncio.Event()
    await bench.build(graph)
    assert bench.events.outcomes()["top"] == "definition"
    waits = [event for event in bench.events if isinstance(event, DecisionEvent) and event.phase is Phase.WAIT]
    told = Counter((event.vertex, event.outcome) for event in waits)
    assert {vertex for vertex, _ in told} >= {parse(graph)[name].vertex.digest for name in ("top", "b")}
    assert all(told[vertex, "begin"] == told[vertex, "end"] for vertex, _ in told)


@pytest.mark.parametrize("broken", ["missing", "load"])
async def test_a_store_that_cannot_answer_has_lost_the_result(bench: Bench, broken: str) -> None:
    """Whether it is asked for a result, or whether there is one: the step runs again."""

    class Damaged(FakeWorker):
        def missing(self, results: Collection[str]) -> Collection[str]:
            if broken == "missing":
                raise StoreError("damaged")
            return ()

        async def load(self, result: str) -> Ref | None:
            raise StoreError("damaged")

    graph = "s = source\na = run s\nb = run a\n"
    await bench.build(graph)
    bench.world.reset()
    async with Solver(Damaged(bench.world), bench.store) as solver:
        assert await bench.build(graph, solver=solver) == "b(a(s))"
    assert bench.world.ran == {"s": 1, "a": 1, "b": 1} and not bench.world.leaked


async def test_waiting_is_said(bench: Bench) -> None:
    """What a step waits for is a decision with a beginning and an end."""
    await bench.build("x = source\nz = source\ny = source\nc = copy x z y*\n", limit=1)
    said = [
        d[:2] + d[2]
        for d in bench.events.decisions(parse("x = source\nz = source\ny = source\nc = copy x z y*\n")["c"].vertex)
    ]
    for cause in ("input", "content-hash"):
        begin, end = said.index(("wait", "begin", cause)), said.index(("wait", "end", cause))
        assert begin < end
    slots = [e for e in bench.events if isinstance(e, DecisionEvent) and e.causes == ("slot",)]
    assert {e.outcome for e in slots} == {"begin", "end"}
    assert [e.sequence for e in bench.events if isinstance(e, DecisionEvent)] == list(
        range(1, 1 + sum(isinstance(e, DecisionEvent) for e in bench.events))
    )


async def test_a_late_job_sees_what_was_said(bench: Bench) -> None:
    """A job that joins a running step is told its log so far."""
    bench.world.gates["a"] = asyncio.Event()
    bench.world.says["a"] = b"hello"
    late = Events()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        group.create_task(bench.build(CHAIN, solver=solver, events=Events()))
        await bench.world.reached("a")
        group.create_task(bench.build(CHAIN, solver=solver, events=late))
        await asyncio.sleep(0)
        bench.world.gates["a"].set()
    assert [e.data for e in late if isinstance(e, LogEvent)] == [b"hello"]
    assert late.outcomes() == {"base": "ran", "a": "ran", "b": "ran"}


async def test_times_are_those_of_the_run(bench: Bench) -> None:
    """A vertex starts when it runs, not when its inputs do, and ends before what stands on it starts."""
    await bench.build(CHAIN)
    base, a, b = (bench.events.last(name) for name in ("base", "a", "b"))
    assert base.started and base.completed and a.started and a.completed and b.started
    assert base.started <= base.completed <= a.started <= a.completed <= b.started


async def test_unneeded_vertices_are_skipped(bench: Bench) -> None:
    """What a content hit made unnecessary is said to have been skipped."""
    graph = "s = source\nbase = run s\nctx = local\nb = copy base ctx*\n"
    await bench.build(graph)
    record = next(id for id, value in bench.world.results.items() if value == "base(s)")
    bench.store.forget(record)
    await bench.build(graph)
    assert bench.events.outcomes()["base"] == "skipped"


async def test_a_chain_of_thousands(bench: Bench) -> None:
    """Neither the first nor the second build of a very long chain runs into the stack."""
    lines = ["v0 = source"] + [f"v{i} = run v{i - 1}" for i in range(1, 2001)]
    graph = "\n".join(lines)
    await bench.build(graph)
    assert bench.world.ran.total() == 2001
    await bench.build(graph)
    assert bench.world.ran.total() == 2001


async def test_results_are_held_until_the_job_ends(bench: Bench) -> None:
    """A second question of the same job finds what the first one built, without the cache."""
    edges = parse(CHAIN, "s1")
    async with bench.solver() as solver, solver.job("b", FakeSession("s1"), bench.events.append) as job:
        one = await job.solve(edges["a"])
        two = await job.solve(edges["b"])
        assert one is not None and two is not None
        assert not bench.world.loaded
        await one.release()
        await two.release()
        assert bench.world.leaked
    assert not bench.world.leaked
