"""Jobs: a request being served, and what an operation sees of those who want it.

An operation may serve several jobs at once. It is given a `StepJob`, which passes what it emits on to all of
them, asks the session of one that is still there, and is where it says what it waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from bknb.digest import Digest
from bknb.errors import StepError
from bknb.events import DecisionEvent, Emit, Event, LogEvent, Outcome, Phase, StatusEvent, VertexEvent
from bknb.llb.names import kind_of, name_of
from bknb.llb.vertex import Edge, Vertex
from bknb.protocols import Ref, Session
from bknb.solver import board

if TYPE_CHECKING:
    from bknb.solver.combined import Import
    from bknb.solver.graph import ActiveVertex
    from bknb.solver.solver import Solver

MAX_REPLAY: Final = 4 << 20
"""Bytes of log that are kept of a running step for jobs that join it later."""

Describe: TypeAlias = Callable[[Vertex], VertexEvent]
"""Gives a vertex as it is known beforehand: name, inputs, kind, stage, ranges..."""


class Slots:
    """A `Limiter`: at most so many at once, or any number for None."""

    def __init__(self, limit: int | None = None) -> None:
        self._semaphore = None if limit is None else asyncio.Semaphore(max(limit, 1))

    @property
    def full(self) -> bool:
        """Whether whoever asks for a slot now has to wait."""
        return self._semaphore is not None and self._semaphore.locked()

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Hold a slot for as long as the context lasts."""
        return nullcontext() if self._semaphore is None else _held(self._semaphore)


@asynccontextmanager
async def _held(semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
    async with semaphore:
        yield


class Status(Struct, eq=False):
    """What is shown of an active vertex: the fields of its `VertexEvent` that change, and its output."""

    started: float | None = None
    completed: float | None = None
    outcome: Outcome | None = None
    error: str = ""
    note: str = ""
    size: int | None = None
    result: str = ""
    solver_digest: str = ""
    _said: _Said | None = None

    def event(self, known: VertexEvent) -> VertexEvent:
        """The vertex as it is now, of which this was known beforehand."""
        return replace(
            known, started=self.started, completed=self.completed, outcome=self.outcome, error=self.error,
            note=self.note, size=self.size, result=self.result, solver_digest=self.solver_digest,
        )  # fmt: skip

    def remember(self, event: Event) -> None:
        """Keep an event for jobs that join later; the oldest lines of a long log are not replayed."""
        if self._said is None:
            self._said = _Said()
        self._said.add(event)

    def replay(self) -> Sequence[Event]:
        """What it has said so far."""
        said = self._said
        return () if said is None else [*said.others, *said.progress.values(), *said.log]


class _Said:
    """The output of a vertex, bounded."""

    __slots__ = ("log", "log_size", "others", "progress")

    def __init__(self) -> None:
        self.log: deque[LogEvent] = deque()
        self.log_size = 0
        self.progress: dict[str, StatusEvent] = {}
        self.others: deque[Event] = deque(maxlen=1000)

    def add(self, event: Event) -> None:
        match event:
            case LogEvent():
                self.log.append(event)
                self.log_size += len(event.data)
                while self.log_size > MAX_REPLAY:
                    self.log_size -= len(self.log.popleft().data)
            case StatusEvent():
                self.progress[event.id] = event
            case _:
                self.others.append(event)


class Job:
    """One request being served; made by `Solver.job`, and a context manager.

    Everything that it has built is held until it ends, so that later questions of the same request find it.

    Attributes:
        graph: the active vertices that it shows, with what was known of them beforehand.
        held: those that live because of it, which may be more.
        refuse: says why a vertex that is not cached must not run, or None; asked before it would.
        imports: caches that it asks for what the local one does not have.
    """

    def __init__(
        self, solver: Solver, id: str, session: Session, emit: Emit, *,
        ignore_cache: bool | Collection[Digest], slots: Slots, describe: Describe, imports: Sequence[Import] = (),
    ) -> None:  # fmt: skip
        self.id = id
        self.session = session
        self.emit = emit
        self.slots = slots
        self.graph: dict[ActiveVertex, VertexEvent] = {}
        self.held: dict[ActiveVertex, None] = {}
        self.describe = describe
        self.refuse: Callable[[Vertex], Exception | None] = lambda vertex: None
        self.imports = tuple(imports)
        self._solver = solver
        self._ignore_cache = ignore_cache
        self._sequence = 0

    async def solve(self, edge: Edge) -> Ref | None:
        """Build one edge; the caller releases the Ref.

        Raises:
            StepError: a vertex failed; the caller releases its inputs and outputs too.
            DefinitionError: an op that the worker does not know.
        """
        return (await self.solve_many([edge]))[0]

    async def solve_many(self, edges: Sequence[Edge]) -> tuple[Ref | None, ...]:
        """Build several edges side by side; as `solve`."""
        try:
            return await self._solver.solve_edges([self], edges, None)
        except StepError as error:
            raise own_error(error) from error.cause

    async def __aenter__(self) -> Job:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._solver.end(self, succeeded=error is None)
        except asyncio.CancelledError:  # it takes the place of an error that holds results
            if isinstance(error, StepError):
                for ref in (*error.inputs, *error.outputs):
                    if ref is not None:
                        await ref.release()
            raise

    # --- used by the solver -------------------------------------------------------------------------------

    def ignores(self, vertex: Vertex) -> bool:
        """Whether a vertex runs although the cache has it."""
        chosen = self._ignore_cache
        return vertex.meta.ignore_cache or (chosen if isinstance(chosen, bool) else vertex.digest in chosen)

    def attach(self, vertex: Vertex, active: ActiveVertex) -> bool:
        """Show a vertex of this job's graph; tells whether it is new here."""
        if active in self.graph:
            return False
        self.graph[active] = self.describe(vertex)
        self.held[active] = active.jobs[self] = None
        return True

    def hold(self, active: ActiveVertex) -> None:
        """Let it live for as long as this job does."""
        self.held[active] = active.jobs[self] = None

    def show(self, active: ActiveVertex) -> None:
        """Emit a vertex as it is now."""
        known = self.graph.get(active)
        if known is not None:
            self.emit(active.status.event(known))

    def skip(self, active: ActiveVertex) -> None:
        """Nothing that was asked for needed it."""
        self.emit(replace(active.status.event(self.graph[active]), outcome=Outcome.SKIPPED))

    def receive(self, active: ActiveVertex, event: Event) -> None:
        """Emit what an operation said, if this job shows it."""
        if active not in self.graph:
            return
        if isinstance(event, DecisionEvent):
            self._sequence += 1
            event = replace(event, sequence=self._sequence)
        self.emit(event)

    def decide(self, active: ActiveVertex, phase: Phase, outcome: str, causes: tuple[str, ...]) -> None:
        """Emit a decision about a vertex that this job shows."""
        if active in self.graph:
            self._sequence += 1
            self.emit(DecisionEvent(self._sequence, active.vertex.digest, phase, outcome, causes, time.time()))


class StepJob:
    """The `protocols.Job` of one operation: all jobs that want it, as one.

    Attributes:
        slots: what it holds while it runs; None where it holds none.
    """

    __slots__ = ("_active", "_asking", "_solver", "slots")

    def __init__(self, solver: Solver, active: ActiveVertex) -> None:
        self._solver = solver
        self._active = active
        self._asking = 0
        self.slots: AsyncExitStack | None = None

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def session(self) -> Session:
        return self._job.session

    @property
    def _job(self) -> Job:
        for job in self._active.jobs:
            return job
        raise asyncio.CancelledError("nobody wants this step any more")

    def emit(self, event: Event) -> None:
        """Tell all jobs; of a `DecisionEvent` the sequence is filled in."""
        self._active.status.remember(event)
        for job in list(self._active.jobs):
            job.receive(self._active, event)

    def decide(self, phase: Phase, outcome: str, *causes: str) -> None:
        """Tell all jobs of a decision."""
        self.emit(DecisionEvent(0, self._active.vertex.digest, phase, outcome, causes, time.time()))

    @contextmanager
    def waiting(self, cause: str) -> Iterator[None]:
        """What the step waits for in the meantime: ``slot lock input pull session content-hash``."""
        self.decide(Phase.WAIT, "begin", cause)
        try:
            yield
        finally:
            self.decide(Phase.WAIT, "end", cause)

    def annotate(
        self, *, note: str | None = None, size: int | None = None, result: str | None = None
    ) -> None:
        """Add to what is shown of the vertex: a remark, bytes added, digest of the result."""
        status = self._active.status
        status.note = status.note if note is None else note
        status.size = status.size if size is None else size
        status.result = status.result if result is None else result
        board.show(self._active)

    async def solve(self, edge: Edge) -> Ref | None:
        """Build an edge that this step depends on; holds no slot meanwhile. The caller releases the Ref.

        Raises:
            StepError: a vertex failed.
            DefinitionError: the edge would wait for this step itself.
        """
        self._asking += 1
        try:
            if self.slots is not None:
                await self.slots.aclose()
            ref = (await self._solver.solve_edges(list(self._active.jobs), [edge], self._active))[0]
        except StepError as error:
            raise own_error(error) from error.cause
        finally:
            self._asking -= 1
        if self.slots is not None and not self._asking:  # the last of those that it asks for side by side
            await self._solver.take_slots(self, self._active, ref)
        return ref


def own_error(error: StepError) -> StepError:
    """A copy of a shared error, with Refs of its own."""
    own = StepError(error.vertex, error.name, error.cause)
    own.inputs = tuple(ref and ref.clone() for ref in error.inputs)
    own.outputs = tuple(ref and ref.clone() for ref in error.outputs)
    return own


def describe(vertex: Vertex) -> VertexEvent:
    """What a definition tells of a vertex."""
    meta = vertex.meta
    inputs = tuple([edge.vertex.digest for edge in vertex.inputs])
    known = VertexEvent(
        vertex.digest,
        meta.name or name_of(vertex.op),
        inputs if len(inputs) < 2 else tuple(dict.fromkeys(inputs)),
        kind_of(vertex.op),
    )
    group = meta.progress_group
    if not vertex.locations and group is None:
        return known
    ranges = tuple([each for location in vertex.locations for each in location.ranges])
    return replace(known, ranges=ranges, progress_group=group.id if group is not None else "")
