"""One build, from its request to its result and its record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from bknb.builder import misses
from bknb.builder.bridge import LocalBridge
from bknb.builder.parts import Parts
from bknb.builder.stream import Stream
from bknb.digest import Digest
from bknb.errors import BknbError, DockerfileError, StepError, UnsupportedError
from bknb.events import BuildEvent, Outcome, VertexEvent, WarningEvent
from bknb.history import new_id
from bknb.llb.veil import Veil
from bknb.protocols import (
    ExportInput,
    ExportRequest,
    FrontendRequest,
    FrontendResult,
    Job,
    PlatformResult,
    Ref,
    Session,
    SolveRequest,
    SolveResult,
)
from bknb.solver.graph import ActiveEdge
from bknb.solver.job import Job as SolverJob


@dataclass(slots=True)
class _Done:
    """What one build has come to so far."""

    frontend: FrontendResult = field(default_factory=FrontendResult)
    results: Mapping[Digest, tuple[str, ...]] = field(default_factory=dict)
    exports: tuple[Mapping[str, str], ...] = ()
    failed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


class Building:
    """One build from its request to its result."""

    def __init__(self, parts: Parts, request: SolveRequest, session: Session, stream: Stream) -> None:
        self.parts = parts
        self.request = request
        self.session = session
        self.stream = stream
        self.id = new_id()
        self.done = _Done()

    async def run(self) -> SolveResult:
        """Everything, and the record whatever happens."""
        begin = BuildEvent(self.id, time.time(), title=self.request.title)
        self.stream(begin)
        error: BknbError | None = None
        cancelled = False
        try:
            await self._serve(begin)
        except asyncio.CancelledError:
            cancelled = True
            raise
        except BknbError as raised:
            error = raised
        except ExceptionGroup as group:
            known = group.subgroup(BknbError)
            if known is None:
                raise
            error = _first(known)
        finally:
            end = replace(
                begin,
                time=time.time(),
                finished=True,
                cancelled=cancelled,
                result=self._result_digest(),
                error="" if error is None else str(error),
            )
            self.stream(self._headed(end))
            self._record(error, cancelled)
        return SolveResult(
            self.id, self.done.frontend, self.done.exports, self.done.results, error, self.done.failed
        )

    async def compiled(self) -> FrontendResult:
        """Only the graph, and no record of it."""
        begin = BuildEvent(self.id, time.time(), title=self.request.title)
        self.stream(begin)
        async with self._serving() as (_, bridge):
            self.done.frontend = await self._compile(bridge)
            self._announce(begin)
        return self.done.frontend

    async def _serve(self, begin: BuildEvent) -> None:
        async with self._serving() as (job, bridge):
            try:
                self.done.frontend = await self._compile(bridge)
                self._announce(begin)
                if not self.request.compile_only:
                    await self._build(job)
            except StepError as error:
                await self._keep_failed(error)
                raise
            finally:
                self.done.results = results_of(job)
                self._say_sizes()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[tuple[SolverJob, LocalBridge]]:
        """The job of the build, and what its frontend may ask."""
        limit = self.request.max_parallelism
        async with self.parts.solver.job(
            self.id, self.session, self.stream, parallelism=limit, describe=self.stream.describe
        ) as job:
            if self.request.fail_on_miss:
                job.refuse = misses.refuse
            bridge = LocalBridge(
                job,
                self.parts.worker.platforms,
                job.solve,
                self.parts.images.resolve_image_config,
                self.parts.worker,
            )
            with self.parts.worker.granted(self.id, self.request.entitlements, Veil.of(self.request.opts)):
                try:
                    yield job, bridge
                finally:
                    await bridge.release()

    async def _compile(self, bridge: LocalBridge) -> FrontendResult:
        if not self.request.frontend:
            return FrontendResult((PlatformResult(None, self.request.edge),))
        frontend = self.parts.frontends.get(self.request.frontend)
        if frontend is None:
            raise UnsupportedError(
                f"frontend {self.request.frontend!r} is not there: use dockerfile.v0; frontends as images are not run yet"
            )
        try:
            found = await frontend.solve(FrontendRequest(self.request.opts), bridge)
        except DockerfileError as error:
            name = error.filename or self.request.opts.get("filename", "Dockerfile")
            self.done.frontend = FrontendResult(filename=name, source=bridge.seen.get(name, b""))
            self._warn(error.warnings, name)
            raise
        if found.forward is not None:
            raise UnsupportedError(
                f"# syntax={found.forward.source}: frontends as images are not run yet; "
                "docker/dockerfile up to 1.26 is built in, so write that or leave the line out"
            )
        return found

    def _announce(self, begin: BuildEvent) -> None:
        """Say what there is to do before any of it starts: the graph, what is skipped, what the checks found."""
        found = self.done.frontend
        self.stream(self._headed(begin))
        self.stream.know(found.vertices)
        if self.request.compile_only:  # else the solver says it, with what the cache knows
            for result in found.results:
                self.stream.announce(result.edge, Outcome.COMPILED)
        for stage in found.skipped:
            previous: tuple[Digest, ...] = ()
            for number, (text, range_) in enumerate(stage.instructions, 1):
                digest = Digest.of_text(f"skipped:{stage.name}:{number}:{text}")
                self.stream(
                    VertexEvent(
                        digest, f"[{stage.name} {number}/{len(stage.instructions)}] {text}", previous, kind="exec", stage=stage.name,
                        ranges=(range_,), outcome=Outcome.SKIPPED, command=text,
                    )
                )  # fmt: skip
                previous = (digest,)
        self._warn(found.warnings, found.filename)

    def _warn(self, warnings: Sequence[Any], filename: str) -> None:
        for warning in warnings:
            rule = getattr(warning, "rule", "")
            self.stream(
                WarningEvent(
                    Digest.of_text(f"{self.id}:lint"), 1, warning.message, (warning.detail,) if getattr(warning, "detail", "") else (),
                    getattr(warning, "url", ""), filename, tuple(getattr(warning, "ranges", ())), str(getattr(rule, "name", rule)),
                )
            )  # fmt: skip

    async def _build(self, job: Any) -> None:
        results = self.done.frontend.results
        edges = [result.edge for result in results if result.edge is not None]
        held: list[Ref | None] = []
        try:
            solved = iter(await job.solve_many(edges))
            if self.request.fail_on_miss:
                misses.check(job.graph)
            held += [next(solved) if result.edge is not None else None for result in results]
            inputs = [
                ExportInput(ref, result.platform, result.image_config, result.epoch, result.base_image_config)
                for ref, result in zip(held, results, strict=True)
            ]
            if self.request.exports:
                self.done.exports = await self._export(inputs, job)
        finally:
            for ref in held:
                if ref is not None:
                    await ref.release()

    def _say_sizes(self) -> None:
        """Say what each result adds to the store, of cached ones too."""
        unsaid = {}
        for vertex, ids in self.done.results.items():
            last = self.stream.last(vertex)
            if last is not None and last.size is None and last.completed is not None:
                unsaid[vertex] = (last, ids)
        sizes = self.parts.refs.sizes({id for _, ids in unsaid.values() for id in ids if id})
        for last, ids in unsaid.values():
            self.stream(replace(last, size=sum(sizes.get(id, 0) for id in ids)))

    async def _export(self, inputs: Sequence[ExportInput], job: Job) -> tuple[Mapping[str, str], ...]:
        """Write every output, then publish them in order: nothing is published if one cannot be written."""
        responses: list[Mapping[str, str]] = []
        finalizers = []
        for number, export in enumerate(self.request.exports):
            finalizers.append(
                await self._shown(
                    f"exporting to {_words(export)}", number, self.parts.exporter(export).export(inputs, job)
                )
            )
        for number, finalize in enumerate(finalizers):
            responses.append(await self._shown("", number, finalize()))
        return tuple(responses)

    async def _shown(self, name: str, number: int, work: Any) -> Any:
        digest = Digest.of_text(f"{self.id}:export:{number}")
        known = self.stream.last(digest)
        event = known or VertexEvent(digest, name, kind="internal", started=time.time())
        self.stream(replace(event, completed=None, outcome=None))
        try:
            answer = await work
        except BaseException as error:
            outcome = Outcome.CANCELLED if isinstance(error, asyncio.CancelledError) else Outcome.FAILED
            self.stream(
                replace(
                    event,
                    completed=time.time(),
                    outcome=outcome,
                    error="" if outcome == Outcome.CANCELLED else str(error),
                )
            )
            raise
        self.stream(replace(event, completed=time.time(), outcome=Outcome.RAN))
        return answer

    async def _keep_failed(self, error: StepError) -> None:
        """Remember what the failed step saw and had written, and let go of it."""
        outputs = tuple(ref.id if ref is not None else "" for ref in error.outputs)
        inputs = tuple(ref.id if ref is not None else "" for ref in error.inputs)
        self.done.failed = (outputs, inputs)
        for ref in (*error.outputs, *error.inputs):
            if ref is not None:
                await ref.release()
        error.inputs = error.outputs = ()

    def _headed(self, event: BuildEvent) -> BuildEvent:
        """The event with what is known of the source by now."""
        found = self.done.frontend
        return replace(
            event,
            dockerfile=found.source.decode(errors="replace"),
            filename=found.filename,
            frontend=f"built-in {self.parts.frontend_version}" if self.request.frontend else "",
        )

    def _result_digest(self) -> str:
        for response in self.done.exports:
            if digest := response.get("containerimage.digest"):
                return digest
        return ""

    def _record(self, error: BknbError | None, cancelled: bool) -> None:
        self.parts.recorder.save(
            self.id, self.request, self.done.frontend, self.stream.events, self.done.results, error, cancelled
        )


def _first(group: BaseExceptionGroup[Any]) -> BknbError:
    """The first error of a group, however deep."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, BknbError)
    return found


def _words(export: ExportRequest) -> str:
    return {
        "image": "image", "oci": "oci image format", "docker": "docker image format", "local": "client directory", "tar": "client tarball",
    }.get(export.type, export.type)  # fmt: skip


def results_of(job: SolverJob) -> Mapping[Digest, tuple[str, ...]]:
    """The record ids of every output that a job has, realised or only known to the cache ("" for an empty one)."""
    found: dict[Digest, tuple[str, ...]] = {}
    for active in job.graph:
        edges = active.edges
        if len(edges) == 1 and 0 in edges:  # as nearly all have
            ids: tuple[str, ...] = (_result_of(edges[0]),)
        else:
            ids = tuple([_result_of(edges.get(index)) for index in range(max(edges, default=-1) + 1)])
        if any(ids):
            found[active.vertex.digest] = ids
    return found


def _result_of(edge: ActiveEdge | None) -> str:
    if edge is None:
        return ""
    if edge.ref is not None:
        return edge.ref.id
    return edge.records[0].result if edge.records else ""
