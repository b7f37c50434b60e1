"""Compiling the Dockerfile of a commit, with the product's own frontend and without a work tree.

The frontend reads the Dockerfile and the ignore file and nothing else, so one compilation serves every commit in
which these are the same. Configs of base images are asked for once: all commits are built on the images of today.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bknb.cache.handles import UncountedRef
from bknb.digest import Digest
from bknb.errors import BknbError, SourceError, UnsupportedError
from bknb.events import Emit, Event
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.keys import CacheMapSpec, cache_map
from bknb.llb.marshal import walk
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Edge, Vertex
from bknb.platforms import Platform
from bknb.protocols import (
    FrontendRequest,
    ImageConfigAnswer,
    Ref,
    SourceMetaAnswer,
)

IGNORE: Final = ".dockerignore"
SESSION: Final = "replay"

ResolveImage = Callable[[str, Platform | None, str], ImageConfigAnswer]
"""Looks up the config of an image: its name, the platform, the mode (``default``, ``pull``, ``local``)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a Dockerfile that does something, and the vertices that it has become."""

    stage: str
    command: str
    line: int
    kind: str
    vertices: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A Dockerfile's graph.

    Attributes:
        edge: what is built; None is scratch.
        steps: in the order of the file.
        exclude: patterns that are kept out of the context.
        maps: the cache map of each vertex that is not a source.
    """

    edge: Edge | None
    steps: tuple[Step, ...] = ()
    exclude: tuple[str, ...] = ()
    maps: Mapping[Digest, CacheMapSpec] = field(default_factory=dict)


class Images:
    """Configs of base images, each asked for once.

    Args:
        resolve: asks the store or a registry.
    """

    def __init__(self, resolve: ResolveImage) -> None:
        self._resolve = resolve
        self._known: dict[tuple[str, Platform | None], ImageConfigAnswer | BknbError] = {}

    def find(self, reference: str, platform: Platform | None, mode: str = "default") -> ImageConfigAnswer:
        """The config of an image.

        Raises:
            BknbError: it cannot be had; the same for everybody who asks again.
        """
        key = reference, platform
        if key not in self._known:
            try:
                self._known[key] = self._resolve(reference, platform, mode)
            except BknbError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, BknbError):
            raise found
        return found

    def failure(self) -> BknbError | None:
        """Why an image could not be had, if there is one."""
        return next((found for found in self._known.values() if isinstance(found, BknbError)), None)


class Compiler:
    """Compiles what differs, once.

    Args:
        images: configs of base images.
        platform: what is built for.
        filename: the Dockerfile's name, without its folder.
    """

    def __init__(self, images: Images, platform: Platform, filename: str) -> None:
        self._images = images
        self._platform = platform
        self._filename = filename
        self._frontend = DockerfileFrontend(host=platform)
        self._known: dict[tuple[object, ...], Compiled | BknbError] = {}

    async def compile(
        self, dockerfile: bytes, ignore: Mapping[str, bytes], opts: Mapping[str, str]
    ) -> Compiled:
        """The graph of a Dockerfile.

        Args:
            dockerfile: its text.
            ignore: ignore files by name.
            opts: the frontend's options.

        Raises:
            BknbError: it cannot be compiled.
        """
        key = (dockerfile, tuple(sorted(ignore.items())), tuple(sorted(opts.items())))
        if key not in self._known:
            files = {**ignore, self._filename: dockerfile}
            try:
                self._known[key] = await self._compile(files, opts)
            except BknbError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, BknbError):
            raise found
        return found

    async def _compile(self, files: Mapping[str, bytes], opts: Mapping[str, str]) -> Compiled:
        bridge = _Bridge(files, self._images, self._platform)
        request = FrontendRequest({**opts, "filename": self._filename})
        found = await self._frontend.solve(request, bridge)
        if found.forward is not None:
            raise UnsupportedError(f"# syntax={found.forward.source}: frontends as images are not run yet")
        edge = found.results[0].edge
        vertices = list({v.digest: v for v in walk(edge.vertex)}.values()) if edge is not None else []
        steps: dict[tuple[object, ...], list[Vertex]] = {}
        for vertex in vertices:
            info = found.vertices.get(vertex.digest)
            if info is not None and info.command and not isinstance(vertex.op, SourceOp):
                line = info.ranges[0].start_line if info.ranges else 0
                steps.setdefault((info.stage, info.command, line), []).append(vertex)
        return Compiled(
            edge,
            tuple(sorted((_step(place, made) for place, made in steps.items()), key=lambda step: step.line)),
            _exclude(vertices),
            {v.digest: cache_map(v, self._platform) for v in vertices if not isinstance(v.op, SourceOp)},
        )


def _step(place: tuple[Any, ...], made: Sequence[Vertex]) -> Step:
    stage, command, line = place
    kind = type(made[-1].op).__name__.removesuffix("Op").lower()
    return Step(stage, command, line, kind, tuple(vertex.digest for vertex in made))


def _exclude(vertices: Sequence[Vertex]) -> tuple[str, ...]:
    """The patterns of the one context that a Dockerfile has."""
    for vertex in vertices:
        if isinstance(vertex.op, SourceOp) and vertex.op.identifier == "local://context":
            return tuple(json.loads(vertex.op.attrs.get("local.excludepatterns", "null")) or ())
    return ()


@dataclass(frozen=True, slots=True)
class _Folder(UncountedRef):
    """Files in memory, as a frontend looks at them."""

    files: Mapping[str, bytes]

    @property
    def id(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class _Bridge:
    """What a frontend may ask of a replay: two files, and configs of images."""

    files: Mapping[str, bytes]
    images: Images
    platform: Platform

    @property
    def platforms(self) -> tuple[Platform, ...]:
        return (self.platform,)

    @property
    def session_id(self) -> str:
        return SESSION

    @property
    def emit(self) -> Emit:
        return _nothing

    async def resolve_image_config(
        self,
        reference: str,
        *,
        platform: Platform | None,
        resolve_mode: str,
        log_name: str,
        oci_store: str = "",
    ) -> ImageConfigAnswer:
        if oci_store:
            raise UnsupportedError(f"{reference} is in a layout of a client, which a replay has not")
        return self.images.find(reference, platform, resolve_mode)

    async def resolve_source_meta(
        self, identifier: str, attrs: Mapping[str, str], *, log_name: str
    ) -> SourceMetaAnswer:
        return SourceMetaAnswer(identifier)

    async def solve(self, edge: Edge) -> Ref | None:
        op = edge.vertex.op
        if isinstance(op, SourceOp) and op.identifier.startswith("local://"):
            return _Folder(self.files)
        raise SourceError(
            "a replay runs nothing, and this Dockerfile has to read what a step makes to be compiled"
        )

    async def read_file(self, ref: Ref | None, path: str, *, limit: int = 0) -> bytes | None:
        return ref.files.get(posixpath.normpath(path).lstrip("/")) if isinstance(ref, _Folder) else None

    async def stat_file(self, ref: Ref | None, path: str) -> Mapping[str, Any] | None:
        data = await self.read_file(ref, path)
        return None if data is None else {"path": path, "size": len(data)}


def _nothing(event: Event) -> None:
    """Nobody watches."""
