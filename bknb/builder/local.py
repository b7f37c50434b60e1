"""The builder in this kernel: every mechanism, joined to the contracts of `bknb.protocols`.

It is opened once for a kernel, on the solver's thread, and stays warm: the shim process, the cache's index, image
configs and contexts live as long as it does. Nothing outlives it but what is in the state folder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from bknb.builder.building import Building
from bknb.builder.collect import Collector
from bknb.builder.parts import Parts, open_parts
from bknb.builder.stream import Stream
from bknb.digest import Digest
from bknb.events import Emit, VertexEvent, WarningEvent
from bknb.garbage import seldom_collected
from bknb.llb.vertex import Vertex
from bknb.oci.types import Descriptor, Index, parse_document
from bknb.protocols import (
    FrontendResult,
    Ref,
    Session,
    SolveRequest,
    SolveResult,
)
from bknb.settings import Settings


class LocalBuilder:
    """Implements `protocols.Builder`."""

    name = "default"

    def __init__(self, settings: Settings, parts: Parts, collector: Collector) -> None:
        self.settings = settings
        self.parts = parts
        self.collector = collector
        self._note = settings.note

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """A builder for as long as the context lasts.

        Raises:
            StoreError: the state folder cannot be used.
            ExecutorError: the shim cannot be started.
        """
        async with AsyncExitStack() as stack:
            parts = await open_parts(settings, stack)
            yield cls(settings, parts, await stack.enter_async_context(Collector(parts)))

    async def solve(self, request: SolveRequest, session: Session, emit: Emit) -> SolveResult:
        """Compile, build, export, and write the record."""
        stream = Stream(emit)
        if self._note:
            note, self._note = self._note, ""
            stream(WarningEvent(Digest.of_text(note), 1, note))
        with self.collector.building(), seldom_collected:
            return await Building(self.parts, request, session, stream).run()

    async def compile(self, request: SolveRequest, session: Session, emit: Emit) -> Compiled:
        """Only compile: base images are looked up, nothing is built, and nothing is written.

        Raises:
            DockerfileError: the Dockerfile is wrong.
            SourceError: a base image cannot be had.
        """
        stream = Stream(emit)
        return Compiled(await Building(self.parts, request, session, stream).compiled(), stream.describe)

    async def changed(self, id: str, limit: int) -> tuple[str, ...]:
        """The paths that the last layer of a result changed, as lines ``+ /path``, ``- /path``; at most `limit`."""
        ref = await self.get(id)
        if ref is None:
            return ()
        try:
            await ref.mounts()
            layers = await self.parts.refs.layer_mounts(ref)
            layer = await self.parts.snapshotter.layer(layers[-1]) if layers else None
            if layer is None:
                return ()
            return tuple(
                await self.parts.shim.call("views.layer", path=layer.path, marks=layer.marks, limit=limit)
            )
        finally:
            await ref.release()

    def image_size(self, target: Descriptor) -> int:
        """Bytes of an image's layers, compressed; 0 where its manifest is gone."""
        return sum(layer.size for layer in self._layers(target))

    def _layers(self, target: Descriptor) -> Sequence[Descriptor]:
        content = self.parts.content
        if content.info(target.digest) is None:
            return ()
        document = parse_document(content.read(target.digest), target.media_type)
        if isinstance(document, Index):
            return [layer for manifest in document.manifests for layer in self._layers(manifest)]
        return document.layers

    async def get(self, id: str) -> Ref | None:
        """A hold on a result by its record id; None if it is gone."""
        return await self.parts.refs.get(id) if id else None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A graph, and what is known of each vertex beforehand."""

    frontend: FrontendResult
    describe: Callable[[Vertex], VertexEvent]
