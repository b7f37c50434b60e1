"""What a build is asked for and answers, and who serves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from bknb.digest import Digest
from bknb.errors import BknbError
from bknb.events import Emit
from bknb.llb.vertex import Edge
from bknb.platforms import Platform
from bknb.protocols.frontend import FrontendResult
from bknb.protocols.solver import Job, Session
from bknb.protocols.storage import Ref


@dataclass(frozen=True, slots=True)
class ExportInput:
    """One platform's result on its way out; `base_image_config` tells an epoch which history it may not touch."""

    ref: Ref | None
    platform: Platform | None
    image_config: str
    epoch: int | None = None
    base_image_config: str = ""


class Exporter(Protocol):
    """Writes a result for others. Two steps, so that nothing half-made is ever published.

    `export` writes locally and returns what publishes it; the answer of that is the exporter's response
    (``containerimage.digest`` and so on, BuildKit's keys).
    """

    name: str

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]: ...


class Limiter(Protocol):
    """Slots for parallel work (``max-parallelism``); no limit unless there is one."""

    @property
    def full(self) -> bool:
        """Whether whoever asks for a slot now has to wait."""

    def slot(self) -> AbstractAsyncContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One output that was asked for, in BuildKit's words (FACTS: exporters and their attributes)."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a build, for its record: a notebook's cell, or a command."""

    notebook: str = ""
    cell: str = ""
    kernel: str = ""
    options: str = ""
    """The words, values of secrets and build arguments that look like one taken out."""
    context: str = ""
    dockerfile: str = ""
    """The file's path; "" where its text was given, or there is none."""


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """A build.

    Attributes:
        frontend: ``dockerfile.v0``, or "" to build `edge`.
        opts: the frontend's options, as ``buildctl build --opt k=v`` sends them.
        edge: what to build where there is no frontend; None is scratch.
        exports: where the result goes; none is fine.
        max_parallelism: steps of this build that may run at once; None for the builder's own limit.
        entitlements: what this build may ask for, beyond the builder's own.
        title: what people call it.
        compile_only: stop when the graph is known.
        fail_on_miss: fail instead of running a step that is not cached.
    """

    frontend: str = ""
    opts: Mapping[str, str] = field(default_factory=dict)
    edge: Edge | None = None
    exports: tuple[ExportRequest, ...] = ()
    max_parallelism: int | None = None
    entitlements: frozenset[str] = frozenset()
    title: str = ""
    origin: Origin = Origin()
    compile_only: bool = False
    fail_on_miss: bool = False


@dataclass(frozen=True, slots=True)
class SolveResult:
    """A finished build; one that failed is a result too, with what there is of it.

    Attributes:
        id: that of its record.
        frontend: everything that was compiled.
        exports: one response for each export, in order.
        results: by vertex, the record ids of its outputs ("" for an empty one), as far as they are known.
        error: why it failed, or None. A StepError's Refs are released already; `failed` names them.
        failed: record ids of what the failed step's mounts held, by output, then of its inputs.
    """

    id: str
    frontend: FrontendResult
    exports: tuple[Mapping[str, str], ...] = ()
    results: Mapping[Digest, tuple[str, ...]] = field(default_factory=dict)
    error: BknbError | None = None
    failed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


class Builder(Protocol):
    """What a notebook talks to: the one in this kernel, or a buildkitd elsewhere."""

    name: str

    async def solve(self, request: SolveRequest, session: Session, emit: Emit) -> SolveResult:
        """Build. Cancelling ends everything that this build alone had started."""

    async def aclose(self) -> None:
        """End everything that was started. What was built stays."""
