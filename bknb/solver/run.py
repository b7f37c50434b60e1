"""Executing a vertex: once for all that come to the same cache key, with a slot, and kept in the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Final

from bknb.digest import Digest
from bknb.errors import DefinitionError, StepError
from bknb.events import Outcome, Phase
from bknb.flight import Flight, Waits
from bknb.llb.ops import ExecOp, FileOp, SourceOp
from bknb.protocols import CacheStore, Limiter
from bknb.solver import board
from bknb.solver.graph import ActiveEdge, ActiveVertex, reaches
from bknb.solver.index import RunningIndex
from bknb.solver.job import StepJob, own_error

if TYPE_CHECKING:
    from bknb.solver.solver import Solver

SCRATCH: Final = ""
"""The result of a record whose output is empty."""

Deps = list[list[tuple[str, str]]]
"""For each input its (key, selector) pairs."""


class Runner:
    """Runs active vertices whose inputs are all there.

    Args:
        solver: whom steps may ask for nested builds.
        store: keeps what was made.
        limiter: slots of the worker.
        running: the flight of a vertex, for one that waits for its twin.
        propagate: told of vertices that have keys now.
    """

    def __init__(
        self,
        solver: Solver,
        store: CacheStore,
        limiter: Limiter,
        running: Callable[[ActiveVertex], Flight[None]],
        propagate: Callable[[ActiveVertex], None],
    ) -> None:
        self._solver = solver
        self._store = store
        self._limiter = limiter
        self._running = running
        self._propagate = propagate
        self._index = RunningIndex()

    def forget(self, active: ActiveVertex) -> None:
        """Nobody wants it any more: no twin may follow it."""
        self._index.remove(active)

    async def run(self, active: ActiveVertex) -> None:
        """Execute a vertex, or wait for its twin that does."""
        deps = _deps(active)
        twin = self._twin(active, deps)
        if twin is not None:
            await self._follow(active, twin, deps)
            return
        for digest in _digests(active):
            self._index.add(active, digest, deps)
        try:
            await self._execute(active, deps)
        except BaseException:
            if active.running is None:  # else it is flown again already
                self._index.remove(active)
            raise

    def finish(self, edge: ActiveEdge) -> None:
        """Take an output that was asked for only after its vertex had run."""
        if not edge.done:
            self._keep(edge, _deps(edge.vertex))
            self._propagate(edge.vertex)

    def _twin(self, active: ActiveVertex, deps: Deps) -> ActiveVertex | None:
        """Another vertex of the same key that runs or has run; not a cached one for one that must run."""
        for digest in _digests(active)[-1:]:
            for other in self._index.find(digest, deps):
                fits = other is not active and (other.ignore_cache or not active.ignore_cache)
                if fits and not reaches(other, active):
                    return other
        return None

    async def _follow(self, active: ActiveVertex, twin: ActiveVertex, deps: Deps) -> None:
        board.decide(active, Phase.EXECUTE, "merged", twin.vertex.digest)
        active.below += (twin,)
        for job in active.jobs:
            job.hold(twin)
        board.begin(active)
        try:
            with Waits() as waits:
                if twin.outputs is None:
                    await waits.on(self._running(twin))
        except StepError as error:
            raise board.fail(active, own_error(error)) from error.cause
        except asyncio.CancelledError:
            if active.running is None:
                board.complete(active, Outcome.CANCELLED)
            raise
        assert twin.outputs is not None
        active.outputs = tuple(ref.clone() if ref is not None else None for ref in twin.outputs)
        self._done(active, deps, Outcome.MERGED)

    async def _execute(self, active: ActiveVertex, deps: Deps) -> None:
        inputs = tuple(given.ref.clone() if given.ref is not None else None for given in active.inputs)
        job = StepJob(self._solver, active)
        try:
            if (refusal := _refusal(active)) is not None:
                raise refusal
            async with AsyncExitStack() as stack:
                if isinstance(active.vertex.op, ExecOp | FileOp | SourceOp):
                    job.slots = stack
                    await self.take_slots(job, active)
                board.begin(active)
                board.decide(active, Phase.EXECUTE, "begin")
                outputs = await active.operation.exec(job, inputs)
            active.outputs = tuple(outputs)
            self._done(active, deps, Outcome.RAN)
        except asyncio.CancelledError:
            if active.running is None and active.status.started is not None:
                board.complete(active, Outcome.CANCELLED)
            raise
        except Exception as error:
            raise board.fail(active, error, inputs) from error
        finally:
            for ref in inputs:
                if ref is not None:
                    await ref.release()

    async def take_slots(self, job: StepJob, active: ActiveVertex) -> None:
        """One of the job's and one of the worker's, always in this order."""
        assert job.slots is not None
        for limiter in (*(job_.slots for job_ in list(active.jobs)[:1]), self._limiter):
            with job.waiting("slot") if limiter.full else nullcontext():
                await job.slots.enter_async_context(limiter.slot())

    def _done(self, active: ActiveVertex, deps: Deps, outcome: Outcome) -> None:
        """Its outputs are there: keep those that anyone wants."""
        for edge in active.edges.values():
            self._keep(edge, deps)
        board.complete(active, outcome)
        self._propagate(active)

    def _keep(self, edge: ActiveEdge, deps: Deps) -> None:
        active = edge.vertex
        assert active.outputs is not None and active.map is not None
        if edge.index >= len(active.outputs):
            raise DefinitionError(
                f"{active.vertex!r} has {len(active.outputs)} outputs, not one of number {edge.index}"
            )
        ref = active.outputs[edge.index]
        self._store.note(active.map.digest, active.map.plaintext)
        for dep in active.map.deps:
            if dep.selector is not None and dep.plaintext:
                self._store.note(dep.selector, dep.plaintext)
        result = SCRATCH if ref is None else ref.id
        keys = tuple(
            self._store.save(digest, edge.index, deps, result, vertex=active.vertex.digest)
            for digest in _digests(active)
        )
        if not active.ignore_cache:
            edge.keys |= frozenset(keys)
        edge.finish(ref, keys)


def _refusal(active: ActiveVertex) -> Exception | None:
    """Why nobody lets a vertex run; None if one of the jobs that want it does."""
    refusals = [job.refuse(active.vertex) for job in active.jobs]
    return refusals[0] if refusals and all(refusals) else None


def _digests(active: ActiveVertex) -> Sequence[Digest]:
    """What its result is kept under: a source's under every key that it was asked for."""
    return active.digests[-1:] if active.inputs else active.digests


def _deps(active: ActiveVertex) -> Deps:
    """For each input the keys of its result, with their selector, and of its content."""
    assert active.map is not None
    deps: Deps = []
    for number, (given, dep) in enumerate(zip(active.inputs, active.map.deps, strict=True)):
        deps.append([(key, dep.selector or "") for key in given.result_keys])
        if number in active.content:
            deps[number].append((active.content[number], ""))
    return deps
