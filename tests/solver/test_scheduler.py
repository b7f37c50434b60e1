"""The cases of BuildKit's solver/scheduler_test.go that stand in no other file here; `counterparts.toml` lists all."""

from __future__ import annotations

import asyncio
import random

import pytest

from bknb.cache.store import SqliteCacheStore
from bknb.errors import StepError
from bknb.solver import Solver
from bknb.solver.job import Job
from tests.fakes import Events, FakeRef, FakeSession, parse
from tests.solver.conftest import Bench


class Jobs:
    """Requests that are served until they are told to end, as a frontend's are."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self.open: dict[str, Job] = {}

    async def build(self, name: str, graph: str) -> str:
        """Have a job build the last vertex of a graph; it keeps what it built."""
        if name not in self.open:
            self.open[name] = self.solver.job(name, FakeSession(), Events().append)
        ref = await self.open[name].solve(list(parse(graph).values())[-1])
        assert isinstance(ref, FakeRef)
        value = ref.value
        await ref.release()
        return value

    async def end(self, *names: str) -> None:
        """Let go of all that only these wanted."""
        for name in names:
            async with self.open.pop(name):
                pass


async def test_a_vertex_is_shared_until_the_last_job_ends(bench: Bench) -> None:
    """While any job holds a vertex, others get it without a question; afterwards the cache is asked."""
    graph = "v = source\n"
    async with bench.solver() as solver:
        jobs = Jobs(solver)
        assert await jobs.build("0", graph) == await jobs.build("1", graph) == "v"
        await jobs.end("0")
        assert await jobs.build("2", graph) == "v"
        assert bench.world.mapped == bench.world.ran == {"v": 1} and not bench.world.loaded
        await jobs.end("1", "2")
        assert not bench.world.leaked and len(solver._graph) == 0
        assert await jobs.build("3", graph) == "v"
        assert bench.world.mapped == {"v": 2} and bench.world.loaded.total() == 1
        await jobs.end("3")


async def test_the_key_counts_and_not_the_name(bench: Bench) -> None:
    """Another vertex of the same key is a hit; one of another key is not."""
    await bench.build("base = source\np = same base\n")
    assert await bench.build("base = source\nr = run base\n") == "r(base)"
    bench.world.reset()
    assert await bench.build("base = source\nq = same base\n") == "same(base)"
    assert not bench.world.ran and bench.world.loaded.total() == 1


@pytest.mark.parametrize("above", ["", "{0} = same {1}\n"], ids=["one level", "two levels"])
async def test_jobs_of_one_key_run_once(bench: Bench, above: str) -> None:
    """Two jobs whose different vertices have one key, asked for at the same time, run it once on each level."""
    bench.world.files |= {"x": "k", "y": "k"}
    for name in "xy":
        bench.world.gates[f"map:{name}"] = asyncio.Event()
    async with bench.solver() as solver, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                bench.build(f"{x} = image\n" + above.format(p, x), solver=solver, events=Events())
            )
            for p, x in ("px", "qy")
        ]
        for name in "xy":
            await bench.world.reached(f"map:{name}")
        for name in "xy":
            bench.world.gates[f"map:{name}"].set()
    assert tasks[0].result() == tasks[1].result() == ("same(k)" if above else "k")
    assert bench.world.mapped == {"x": 2, "y": 2}, "each source is asked for its two keys"
    assert bench.world.ran.total() == (2 if above else 1) and not bench.world.leaked


async def test_cancelled_while_another_waits_for_the_same_key(bench: Bench) -> None:
    """A job that ends while a source is asked leaves the question to who still waits: it is asked once."""
    bench.world.gates["map:v"] = asyncio.Event()
    async with bench.solver() as solver:
        first = asyncio.ensure_future(bench.build("v = source\n", solver=solver, events=Events()))
        await bench.world.reached("map:v")
        second = asyncio.ensure_future(bench.build("v = source\n", solver=solver, events=Events()))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        bench.world.gates["map:v"].set()
        assert await second == "v"
    assert bench.world.mapped == bench.world.ran == {"v": 1}


async def test_a_result_is_what_its_inputs_make(bench: Bench) -> None:
    """Equal parts of a graph count as often as they stand in it, run once, and come from the cache the same."""
    graph = "a = source\nb = source\np = same a b\nq = same a b\nz = source\ntop = run p q b b z\n"
    for _ in range(2):
        assert await bench.build(graph) == "top(same(a, b), same(a, b), b, b, z)"
    assert bench.world.ran["p"] + bench.world.ran["q"] == 1 and bench.world.ran.total() == 5


async def test_a_huge_graph(bench: Bench) -> None:
    """Of a thousand vertices each is asked and run once; the second time none runs and one result is loaded."""
    chance = random.Random(7)
    lines = [f"v{n} = source" for n in range(50)]
    for n in range(50, 999):
        below = chance.sample(range(max(0, n - 120), n), chance.randint(1, 4))
        lines.append(f"v{n} = run " + " ".join(f"v{m}" for m in below))
    used = {word for line in lines for word in line.split()[3:]}
    lines.append("top = run " + " ".join(name for n in range(999) if (name := f"v{n}") not in used))
    graph = "\n".join(lines)
    await bench.build(graph)
    assert bench.world.mapped.total() == 50 and bench.world.ran.total() == 1000 and not bench.world.loaded
    bench.world.reset()
    await bench.build(graph)
    assert bench.world.mapped.total() == 50 and not bench.world.ran and bench.world.loaded.total() == 1


@pytest.mark.parametrize("first", ["x", "x/part*"], ids=["by definition", "by either"])
async def test_inputs_that_match_are_not_loaded(bench: Bench, first: str) -> None:
    """When one input is new but has the old content, the other one is neither loaded nor looked at."""
    graph = f"x = source\ny = source\nv = run {first} y/part*\n"
    bench.world.files |= {"x": "part=1 a", "y": "part=2 a"}
    made = await bench.build(graph)
    bench.world.reset()
    bench.world.files["y"] = "part=2 b"
    assert await bench.build(graph) == made
    assert bench.world.ran == {"y": 1} and bench.world.hashed == {"v": 1} and bench.world.loaded.total() == 1
    if first != "x":
        bench.world.reset()
        bench.world.files |= {"x": "part=1 c", "y": "part=2 c"}
        assert await bench.build(graph) == made, "both are looked at when both are new"
        assert bench.world.ran == {"x": 1, "y": 1} and bench.world.hashed == {"v": 2}


async def test_a_source_that_cannot_be_asked(bench: Bench) -> None:
    """The error of a source's key is that of its own vertex, and of nothing beside it."""
    bench.world.broken["map:x"] = ValueError("no such tag")
    with pytest.raises(StepError, match=r"^x: no such tag$"):
        await bench.build("x = source\ny = source\nv = run x y\n")
    outcomes = bench.events.outcomes()
    assert outcomes["x"] == "failed" and outcomes["v"] == "" and not bench.world.leaked


async def test_a_source_that_gives_up(bench: Bench) -> None:
    """A source that says it was cancelled, though no job was, ends the job that asked and hangs nobody."""
    bench.world.broken["map:x"] = asyncio.CancelledError()
    async with bench.solver() as solver:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(bench.build("x = source\ny = source\nv = run x y\n", solver=solver), 10)
        del bench.world.broken["map:x"]
        assert await bench.build("x = source\ny = source\nv = run x y\n", solver=solver) == "v(x, y)"
    assert not bench.world.leaked


async def test_forced_vertices_of_one_key(bench: Bench) -> None:
    """A forced vertex does not merge with a plain one that has run; another forced one merges with it; so does a plain one."""
    async with bench.solver() as solver:
        jobs = Jobs(solver)
        await jobs.build("plain", "base = source\np = same base\n")
        await jobs.build("forced", "base = source\nq = same! base\n")
        assert bench.world.ran == {"base": 1, "p": 1, "q": 1}
        await jobs.build("forced too", "base = source\nr = same! base\n")
        await jobs.build("plain too", "base = source\ns = same base\n")
        assert bench.world.ran == {"base": 1, "p": 1, "q": 1}
        await jobs.end(*list(jobs.open))
    assert not bench.world.leaked


async def test_a_nested_build_is_cached_with_its_vertex(bench: Bench) -> None:
    """What a vertex builds inside of itself is not even asked for when the vertex is cached."""
    bench.world.nested["sub"] = [parse("seven = source\n")["seven"]]
    graph = "base = source\nsub = run base\nsum = run sub\n"
    first = await bench.build(graph)
    assert bench.world.ran == {"base": 1, "seven": 1, "sub": 1, "sum": 1}
    bench.world.reset()
    assert await bench.build(graph) == first
    assert not bench.world.ran and bench.world.mapped == {"base": 1}


async def test_another_selector_of_the_same_content(bench: Bench) -> None:
    """A selector that was not seen before is a miss by definition, and a hit where it selects equal content."""
    bench.world.files["x"] = "one=1 two=1 three=3"
    first = await bench.build("x = source\nc = copy x/one*\n")
    bench.world.reset()
    assert await bench.build("x = source\nc = copy x/two*\n") == first
    assert bench.world.hashed == {"c": 1} and not bench.world.ran
    assert bench.world.loaded.total() == 2, "the input, to be looked at, and the result"
    assert await bench.build("x = source\nc = copy x/three*\n") != first


@pytest.mark.parametrize("attempt", range(5))
async def test_equal_vertices_on_several_levels(bench: Bench, attempt: int) -> None:
    """A vertex whose twin stands deeper in the same graph is found while that one runs."""
    graph = "c = source\nz = source\np = same c\nq = same p z\nr = same c\ntop = run q r\n"
    for name in "cz"[: attempt % 3]:
        bench.world.gates[name] = asyncio.Event()
        bench.world.gates[name].set()
    assert await bench.build(graph) == "top(same(same(c), z), same(c))"
    assert bench.world.ran["p"] + bench.world.ran["r"] == 1 and not bench.world.loaded
    assert not bench.world.leaked


@pytest.mark.parametrize("order", ["va:1 vb va vb:1", "vb va vc:1 va:1 va:2 vb:2", "vc vb:1 va:2 vc:1 va vb"])
async def test_twins_with_several_outputs_make_no_circle(bench: Bench, order: str) -> None:
    """Twins of which different outputs are wanted in crossed order wait for one run, never for each other."""
    names = sorted({word.partition(":")[0] for word in order.split()})
    graph = (
        "x = source\ny = source\n"
        + "".join(f"{name} = same x y\n" for name in names)
        + f"top = run {order}\n"
    )
    made = await asyncio.wait_for(bench.build(graph), 10)
    outputs = [word.partition(":")[2] for word in order.split()]
    assert made == f"top({', '.join('same(x, y)' + (':' + n if n else '') for n in outputs)})"
    assert sum(bench.world.ran[name] for name in names) == 1 and not bench.world.leaked


async def test_inputs_known_from_different_builds(bench: Bench) -> None:
    """A vertex whose inputs were both seen, but not together, looks at content, runs, and does not hang."""
    await bench.build("v1 = source\nv2 = source\nv0 = run v1 v2\n")
    await bench.build("w1 = source\nw2 = source\nv0 = run w1 w2\n")
    bench.world.reset()
    assert (
        await asyncio.wait_for(bench.build("v1 = source\nw2 = source\nv0 = run v1 w2*\n"), 10) == "v0(v1, w2)"
    )
    assert bench.world.ran == {"v0": 1}


async def test_twins_live_as_long_as_a_job_wants_one(bench: Bench) -> None:
    """What a job follows lives on when the job that ran it ends, is followed by later ones, and goes with the last."""
    graphs = [f"x{n} = image\nv{n} = same x{n}\n" for n in range(3)]
    bench.world.files |= {f"x{n}": "k" for n in range(3)}
    async with bench.solver() as solver:
        jobs = Jobs(solver)
        for n in range(2):
            assert await jobs.build(f"j{n}", graphs[n]) == "same(k)"
        await jobs.end("j0")
        assert await jobs.build("j2", graphs[2]) == "same(k)"
        assert bench.world.ran == {"x0": 1, "v0": 1}
        await jobs.end("j1")
        assert bench.world.leaked and len(solver._graph) > 0
        await jobs.end("j2")
        assert len(solver._graph) == 0 and not bench.world.leaked


def _walk(store: SqliteCacheStore, result: str) -> tuple[int, int]:
    """Keys that lead to a result, as one walks who writes the cache out, and how many of them have results."""
    stack, seen = list(store.keys_of(result)), set[str]()
    while stack:
        key = stack.pop()
        if key not in seen:
            seen.add(key)
            stack += [link[0] for link in store.leading_to(key)]
    return len(seen), sum(bool(store.records(key)) for key in seen)


def _result(bench: Bench, value: str) -> str:
    return next(id for id, text in bench.world.results.items() if text == value)


async def test_keys_for_export(bench: Bench) -> None:
    """From a result one comes to the key of each input, after a build that ran and after one that was cached."""
    graph = "a = source\nb = source\nv = run a b\n"
    for _ in range(2):
        made = _result(bench, await bench.build(graph))
        assert _walk(bench.store, made) == (3, 3)
        (key,) = bench.store.keys_of(made)
        assert [link[1] for link in bench.store.leading_to(key)] == [0, 1]


async def test_keys_for_export_by_selector_and_content(bench: Bench) -> None:
    """A step found by a selector and by content has both ways; a new source adds one; what stands on it adds one."""
    bench.world.files |= {"x": "sel=1 a"}
    graph = "x = source\nv = copy x/sel*\n"
    made = _result(bench, await bench.build(graph))
    assert _walk(bench.store, made)[0] == 3, "the source's key, the content's, its own"
    bench.world.files["x"] = "sel=1 b"
    await bench.build(graph)
    assert _walk(bench.store, made)[0] == 4
    above = _result(bench, await bench.build(graph + "w = run v\n"))
    assert _walk(bench.store, above)[0] == 5


async def test_keys_for_export_of_merged_vertices(bench: Bench) -> None:
    """Two vertices that content has shown to be one have one key, to which both sources lead."""
    bench.world.files |= {"x": "part=k 1", "y": "part=k 2"}
    graph = "x = source\ny = source\np = same x/part*\nq = same y/part*\nv = run p q\n"
    made = _result(bench, await bench.build(graph))
    assert bench.world.ran["p"] + bench.world.ran["q"] == 1
    assert _walk(bench.store, made)[0] == 5, "two sources, one content, one key for both, and the top"
