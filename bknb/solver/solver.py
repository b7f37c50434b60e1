"""Results for what the sweep did not find: load, or realise the inputs and execute.

Every piece of work is a `Flight` in the solver's own task group, so that jobs come and go without disturbing
each other:

- `_mapping(source)`: ask a source for its cache maps, cheap first, until one of them hits;
- `_realising(vertex, i)`: realise input i, prepare it, and compute its content key;
- `_solving(edge)`: the result of an edge, from the cache or by
- `_running(vertex)`: executing it, once for all vertices that come to the same cache key.

Invariant: a slot is held only around `Operation.exec` of an op that never waits for another vertex, so that
one slot is enough for any graph.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Final

from bknb.digest import Digest
from bknb.errors import BknbError, DefinitionError, StepError
from bknb.events import Emit, Outcome, Phase
from bknb.flight import Flight, Waits
from bknb.keys.cachekey import CONTENT, root_key
from bknb.llb.ops import ExecOp, FileOp, SourceOp
from bknb.llb.vertex import Edge
from bknb.protocols import CacheRecord, CacheStore, Limiter, Ref, Session, Worker
from bknb.solver.graph import ActiveEdge, ActiveGraph, ActiveVertex, RunningIndex, reaches
from bknb.solver.job import Describe, Job, Slots, Status, StepJob, describe, own_error
from bknb.solver.sweep import Wanted, frontier, propagate, sweep

CLEANUP_SECONDS: Final = 10.0
"""How long the end of a job may take to stop what nobody wants any more, and to let go of its results."""

SCRATCH: Final = ""
"""The result of a record whose output is empty."""


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through all that is being made, none of which is garbage.

    Without it, it takes two thirds of a cached solve of 10,000 vertices.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Solver:
    """Serves jobs; an async context manager, entered where it shall run.

    Args:
        worker: gives vertices their operations, and results of the cache their life.
        store: the cache.
        limiter: slots for all jobs together.
    """

    def __init__(self, worker: Worker, store: CacheStore, *, limiter: Limiter | None = None) -> None:
        self._worker = worker
        self._store = store
        self._limiter: Limiter = limiter or Slots()
        self._graph = ActiveGraph(worker.resolve, Status)
        self._index = RunningIndex()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Solver:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def _spawn(self, body: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def job(
        self, id: str, session: Session, emit: Emit, *, ignore_cache: bool | Collection[Digest] = False,
        parallelism: int | None = None, describe: Describe = describe,
    ) -> Job:  # fmt: skip
        """A request to be served: ``async with solver.job(...) as job: ref = await job.solve(edge)``.

        Args:
            id: of the build.
            session: asked for files and secrets.
            emit: takes the events.
            ignore_cache: run all vertices although the cache has them, or those with these digests.
            parallelism: how many steps of this job may run at once; None for no limit.
            describe: gives the fields of a vertex's events that are known beforehand.
        """
        return Job(
            self, id, session, emit, ignore_cache=ignore_cache, slots=Slots(parallelism), describe=describe
        )

    # --- from edges to flights ----------------------------------------------------------------------------

    async def solve_edges(
        self, jobs: Sequence[Job], edges: Sequence[Edge], nested: ActiveVertex | None
    ) -> tuple[Ref | None, ...]:
        """Build edges for some jobs; `nested` is the vertex that asks, if one does."""
        targets = self._attach(jobs, edges)
        if nested is not None:
            for target in targets:
                if reaches(target.vertex, nested):
                    raise DefinitionError(
                        f"{nested.status.note or nested.vertex!r}: its nested build would wait for itself"
                    )
                nested.below[target.vertex] = None
        with Waits() as waits:
            pending = [edge for edge in targets if not edge.done]
            for edge in pending:
                waits.join(self._solving(edge))
            while any(not edge.done for edge in pending):
                await waits.change()
        return tuple(edge.ref.clone() if edge.ref is not None else None for edge in targets)

    def _attach(self, jobs: Sequence[Job], edges: Sequence[Edge]) -> list[ActiveEdge]:
        """Make the graph active, ask the cache about all of it at once, and show what came out."""
        self._store.refresh()
        with _no_collection():
            return self._sweep(jobs, edges)

    def _sweep(self, jobs: Sequence[Job], edges: Sequence[Edge]) -> list[ActiveEdge]:
        pairs = self._graph.load(edges, jobs[0].ignores)
        targets = [pairs[edge.vertex.digest][1].edge(edge.index) for edge in edges]
        new = [
            (job, active) for vertex, active in pairs.values() for job in jobs if job.attach(vertex, active)
        ]
        for edge in sweep((active for _, active in pairs.values()), self._store):
            self._mark_hit(edge)
        for job, active in new:
            job.show(active)
            for event in active.status.replay():
                job.receive(active, event)
            hit = next((edge for edge in active.edges.values() if edge.records), None)
            if hit is not None:
                job.decide(active, Phase.KEY, "hit", (hit.records[0].key, hit.records[0].result))
        return targets

    def show(self, active: ActiveVertex) -> None:
        """Emit a vertex as it is now, to all jobs that show it."""
        for job in list(active.jobs):
            job.show(active)

    def _mark_hit(self, edge: ActiveEdge) -> None:
        """The cache has it: that is its outcome, unless it turns out to be gone."""
        status = edge.vertex.status
        if status.outcome is not None:
            return
        record = edge.records[0]
        if record.remote:
            status.outcome = Outcome.REMOTE
        else:
            status.outcome = Outcome.CONTENT if record.key in edge.by_content else Outcome.DEFINITION
        status.solver_digest = record.key
        status.completed = time.time()
        if status.started is None:
            status.started = status.completed

    def _hit(self, edge: ActiveEdge) -> None:
        if edge.vertex.status.outcome is None:
            self._mark_hit(edge)
            record = edge.records[0]
            phase = Phase.CONTENT if record.key in edge.by_content else Phase.KEY
            self.show(edge.vertex)
            self._decide(edge.vertex, phase, "hit", record.key, record.result)

    def _decide(self, active: ActiveVertex, phase: Phase, outcome: str, *causes: str) -> None:
        for job in list(active.jobs):
            job.decide(active, phase, outcome, causes)

    def _propagate(self, active: ActiveVertex, *numbers: int) -> None:
        propagate(active, self._store, self._hit, numbers or None)

    def _flight(
        self, body: Callable[[], Coroutine[Any, Any, None]], forget: Callable[[], None]
    ) -> Flight[None]:
        def ended(flight: Flight[None]) -> None:
            forget()
            if flight.task is not None:
                self._ending.add(flight.task)
                flight.task.add_done_callback(self._ending.discard)

        return Flight(self._spawn, body, ended)

    def _solving(self, edge: ActiveEdge) -> Flight[None]:
        if edge.solving is None:
            edge.solving = self._flight(lambda: self._solve(edge), lambda: setattr(edge, "solving", None))
        return edge.solving

    def _mapping(self, active: ActiveVertex) -> Flight[None]:
        if active.mapping is None:
            active.mapping = self._flight(lambda: self._map(active), lambda: setattr(active, "mapping", None))
        return active.mapping

    def _realising(self, active: ActiveVertex, number: int) -> Flight[None]:
        found = active.realising[number]
        if found is None:
            found = active.realising[number] = self._flight(
                lambda: self._realise(active, number), lambda: active.realising.__setitem__(number, None)
            )
        return found

    def _running(self, active: ActiveVertex) -> Flight[None]:
        if active.running is None:
            active.running = self._flight(lambda: self._run(active), lambda: setattr(active, "running", None))
        return active.running

    def _wanted(self, wanted: Wanted) -> Flight[None]:
        active, number = wanted
        return self._mapping(active) if number < 0 else self._realising(active, number)

    # --- the flights --------------------------------------------------------------------------------------

    async def _solve(self, edge: ActiveEdge) -> None:
        """The result of an edge: from the cache if anything leads to it, else by running its vertex."""
        active = edge.vertex
        joined = False
        with Waits() as waits:
            while not edge.done:
                if edge.records:
                    await self._load(edge)
                elif not edge.closed:
                    for item in frontier(edge):
                        waits.join(self._wanted(item))
                    await waits.change()
                elif active.unready or not active.mapped:
                    if not joined:
                        joined = True
                        self._say_miss(edge)
                        self._join_inputs(active, waits)
                    await waits.change()
                else:
                    if not joined:
                        self._say_miss(edge)
                    break
            if joined and active.inputs:
                self._decide(active, Phase.WAIT, "end", "input")
            if not edge.done:
                await waits.on(self._running(active))
                self._finish_run(edge)

    def _join_inputs(self, active: ActiveVertex, waits: Waits) -> None:
        """Have everything realised that a vertex needs to run."""
        if not active.mapped:
            waits.join(self._mapping(active))
        if active.inputs:
            self._decide(active, Phase.WAIT, "begin", "input")
        for number, ready in enumerate(active.ready):
            if not ready:
                waits.join(self._realising(active, number))

    def _say_miss(self, edge: ActiveEdge) -> None:
        active = edge.vertex
        if active.ignore_cache:
            self._decide(active, Phase.KEY, "ignored")
            return
        assert active.map is not None
        unmatched = [f"input:{number}" for number, found in enumerate(edge.found) if not found]
        phase = Phase.CONTENT if any(active.content) else Phase.KEY
        self._decide(active, phase, "miss", active.map.digest, *unmatched)

    async def _map(self, active: ActiveVertex) -> None:
        """Ask a source for its keys until one hits, or there are no more."""
        status = active.status
        status.started = time.time()
        self.show(active)
        try:
            async for cache_map in active.operation.cache_maps(StepJob(self, active)):
                active.set_map(cache_map)
                self._store.note(cache_map.digest, cache_map.plaintext)
                active.mapped = cache_map.final
                self._propagate(active)
                if any(edge.records for edge in active.edges.values()) or active.mapped:
                    break
        except Exception as error:
            raise self._failed(active, error) from error
        finally:
            if not active.mapped and not any(edge.records for edge in active.edges.values()):
                active.digests.clear()
                active.map = None
        if active.map is None:
            raise self._failed(active, DefinitionError(f"{active.vertex!r} has no cache key"))
        # A source that hit with a cheap key has said all that is needed of it.
        active.mapped = True
        self._propagate(active)
        if not any(edge.records for edge in active.edges.values()):
            status.started = None
            self.show(active)

    async def _realise(self, active: ActiveVertex, number: int) -> None:
        """Realise one input, prepare it, and compute its content key where there is one."""
        given = active.inputs[number]
        with Waits() as waits:
            while not given.done:
                await waits.on(self._solving(given))
        assert active.map is not None
        dep = active.map.deps[number]
        if dep.preprocess is not None or dep.content is not None:
            job = StepJob(self, active)
            held = given.ref.clone() if given.ref is not None else None
            try:
                if dep.preprocess is not None:
                    await dep.preprocess(job, held)
                if dep.content is not None:
                    with job.waiting("content-hash"):
                        digest = await dep.content(job, held)
                    self._connect(active, number, digest)
            except Exception as error:
                raise self._failed(active, error) from error
            finally:
                if held is not None:
                    await held.release()
        active.ready[number] = True
        active.unready -= 1
        self._propagate(active, number)

    def _connect(self, active: ActiveVertex, number: int, content_digest: Digest) -> None:
        """Content is known: what it leads to, the definition of the same input leads to from now on."""
        assert active.map is not None
        selector = active.map.deps[number].selector or ""
        content = active.content[number] = root_key(content_digest, CONTENT)
        given = active.inputs[number]
        sources = [(key, selector) for key in given.result_keys] + [(content, "")]
        if not active.ignore_cache:
            for edge in active.edges.values():
                digest = active.map.digest
                known = frozenset[str]().union(
                    *(self._store.targets(key, number, edge.index, digest, selector) for key in given.keys)
                )
                edge.by_content |= self._store.connect(sources, number, edge.index, digest) - known

    async def _load(self, edge: ActiveEdge) -> None:
        """Take the best record; one whose result is gone is forgotten, and the edge looked at again."""
        active, record = edge.vertex, edge.records[0]
        ref: Ref | None = None
        if record.result != SCRATCH:
            try:
                ref = await (record.load() if record.load is not None else self._worker.load(record.result))
            except BknbError as error:
                self._decide(active, Phase.LOAD, "lost", record.key, record.result, str(error))
            if ref is None:
                self._lost(edge, record)
                return
        edge.ref, edge.result_keys = ref, (record.key,)
        edge.done = edge.closed = True
        self._decide(active, Phase.LOAD, "loaded", record.key, record.result)

    def _lost(self, edge: ActiveEdge, record: CacheRecord) -> None:
        active = edge.vertex
        self._decide(active, Phase.LOAD, "lost", record.key, record.result)
        self._store.forget(record.result)
        edge.records, edge.closed = (), False
        status = active.status
        status.outcome = status.started = status.completed = None
        self._propagate(active)
        self.show(active)

    # --- running ------------------------------------------------------------------------------------------

    async def _run(self, active: ActiveVertex) -> None:
        """Execute a vertex whose inputs are all there, or wait for its twin that does."""
        assert active.map is not None
        deps = self._deps(active)
        twin = self._twin(active, deps)
        if twin is not None:
            await self._follow(active, twin)
            return
        digests = active.digests if not deps else [active.map.digest]
        for digest in digests:
            self._index.add(active, digest, deps)
        try:
            await self._execute(active, deps, digests)
        except BaseException:
            if active.running is None:  # else it is flown again already
                self._index.remove(active)
            raise

    def _deps(self, active: ActiveVertex) -> list[list[tuple[str, str]]]:
        """For each input the keys of its result, with their selector, and of its content."""
        assert active.map is not None
        deps = []
        for given, dep, content in zip(active.inputs, active.map.deps, active.content, strict=True):
            pairs = [(key, dep.selector or "") for key in given.result_keys]
            if content is not None:
                pairs.append((content, ""))
            deps.append(pairs)
        return deps

    def _twin(self, active: ActiveVertex, deps: list[list[tuple[str, str]]]) -> ActiveVertex | None:
        """Another vertex of the same key that runs or has run; not a cached one for one that must run."""
        for digest in active.digests if not deps else active.digests[-1:]:
            for other in self._index.find(digest, deps):
                fits = other is not active and (other.ignore_cache or not active.ignore_cache)
                if fits and not reaches(other, active):
                    return other
        return None

    async def _follow(self, active: ActiveVertex, twin: ActiveVertex) -> None:
        self._decide(active, Phase.EXECUTE, "merged", twin.vertex.digest)
        active.below[twin] = None
        for job in active.jobs:
            job.hold(twin)
        active.status.started = time.time()
        self.show(active)
        with Waits() as waits:
            if twin.outputs is None:
                try:
                    await waits.on(self._running(twin))
                except StepError as error:
                    raise self._failed(active, own_error(error)) from error.cause
        assert twin.outputs is not None
        active.outputs = tuple(ref.clone() if ref is not None else None for ref in twin.outputs)
        for index in list(active.edges):
            self._keep(active.edges[index], self._save(active, index, self._deps(active)))
        self._complete(active, Outcome.MERGED)

    async def _execute(
        self, active: ActiveVertex, deps: list[list[tuple[str, str]]], digests: Sequence[Digest]
    ) -> None:
        inputs = tuple(given.ref.clone() if given.ref is not None else None for given in active.inputs)
        job = StepJob(self, active)
        try:
            async with AsyncExitStack() as stack:
                if isinstance(active.vertex.op, ExecOp | FileOp | SourceOp):
                    await self._take_slot(job, active, stack)
                active.status.started, active.status.outcome = time.time(), None
                self.show(active)
                self._decide(active, Phase.EXECUTE, "begin")
                outputs = await active.operation.exec(job, inputs)
            active.outputs = tuple(outputs)
            for edge in active.edges.values():
                self._keep(edge, self._save(active, edge.index, deps))
            self._complete(active, Outcome.RAN)
        except asyncio.CancelledError:
            if active.running is None and active.status.started is not None:
                self._complete(active, Outcome.CANCELLED)
            raise
        except Exception as error:
            raise self._failed(active, error, inputs) from error
        finally:
            for ref in inputs:
                if ref is not None:
                    await ref.release()

    async def _take_slot(self, job: StepJob, active: ActiveVertex, stack: AsyncExitStack) -> None:
        for limiter in (*(job_.slots for job_ in list(active.jobs)[:1]), self._limiter):
            with job.waiting("slot") if limiter.full else nullcontext():
                await stack.enter_async_context(limiter.slot())

    def _save(self, active: ActiveVertex, index: int, deps: list[list[tuple[str, str]]]) -> tuple[str, ...]:
        """Keep one output in the cache; returns its keys."""
        assert active.outputs is not None and active.map is not None
        if index >= len(active.outputs):
            raise DefinitionError(
                f"{active.vertex!r} has {len(active.outputs)} outputs, not one of number {index}"
            )
        ref = active.outputs[index]
        result = SCRATCH if ref is None else ref.id
        self._store.note(active.map.digest, active.map.plaintext)
        for dep in active.map.deps:
            if dep.selector is not None and dep.plaintext:
                self._store.note(dep.selector, dep.plaintext)
        digests = [active.map.digest] if deps else active.digests
        return tuple(
            self._store.save(digest, index, deps, result, vertex=active.vertex.digest) for digest in digests
        )

    def _keep(self, edge: ActiveEdge, keys: tuple[str, ...]) -> None:
        """An output is there."""
        assert edge.vertex.outputs is not None
        edge.ref, edge.result_keys = edge.vertex.outputs[edge.index], keys
        if not edge.vertex.ignore_cache:
            edge.keys |= frozenset(keys)
        edge.done = edge.closed = True

    def _finish_run(self, edge: ActiveEdge) -> None:
        """An output that was asked for only after its vertex had run."""
        if not edge.done:
            self._keep(edge, self._save(edge.vertex, edge.index, self._deps(edge.vertex)))
            self._propagate(edge.vertex)

    def _complete(self, active: ActiveVertex, outcome: Outcome) -> None:
        status = active.status
        status.completed, status.outcome = time.time(), outcome
        keys = next((edge.result_keys for edge in active.edges.values() if edge.result_keys), ())
        status.solver_digest = keys[0] if keys else ""
        self.show(active)
        self._decide(active, Phase.EXECUTE, "end", outcome.value)
        if outcome is not Outcome.CANCELLED:
            self._propagate(active)

    def _failed(self, active: ActiveVertex, error: Exception, inputs: Sequence[Ref | None] = ()) -> StepError:
        """Mark a vertex as failed; the error holds what is needed to look into it."""
        status = active.status
        status.started = status.started or time.time()
        status.completed, status.outcome = time.time(), Outcome.FAILED
        status.error = str(error)
        self.show(active)
        self._decide(active, Phase.EXECUTE, "end", Outcome.FAILED.value)
        if isinstance(error, StepError):
            active.broken.append(error)
            return error
        name = active.vertex.meta.name or next(
            (str(job.graph[active]["name"]) for job in active.jobs if active in job.graph),
            repr(active.vertex),
        )
        step = StepError(active.vertex.digest, name, error)
        step.inputs = tuple(ref.clone() if ref is not None else None for ref in inputs)
        step.outputs = tuple(getattr(error, "outputs", ()))
        active.broken.append(step)
        return step

    # --- the end of a job ---------------------------------------------------------------------------------

    async def end(self, job: Job, *, succeeded: bool) -> None:
        """Let go of everything that only this job wanted; returns when it is gone, or after a deadline.

        It is done in a task of its own, so that a second interrupt does not stop it.
        """
        try:
            task = self._group.create_task(self._clean_up(job, succeeded=succeeded))
        except RuntimeError:  # the solver itself is ending
            return
        await asyncio.wait({task}, timeout=2 * CLEANUP_SECONDS)

    async def _clean_up(self, job: Job, *, succeeded: bool) -> None:
        deadline = time.monotonic() + CLEANUP_SECONDS
        while self._ending and time.monotonic() < deadline:
            # What ends lets go of what it waited for, which then ends too.
            await asyncio.wait(set(self._ending), timeout=deadline - time.monotonic())
        if succeeded:
            for active in job.graph:
                if active.status.outcome is None and active.status.started is None:
                    job.skip(active)
        refs: list[Ref] = []
        for active in reversed(list(job.held)):
            del active.jobs[job]
            if not active.jobs:
                self._graph.drop(active)
                self._index.remove(active)
                refs += active.take_refs()
        job.held.clear()
        job.graph.clear()
        for ref in refs:
            await ref.release()
