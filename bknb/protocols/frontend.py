"""What compiles: a frontend, what it may ask for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bknb.digest import Digest
from bknb.errors import Range
from bknb.events import Emit
from bknb.llb.vertex import Edge
from bknb.platforms import Platform
from bknb.protocols.storage import Ref


@dataclass(frozen=True, slots=True)
class ImageConfigAnswer:
    """What a look-up of an image found.

    `reference` is the name that the graph shall use, `config` the image config's JSON bytes, `digest` that of
    the manifest or index (None where there is none).
    """

    reference: str
    digest: Digest | None
    config: bytes
    note: str = ""


@dataclass(frozen=True, slots=True)
class SourceMetaAnswer:
    """What a look-up of a git or http source found."""

    identifier: str
    git_commit: bytes | None = None
    http_last_modified: float | None = None


class Bridge(Protocol):
    """What a frontend may ask of the build that it serves."""

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Platforms that the worker runs, the native one first."""

    @property
    def session_id(self) -> str: ...

    @property
    def emit(self) -> Emit: ...

    async def resolve_image_config(
        self,
        reference: str,
        *,
        platform: Platform | None,
        resolve_mode: str,
        log_name: str,
        oci_store: str = "",
    ) -> ImageConfigAnswer:
        """Look up an image's config in its registry, or in the client's OCI layout of that name."""

    async def resolve_source_meta(
        self, identifier: str, attrs: Mapping[str, str], *, log_name: str
    ) -> SourceMetaAnswer: ...

    async def solve(self, edge: Edge) -> Ref | None:
        """Build a part of the graph now: for files that the frontend reads."""

    async def read_file(self, ref: Ref | None, path: str, *, limit: int = 16 << 20) -> bytes | None:
        """A file of a result, or None if it is not there."""

    async def stat_file(self, ref: Ref | None, path: str) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class FrontendRequest:
    """`opts` are exactly what ``buildctl build --opt k=v`` sends; `inputs` are named definitions."""

    opts: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Edge] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VertexInfo:
    """Where a vertex stands in its Dockerfile."""

    stage: str
    command: str
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class SkippedStage:
    """A stage that the target does not need, as (instruction text, range) pairs."""

    name: str
    instructions: tuple[tuple[str, Range], ...] = ()


@dataclass(frozen=True, slots=True)
class PlatformResult:
    """What a frontend made for one platform. `edge` None is scratch; `image_config` is exact JSON text."""

    platform: Platform | None
    edge: Edge | None
    image_config: str = ""
    base_image_config: str = ""
    epoch: int | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """The Dockerfile asks for another frontend (``# syntax=``)."""

    source: str
    opts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FrontendResult:
    """Everything that a frontend found out. `metadata` holds the answers of subrequests too."""

    results: tuple[PlatformResult, ...] = ()
    warnings: tuple[Any, ...] = ()
    vertices: Mapping[Digest, VertexInfo] = field(default_factory=dict)
    skipped: tuple[SkippedStage, ...] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    forward: Forward | None = None
    filename: str = ""
    source: bytes = b""


class Frontend(Protocol):
    """Turns a request into graphs."""

    name: str

    async def solve(self, request: FrontendRequest, bridge: Bridge) -> FrontendResult:
        """Compile.

        Raises:
            DockerfileError: the input is wrong.
        """
