"""Results for what the sweep did not find: load, or realise the inputs and execute.

Every piece of work is a `Flight` in the solver's own task group, so that jobs come and go without disturbing
each other:

- `Keying.mapping(source)`: ask a source for its cache maps, cheap first, until one of them hits;
- `Keying.realising(vertex, i)`: realise input i, prepare it, and compute its content key;
- `Importing.opening(import)`: bring the index of a cache that a job imports from, when the local one misses a result;
- `_solving(edge)`: the result of an edge, from the cache or by
- `_running(vertex)`: executing it, once for all vertices that come to the same cache key.

Invariant: a slot is held only around `Operation.exec`, and given back while that asks for other vertices to be
built, so that one slot is enough for any graph.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Final, TypeAlias

from bknb.digest import Digest
from bknb.errors import BknbError, DefinitionError
from bknb.events import Emit, Phase
from bknb.flight import Flight, Waits
from bknb.garbage import no_collection
from bknb.llb.vertex import Edge
from bknb.protocols import CacheMap, CacheRecord, CacheSource, CacheStore, Limiter, Ref, Session, Worker
from bknb.solver import board
from bknb.solver.combined import Import, adopt
from bknb.solver.graph import ActiveEdge, ActiveGraph, ActiveVertex, reaches
from bknb.solver.importing import Importing
from bknb.solver.job import Describe, Job, Slots, Status, StepJob, describe
from bknb.solver.keying import Keying
from bknb.solver.run import SCRATCH, Runner
from bknb.solver.sweep import frontier, propagate, sweep

CLEANUP_SECONDS: Final = 10.0
"""How long the end of a job may take to stop what nobody wants any more, and to let go of its results."""


Sizes: TypeAlias = Callable[[Collection[str]], Mapping[str, int]]


class Solver:
    """Serves jobs; an async context manager, entered where it shall run.

    Args:
        worker: gives vertices their operations, and results of the cache their life.
        store: the cache.
        limiter: slots for all jobs together.
        sizes: bytes of results, of those that it knows.
    """

    def __init__(
        self,
        worker: Worker,
        store: CacheStore,
        *,
        limiter: Limiter | None = None,
        sizes: Sizes = lambda results: {},
    ) -> None:
        self._worker = worker
        self._store = store
        self._sizes = sizes
        self._graph = ActiveGraph(worker.resolve, Status, store)
        self._importing = Importing(self._graph, store, self._flight, self._found)
        self._keying = Keying(self, store, self._flight, self._solving, self._propagate)
        self._runner = Runner(self, store, limiter or Slots(), self._running, self._propagate)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Solver:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in list(self._tasks):
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def _spawn(self, body: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def job(
        self, id: str, session: Session, emit: Emit, *, ignore_cache: bool | Collection[Digest] = False,
        parallelism: int | None = None, describe: Describe = describe, cache_from: Sequence[CacheSource] = (),
    ) -> Job:  # fmt: skip
        """A request to be served: ``async with solver.job(...) as job: ref = await job.solve(edge)``.

        Args:
            id: of the build.
            session: asked for files and secrets.
            emit: takes the events.
            ignore_cache: run all vertices although the cache has them, or those with these digests.
            parallelism: how many steps of this job may run at once; None for no limit.
            describe: gives what is known of a vertex beforehand.
            cache_from: other caches, asked in this order for what the local one does not have.
        """
        return Job(
            self, id, session, emit, ignore_cache=ignore_cache, slots=Slots(parallelism), describe=describe,
            imports=[Import(source) for source in cache_from],
        )  # fmt: skip

    # --- from edges to flights ----------------------------------------------------------------------------

    async def solve_edges(
        self, jobs: Sequence[Job], edges: Sequence[Edge], nested: ActiveVertex | None
    ) -> tuple[Ref | None, ...]:
        """Build edges for some jobs; `nested` is the vertex that asks, if one does."""
        if not jobs:
            raise asyncio.CancelledError("nobody wants this step any more")
        targets = self._attach(jobs, edges)
        if nested is not None:
            for target in targets:
                if reaches(target.vertex, nested):
                    raise DefinitionError(
                        f"{nested.status.note or nested.vertex!r}: its nested build would wait for itself"
                    )
                nested.below += (target.vertex,)
        with Waits() as waits:
            pending = [edge for edge in targets if not edge.done]
            for edge in pending:
                waits.join(self._solving(edge))
            while any(not edge.done for edge in pending):
                await waits.change()
        return tuple(edge.ref.clone() if edge.ref is not None else None for edge in targets)

    async def take_slots(self, job: StepJob, active: ActiveVertex, ref: Ref | None) -> None:
        """Go on with a step after its nested build, whose result is let go if the step is cancelled meanwhile."""
        try:
            await self._runner.take_slots(job, active)
        except BaseException:
            if ref is not None:
                await ref.release()
            raise

    def _attach(self, jobs: Sequence[Job], edges: Sequence[Edge]) -> list[ActiveEdge]:
        """Make the graph active, ask the cache about all of it at once, and show what came out."""
        self._store.refresh()
        with no_collection():
            return self._sweep(jobs, edges)

    def _sweep(self, jobs: Sequence[Job], edges: Sequence[Edge]) -> list[ActiveEdge]:
        pairs = self._graph.load(edges, jobs[0].ignores)
        targets = [pairs[edge.vertex.digest][1].edge(edge.index) for edge in edges]
        new = [
            (job, active) for job in jobs for vertex, active in pairs.values() if job.attach(vertex, active)
        ]
        if imports := [each for job in jobs for each in job.imports]:
            for _, active in pairs.values():
                self._importing.look_in(active, imports)
        hits = sweep(active for _, active in pairs.values())
        sizes = self._sizes([edge.records[0].result for edge in hits]) if hits else {}
        now, by_definition = time.time(), Phase.KEY
        for edge in hits:
            board.mark_hit(edge, now, sizes)
        for job, active in new:
            job.show(active)
            for event in active.status.replay():
                job.receive(active, event)
            for edge in active.edges.values():
                if edge.records:
                    job.decide(active, by_definition, "hit", board.taken(edge.records[0]))
                    break
        self._found(targets)
        if not all(edge.records or edge.done for edge in targets):
            self._found(hits)  # else nobody needs them
        return targets

    def _propagate(self, active: ActiveVertex, *numbers: int) -> None:
        self._found(propagate(active, board.hit, numbers or None))

    def _found(self, edges: Sequence[ActiveEdge]) -> None:
        """Forget results of edges that were found, inputs first, that are gone; then have those go on who wait.

        Consumers before their inputs, which they may need no more.
        """
        hits = list(edges)
        while gone := self._gone(edges):
            again: list[ActiveEdge] = []
            for edge in edges:
                if edge.records and edge.records[0].result in gone:
                    self._lose(edge, edge.records[0])
                    again += propagate(edge.vertex, board.hit)
            hits += again
            edges = again
        for edge in reversed(hits):
            if edge.waits is not None:
                edge.waits.wake()

    def _gone(self, edges: Sequence[ActiveEdge]) -> Collection[str]:
        """Results of edges that cannot be had; those of other caches may be, until they are loaded."""
        records = [edge.records[0] for edge in edges if edge.records and not edge.done]
        local = {each.result for each in records if each.result != SCRATCH and each.load is None and not each.remote}
        try:
            return self._worker.missing(local) if local else ()
        except (BknbError, OSError):
            return ()  # `_load` will say why

    def _flight(
        self, body: Callable[[], Coroutine[Any, Any, None]], forget: Callable[[], object]
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

    def _running(self, active: ActiveVertex) -> Flight[None]:
        if active.running is None:
            active.running = self._flight(
                lambda: self._runner.run(active), lambda: setattr(active, "running", None)
            )
        return active.running

    # --- the flights --------------------------------------------------------------------------------------

    async def _solve(self, edge: ActiveEdge) -> None:
        """The result of an edge: from the cache if anything leads to it, else by running its vertex."""
        active = edge.vertex
        waiting = False
        with Waits() as waits:
            edge.waits, edge.wanted = waits, True
            try:
                while not edge.done:
                    if edge.records:
                        if edge.records[0].load is None:  # what another cache offers may turn out not to be there
                            waits.leave_all()
                            waiting = waiting and self._waited(active)
                        await self._load(edge)
                    elif pending := self._questions(edge):
                        for flight in pending:
                            waits.join(flight)
                        await waits.change()
                    elif active.unready or not active.mapped:
                        if not active.mapped:
                            waits.join(self._keying.mapping(active))
                        if not waiting:
                            waiting = True
                            board.miss(edge)
                            if active.inputs:
                                board.decide(active, Phase.WAIT, "begin", "input")
                            waits.join_each(self._needed(active))
                        if active.unready or not active.mapped:
                            await waits.change()
                    else:
                        if not waiting:
                            board.miss(edge)
                        break
            finally:
                waiting = waiting and self._waited(active)
                edge.waits = None
            if not edge.done:
                await waits.on(self._running(active))
                self._runner.finish(edge)

    def _waited(self, active: ActiveVertex) -> bool:
        """It does not wait for its inputs any more."""
        if active.inputs:
            board.decide(active, Phase.WAIT, "end", "input")
        return False

    def _questions(self, edge: ActiveEdge) -> list[Flight[None]]:
        """What has to be asked before an edge is a miss: sources for keys, then other caches, then content."""
        active = edge.vertex
        wanted = [] if edge.closed else frontier(edge)
        untried = [each for each in active.imports if not each.tried and not active.ignore_cache]
        if untried:
            maps = [item for item in wanted if item[1] < 0]
            return [self._keying.answer(item) for item in maps] or [self._importing.opening(each) for each in untried]
        return [self._keying.answer(item) for item in wanted]

    def _needed(self, active: ActiveVertex) -> Iterator[Flight[None]]:
        """What realises the inputs that a vertex needs to run; those that are there are marked as such."""
        for number, given in enumerate(active.inputs):
            if number in active.ready:
                continue
            if not active.is_plain(number):
                yield self._keying.realising(active, number)
            elif given.done:
                active.realised(number)
            else:
                yield self._solving(given)

    async def _load(self, edge: ActiveEdge) -> None:
        """Take the best record; one whose result is gone is forgotten, and the edge looked at again."""
        active, record = edge.vertex, edge.records[0]
        ref: Ref | None = None
        if record.result != SCRATCH:
            why = ""
            try:
                ref = await (record.load() if record.load is not None else self._worker.load(record.result))
            except BknbError as error:
                why = str(error)
            if ref is None:
                self._lose(edge, record, why)
                self._propagate(active)
                return
        keys: tuple[str, ...] = (record.key,)
        if record.remote:
            keys = adopt(edge, self._store, SCRATCH if ref is None else ref.id)
        edge.finish(ref, keys)
        board.decide(active, Phase.LOAD, "loaded", record.key, record.result)

    def _lose(self, edge: ActiveEdge, record: CacheRecord, why: str = "") -> None:
        """Forget a record whose result is gone; `why` is what another cache said."""
        if record.remote and why:  # a blob that the cache has not is None, and no error
            board.decide(edge.vertex, Phase.LOAD, "unreachable", record.remote, why)
        else:
            said = (why,) if why else ()
            board.decide(edge.vertex, Phase.LOAD, "lost", record.key, record.result, *said)
        edge.vertex.cache.forget(record.result)
        edge.records, edge.closed = (), False
        if edge.vertex.status.outcome is not None:  # else it may be running for another output
            board.pause(edge.vertex)

    # --- the end of a job ---------------------------------------------------------------------------------

    async def end(self, job: Job, *, succeeded: bool) -> None:
        """Let go of everything that only this job wanted; returns when it is gone, or after a deadline.

        It is done in a task of its own, so that a second interrupt does not stop it.
        """
        clean_up = self._clean_up(job, succeeded=succeeded)
        try:
            task = self._group.create_task(clean_up)
        except RuntimeError:  # the solver itself has ended
            await clean_up
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
        unfinished: list[AsyncIterator[CacheMap]] = []
        for active in reversed(list(job.held)):
            del active.jobs[job]
            if not active.jobs:
                self._graph.drop(active)
                self._runner.forget(active)
                refs += active.take_refs()
                if active.maps is not None:
                    unfinished.append(active.maps)
        job.held.clear()
        job.graph.clear()
        self._importing.forget(job.imports)
        for maps in unfinished:
            if isinstance(maps, AsyncGenerator):
                await maps.aclose()
        for ref in refs:
            await ref.release()
