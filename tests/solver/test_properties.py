"""A cached build equals a clean one, whatever was built before."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bknb.cache.store import SqliteCacheStore
from bknb.errors import StepError
from bknb.events import DecisionEvent, Phase
from bknb.protocols import Ref
from tests.fakes import Events, World
from tests.solver.conftest import Bench
from tests.solver.oracle import Oracle
from tests.solver.test_combined import Remote

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


@st.composite
def edited(draw: st.DrawFn) -> list[tuple[str, dict[str, str]]]:
    """A graph with files for its sources, and mutations of it one after the other: (graph, files) each."""
    # Two vertices that are one, of which only one is keyed by content, race for who is asked first: not here.
    lines = draw(graphs()).replace("!", "").replace("= same", "= run").splitlines()
    files = dict(draw(CONTENTS))
    states = [("\n".join(lines) + "\n", dict(files))]
    for number in range(draw(st.integers(1, 4))):
        steps = [at for at, line in enumerate(lines) if line.split()[2] in ("run", "copy")]
        at = draw(st.sampled_from(steps))
        name, _, kind, *inputs = lines[at].split()
        match draw(st.sampled_from(["content", "op", "selector", "input", "mark", "back"])):
            case "content":
                source = draw(st.sampled_from(sorted(files)))
                files[source] = f"part={draw(st.sampled_from('ab'))} rest={draw(st.sampled_from('xy'))} v{number}"
            case "op":
                lines[at] = " ".join([name, "=", "copy" if kind == "run" else "run", *inputs])
            case "selector":
                chosen = draw(st.integers(0, len(inputs) - 1))
                word, star = inputs[chosen].rstrip("*"), "*" * inputs[chosen].endswith("*")
                inputs[chosen] = word.partition("/")[0] + draw(st.sampled_from(PARTS)) + star
                lines[at] = " ".join([name, "=", kind, *inputs])
            case "input":
                lines[at] = " ".join([name, "=", kind, *inputs, draw(st.sampled_from(inputs))])
            case "mark":
                chosen = draw(st.integers(0, len(inputs) - 1))
                inputs[chosen] = inputs[chosen].rstrip("*") if inputs[chosen].endswith("*") else inputs[chosen] + "*"
                lines[at] = " ".join([name, "=", kind, *inputs])
            case "back":
                graph, files = states[0][0], dict(states[0][1])
                lines = graph.splitlines()
        states.append(("\n".join(lines) + "\n", dict(files)))
    return states


def _ops(ran: Counter[str], graph: str) -> Counter[str]:
    """What ran, by op: of two vertices that are one either may run."""
    found: Counter[str] = Counter()
    for name, count in ran.items():
        kind, inputs = next((line.split()[2], line.split()[3:]) for line in graph.splitlines() if line.split()[0] == name)
        found[f"{'' if kind == 'same' else name} {kind} {len(inputs)}"] += count
    return found


async def _mutated(states: list[tuple[str, dict[str, str]]]) -> None:
    store = SqliteCacheStore(":memory:")
    bench, oracle = Bench(store), Oracle()
    try:
        for graph, files in states:
            bench.world.files = dict(files)
            bench.world.reset()
            assert await bench.build(graph) == await _clean(graph, files)
            assert _ops(bench.world.ran, graph) == oracle.build(graph, files), states
            assert not bench.world.leaked
    finally:
        store.close()


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(edited())
def test_what_a_mutation_reaches_runs_and_nothing_else(states: list[tuple[str, dict[str, str]]]) -> None:
    """Build, mutate, build again: each build equals a clean one, and runs exactly what a plain account says."""
    asyncio.run(_mutated(states))


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.randoms(use_true_random=False))
def test_a_change_of_a_plain_graph_runs_what_stands_on_it(graph: str, chance: random.Random) -> None:
    """Where nothing is keyed by content, a changed source runs with all that stands on it, and nothing else does."""
    graph = graph.replace("!", "").replace("*", "").replace("= local", "= source").replace("= same", "= run")
    asyncio.run(_reached(graph, chance.choice([line.split()[0] for line in graph.splitlines() if "= source" in line])))


async def _reached(graph: str, changed: str) -> None:
    store = SqliteCacheStore(":memory:")
    bench = Bench(store)
    await bench.build(graph)
    bench.world.reset()
    bench.world.files[changed] = "part=1 rest=2 new"
    assert await bench.build(graph) == await _clean(graph, bench.world.files)
    reached = {changed}
    for line in graph.splitlines():
        if any(word.partition("/")[0] in reached for word in line.split()[3:]):
            reached.add(line.split()[0])
    assert set(bench.world.ran) == reached and set(bench.world.ran.values()) == {1}
    store.close()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), CONTENTS, st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(0, 8), st.integers(1, 3))
def test_failing_and_cancelled_side_by_side(
    graph: str, files: dict[str, str], steps: list[int], broken: int, limit: int
) -> None:
    """Jobs that fail, or are cancelled at any moment, leave the others, and the next, a result as from a clean build."""
    asyncio.run(asyncio.wait_for(_disturbed(graph, files, steps, broken, limit), 30))


async def _disturbed(graph: str, files: dict[str, str], steps: list[int], broken: int, limit: int) -> None:
    store = SqliteCacheStore(":memory:")
    bench = Bench(store, World(dict(files)))
    names = [line.split()[0] for line in graph.splitlines()]
    clean = await _clean(graph, files)
    if broken < len(names):
        bench.world.broken[names[broken]] = ValueError("no")
    async with bench.solver(limit) as solver:
        tasks = [asyncio.ensure_future(bench.build(graph, solver=solver, events=Events())) for _ in range(4)]
        for turn in range(max(steps)):
            await asyncio.sleep(0)
            for task, at in zip(tasks, steps, strict=False):
                if turn == at:
                    task.cancel()
        (last,) = await asyncio.gather(tasks[-1], return_exceptions=True)
        await asyncio.wait(tasks)
        if isinstance(last, StepError):
            assert "no" in str(last) and bench.world.broken
            for ref in last.inputs:
                if ref is not None:
                    await ref.release()
        else:
            assert last == clean
        for task in tasks[:-1]:
            error = None if task.cancelled() else task.exception()
            for ref in error.inputs if isinstance(error, StepError) else ():
                if ref is not None:
                    await ref.release()
        assert not bench.world.leaked and bench.world.running == 0
        bench.world.broken.clear()
        assert await bench.build(graph, solver=solver) == clean
    store.close()
    assert not bench.world.leaked and bench.world.most_running <= limit


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.randoms(use_true_random=False))
def test_jobs_that_import_lose_and_are_cancelled(graph: str, chance: random.Random) -> None:
    """Jobs at once, results lost here and elsewhere, everything at another pace: as a clean build, and nothing is left."""
    asyncio.run(asyncio.wait_for(_imported(graph, chance), 30))


async def _imported(graph: str, chance: random.Random) -> None:
    """One of three jobs is cancelled; each may import what another machine has built, of which a third is gone."""
    here, far = SqliteCacheStore(":memory:"), SqliteCacheStore(":memory:")
    world = World({f"s{i}": f"part={chance.choice('ab')} rest={chance.choice('xy')}" for i in range(3)})
    bench = Bench(here, world)
    for store in chance.choices([here, far], k=3):
        await Bench(store, world).build(graph, session=f"before {chance.random()}")
    for result in list(world.results):
        if chance.random() < 0.35:
            del world.results[result]
    world.turns = lambda: chance.choice([0, 0, 1, 3, 8])
    told = [Events() for _ in range(3)]
    async with bench.solver(chance.choice([None, 1, 2])) as solver:

        async def job(number: int) -> str:
            for _ in range(chance.randint(0, 25)):
                await asyncio.sleep(0)
            imports = [Slow(far, world)] if chance.random() < 0.6 else []
            return await bench.build(graph, solver=solver, events=told[number], cache_from=imports)

        tasks = [asyncio.ensure_future(job(number)) for number in range(3)]
        for _ in range(chance.randint(1, 60)):
            await asyncio.sleep(0)
        tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    clean = await _clean(graph, world.files)
    assert set(done[1:]) == {clean} and (done[0] == clean or isinstance(done[0], asyncio.CancelledError))
    assert not world.leaked and world.running == 0
    for events in told:
        _check_waits(events)
    here.close()
    far.close()


class Slow(Remote):
    """Takes its time for each result."""

    async def _load(self, id: str) -> Ref | None:
        await self.world.gate(f"load:{id}")
        return await super()._load(id)


def _check_waits(events: Events) -> None:
    """No output of a step begins to wait for its inputs while it does."""
    waiting: Counter[str] = Counter()
    for event in events:
        if isinstance(event, DecisionEvent) and event.phase is Phase.WAIT and event.causes == ("input",):
            waiting[event.vertex] += 1 if event.outcome == "begin" else -1
            assert waiting[event.vertex] <= 1


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.lists(st.tuples(CONTENTS, LOSSES), min_size=1, max_size=4), CONTENTS, st.integers(0, 60), edited())
def test_at_length(
    graph: str, builds: list[tuple[dict[str, str], list[int]]], files: dict[str, str], steps: int,
    states: list[tuple[str, dict[str, str]]],
) -> None:  # fmt: skip
    """As the tests above, with new random graphs each time."""
    asyncio.run(_compare(graph, builds))
    asyncio.run(_mutated(states))
    asyncio.run(asyncio.wait_for(_cancelled(graph, files, steps), 30))
    asyncio.run(asyncio.wait_for(_imported(graph, random.Random(steps)), 30))
