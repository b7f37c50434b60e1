"""Machines that build without containers: the real frontend, solver, cache and history over a `LightWorker`.

A machine may import another one's cache (`LightRemote`), and export its own as ``mode=min`` does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from bknb.analysis import Explanation, Seen, explain
from bknb.api.explained import evicted_by, seen
from bknb.builder.building import Building
from bknb.builder.stream import Stream
from bknb.cache.store import SqliteCacheStore
from bknb.cache.tombstones import Tombstones
from bknb.errors import SourceError
from bknb.events import DecisionEvent, Event, Phase
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.history import History, Recorder
from bknb.platforms import Platform
from bknb.protocols import (
    CacheRecord,
    ExportInput,
    ExportRequest,
    ImageConfigAnswer,
    Job,
    LocalDirectory,
    Ref,
    SolveRequest,
    SolveResult,
)
from bknb.session import LocalSession
from bknb.solver import Solver
from tests.analysis.light import AMD64, LightWorker, World


@dataclass
class LightRemote:
    """Implements `protocols.CacheSource`: what another machine has made, as it exported it.

    Attributes:
        machine: whose cache it was written from; `reader` is who imports it.
        left_out: results that were not exported.
        down: what is answered instead of the index.
    """

    machine: LightBuilder
    name: str = "registry.example/app:cache"
    left_out: set[str] = field(default_factory=set)
    down: str = ""
    reader: LightBuilder | None = None

    async def open(self) -> None:
        if self.down:
            raise SourceError(self.down)

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        return self.machine.store.targets(key, input, output, digest, selector)

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        return tuple(
            replace(record, remote=self.name, load=partial(self._load, record.result))
            for record in self.machine.store.records(key)
            if record.result not in self.left_out
        )

    def forget(self, result: str) -> None:
        self.left_out.add(result)

    async def _load(self, result: str) -> Ref | None:
        found = self.machine.worker.results.get(result)
        assert self.reader is not None
        return self.reader.worker.keep(found.files) if found is not None else None


@dataclass
class LightCacheExporter:
    """Exports the last step's result, and says of the others that they are left out."""

    remote: LightRemote

    async def export(self, inputs: Sequence[ExportInput], job: Any) -> Any:
        (wanted,) = [given.ref.id for given in inputs if given.ref is not None]
        for active in job.graph:
            made = {edge.ref.id for edge in active.edges.values() if edge.ref is not None}
            made |= {record.result for edge in active.edges.values() for record in edge.records}
            if wanted not in made:
                self.remote.left_out |= made
                said = self.remote.name, "mode=min"
                job.emit(DecisionEvent(0, active.vertex.digest, Phase.EXPORT, "left-out", said, time.time()))
        return _published


async def _published() -> dict[str, str]:
    return {}


class LightBuilder:
    """One machine: a cache, a history, a solver. An async context manager."""

    def __init__(self, world: World, folder: Path, *, remote: LightRemote | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.world = world
        self.remote = remote
        self.store = SqliteCacheStore(folder / "cache.db")
        self.tombstones = Tombstones(folder / "tombstones.db")
        self.history = History(folder / "history.db")
        self.worker = LightWorker(world, self.store, f"{folder.name}-")
        self.solver = Solver(self.worker, self.store)
        self.frontend: Any = DockerfileFrontend(host=AMD64)
        self.frontend_version = "dockerfile/1.26"

    async def __aenter__(self) -> LightBuilder:
        await self.solver.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.solver.__aexit__(kind, error, trace)
        self.history.close()
        self.tombstones.close()
        self.store.close()

    async def build(
        self, text: str, opts: Mapping[str, str] | None = None, *, export: LightRemote | None = None
    ) -> LightBuild:
        """Build a Dockerfile, and export the cache if it is said where to; a failure is a build too."""
        exports = (ExportRequest("cache"),) if export is not None else ()
        request = SolveRequest("dockerfile.v0", dict(opts or {}), exports=exports)
        directories = {
            "dockerfile": LocalDirectory("/", files={"Dockerfile": text.encode()}),
            "context": LocalDirectory("/", files={}),
        }
        events: list[Event] = []
        parts: Any = SimpleNamespace(
            solver=self, worker=self.worker, images=self, frontends={"dockerfile.v0": self.frontend},
            recorder=Recorder(self.history), refs=SimpleNamespace(sizes=lambda ids: {}),
            frontend_version=self.frontend_version, exporter=lambda request: LightCacheExporter(export),
        )  # fmt: skip
        session = LocalSession(directories, environ={})
        result = await Building(parts, request, session, Stream(events.append)).run()
        return LightBuild(result, tuple(events), self._seen(result.id))

    def job(self, *given: Any, **options: Any) -> Any:
        """The solver's, with the cache that this machine imports."""
        if self.remote is None:
            return self.solver.job(*given, **options)
        self.remote.reader = self
        return self.solver.job(*given, **options, cache_from=[self.remote])

    def _seen(self, id: str) -> Seen:
        record = self.history.get(id)
        assert record is not None, self.history.failed
        return seen(self.history, record)

    async def resolve_image_config(
        self, job: Job, reference: str, *, platform: Platform | None, resolve_mode: str
    ) -> ImageConfigAnswer:
        """As an image source answers a frontend."""
        digest, config = self.world.image(reference, platform or AMD64)
        return ImageConfigAnswer(reference, digest, config)

    def explain(self, before: LightBuild, after: LightBuild) -> Explanation:
        """Why, as the product asks it."""
        evicted = evicted_by(self.tombstones, after.seen, before.seen)
        return explain(before.seen, after.seen, self.store.plaintext, evicted)


@dataclass(frozen=True)
class LightBuild:
    """A build that is over, and what its record says of it."""

    result: SolveResult
    events: tuple[Event, ...]
    seen: Seen

    def outcomes(self) -> dict[str, str]:
        """What became of each instruction."""
        steps = [step for step in self.seen.steps if step.kind != "internal"]
        return {step.command or step.name: step.outcome for step in steps}
