"""What a frontend may ask of the build that it serves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from bknb import beneath
from bknb.cache.handles import UncountedRef
from bknb.digest import Digest
from bknb.errors import PathError, SourceError, UnsupportedError
from bknb.events import Emit, Outcome, VertexEvent
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Edge
from bknb.platforms import Platform
from bknb.protocols import ImageConfigAnswer, LocalDirectory, Mounts, Ref, Session, SourceMetaAnswer
from bknb.worker.worker import LocalWorker

T = TypeVar("T")
LIMIT = 16 << 20
"""Largest file that a frontend reads, in bytes (solver/llbsolver/bridge.go reads Dockerfiles whole)."""


@dataclass(frozen=True, slots=True)
class DirectoryRef(UncountedRef):
    """A client's folder, read in place: what a frontend reads from a ``local://`` source needs no copy."""

    directory: LocalDirectory

    @property
    def id(self) -> str:
        """Not a record: nothing outlives the frontend's look."""
        return ""

    async def mounts(self) -> Mounts:
        """Raises: PathError: it is not for mounting."""
        raise PathError("a folder that a frontend reads is not mounted")

    def read(self, path: str, limit: int) -> bytes | None:
        """A file of the folder, or None.

        Raises:
            SourceError: it is there and cannot be read, or is too large.
        """
        name = path.lstrip("/")
        if self.directory.files is not None:
            return self.directory.files.get(name)
        try:
            root = beneath.open_root(self.directory.path)
            try:
                return beneath.read(root, name, limit)
            finally:
                os.close(root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceError(f"cannot read {name} in {self.directory.path} ({error.strerror})") from None


class Serving(Protocol):
    """The part of a job that a bridge needs."""

    @property
    def id(self) -> str: ...

    @property
    def session(self) -> Session: ...

    @property
    def emit(self) -> Emit: ...


@dataclass(frozen=True, slots=True)
class LocalBridge:
    """The bridge of one job.

    Attributes:
        solve_edge: builds an edge in the job.
        resolve_image: looks an image's config up.
        worker: reads files out of results.
        held: what the frontend looks at; let go of by `release`.
        seen: the files of the client that it has read.
    """

    job: Serving
    platforms: tuple[Platform, ...]
    solve_edge: Callable[[Edge], Awaitable[Ref | None]]
    resolve_image: Callable[..., Awaitable[ImageConfigAnswer]]
    worker: LocalWorker
    held: list[Ref] = field(default_factory=list)
    seen: dict[str, bytes] = field(default_factory=dict)

    @property
    def session_id(self) -> str:
        """The client's session, which is part of ``local://`` ops."""
        return self.job.session.id

    @property
    def emit(self) -> Emit:
        """The build's stream."""
        return self.job.emit

    async def resolve_image_config(
        self,
        reference: str,
        *,
        platform: Platform | None,
        resolve_mode: str,
        log_name: str,
        oci_store: str = "",
    ) -> ImageConfigAnswer:
        """Look an image up, as a vertex that people see."""
        if oci_store:
            raise UnsupportedError(
                f"{reference} is in a layout of the client, and contexts from oci-layout:// are not there yet"
            )

        async def look(note: list[str]) -> ImageConfigAnswer:
            answer = await self.resolve_image(
                self.job, reference, platform=platform, resolve_mode=resolve_mode
            )
            note.append(answer.note)
            return answer

        return await self._shown(log_name or f"[internal] load metadata for {reference}", look)

    async def resolve_source_meta(
        self, identifier: str, attrs: Mapping[str, str], *, log_name: str
    ) -> SourceMetaAnswer:
        """Look a git or http source up."""
        return SourceMetaAnswer(identifier)

    async def solve(self, edge: Edge) -> Ref | None:
        """A part of the graph, now. A folder of the client is not copied but looked at."""
        op = edge.vertex.op
        if isinstance(op, SourceOp) and op.identifier.startswith("local://"):
            name = op.identifier.removeprefix("local://")

            async def look(note: list[str]) -> Ref:
                directory = await self.job.session.local(name)
                if directory is None:
                    raise SourceError(
                        f"the client gave no folder called {name!r}: say CONTEXT, or --build-context {name}=FOLDER"
                    )
                return DirectoryRef(directory)

            return await self._shown(
                edge.vertex.meta.name or f"[internal] load {name}", look, edge.vertex.digest
            )
        ref = await self.solve_edge(edge)
        if ref is not None:
            self.held.append(ref)
        return ref

    async def read_file(self, ref: Ref | None, path: str, *, limit: int = LIMIT) -> bytes | None:
        """A file of a result; None where there is none."""
        if ref is None:
            return None
        if isinstance(ref, DirectoryRef):
            # A notebook's Dockerfile is in memory; a small file is read faster than a thread is started.
            data = ref.read(path, limit)
            if data is not None:
                self.seen[path.lstrip("/")] = data
            return data
        return await self.worker.read(ref, path, limit)

    async def stat_file(self, ref: Ref | None, path: str) -> Mapping[str, Any] | None:
        """Mode, size and kind of a file; None where there is none."""
        if ref is None:
            return None
        if isinstance(ref, DirectoryRef):
            data = await asyncio.to_thread(ref.read, path, LIMIT)
            return None if data is None else {"path": path, "size": len(data)}
        return await self.worker.stat(ref, path)

    async def release(self) -> None:
        """Let go of what the frontend looked at."""
        while self.held:
            await self.held.pop().release()

    async def _shown(
        self, name: str, look: Callable[[list[str]], Awaitable[T]], digest: Digest | None = None
    ) -> T:
        vertex = digest or Digest.of_text(f"{self.job.id}:{name}")
        started = time.time()
        self.emit(VertexEvent(vertex, name, kind="internal", started=started))
        note: list[str] = []
        try:
            found = await look(note)
        except asyncio.CancelledError:
            self.emit(
                VertexEvent(
                    vertex,
                    name,
                    kind="internal",
                    started=started,
                    completed=time.time(),
                    outcome=Outcome.CANCELLED,
                )
            )
            raise
        except Exception as error:
            self.emit(
                VertexEvent(
                    vertex,
                    name,
                    kind="internal",
                    started=started,
                    completed=time.time(),
                    outcome=Outcome.FAILED,
                    error=str(error),
                )
            )
            raise
        self.emit(
            VertexEvent(
                vertex,
                name,
                kind="internal",
                started=started,
                completed=time.time(),
                outcome=Outcome.RAN,
                note="".join(note),
            )
        )
        return found
