"""Jobs that do not let a step run: it fails instead, unless another job wants it run."""

from __future__ import annotations

import asyncio

import pytest

from bknb.builder.misses import check
from bknb.errors import MissError, StepError
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.solver import Solver
from bknb.solver.job import Job
from tests.fakes import FakeSession, FakeWorker, decode, parse
from tests.solver.conftest import Bench

GRAPH = "base = source\nlow = run base\ntop = run low\n"


def refuse(vertex: Vertex) -> MissError | None:
    """All but sources."""
    return None if isinstance(vertex.op, SourceOp) else MissError(f"{decode(vertex)[1]} is not cached")


def job(solver: Solver, name: str) -> Job:
    """A job of a client without files."""
    return solver.job(name, FakeSession(), lambda event: None)


async def test_a_refused_step_does_not_run(bench: Bench) -> None:
    """It fails with what was said; its sources were looked at, nothing else was."""
    async with bench.solver() as solver, job(solver, "one") as one:
        one.refuse = refuse
        with pytest.raises(StepError, match="low is not cached"):
            await one.solve(parse(GRAPH)["top"])
    assert bench.world.ran == {"base": 1}


async def test_what_is_cached_is_not_refused(bench: Bench) -> None:
    """A job that lets nothing run is served from the cache."""
    await bench.build(GRAPH)
    bench.world.reset()
    async with bench.solver() as solver, job(solver, "one") as one:
        one.refuse = refuse
        ref = await one.solve(parse(GRAPH)["top"])
        assert ref is not None
        await ref.release()
        check(one.graph)
    assert not bench.world.ran


async def test_another_job_may_run_it(bench: Bench) -> None:
    """A step that somebody wants run runs; who refused it takes the result, and can tell that it was not cached."""
    edge = parse(GRAPH)["top"]
    gate = bench.world.gates["base"] = asyncio.Event()
    async with Solver(FakeWorker(bench.world), bench.store) as solver, job(solver, "one") as one:
        one.refuse = refuse
        async with job(solver, "two") as two:
            solving = [asyncio.ensure_future(each.solve(edge)) for each in (one, two)]
            await bench.world.reached("base")
            gate.set()
            for ref in await asyncio.gather(*solving):
                assert ref is not None
                await ref.release()
            with pytest.raises(MissError, match="another build ran it"):
                check(one.graph)
    assert bench.world.ran["top"] == 1


async def test_a_refusal_is_forgotten(bench: Bench) -> None:
    """The next job that allows it has it run, on the same solver."""
    async with bench.solver() as solver:
        async with job(solver, "one") as one:
            one.refuse = refuse
            with pytest.raises(StepError) as failure:
                await one.solve(parse(GRAPH)["top"])
            for ref in failure.value.inputs:
                await ref.release()
        assert "low" in await bench.build(GRAPH, solver=solver)
    assert not bench.world.leaked
