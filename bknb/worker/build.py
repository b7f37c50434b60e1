"""BuildOp: a definition that is a file of its input, built in its place (solver/llbsolver/ops/build.go)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from bknb.errors import DefinitionError, UnsupportedError
from bknb.llb import Definition
from bknb.llb.ops import BuildOp
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, Ref

if TYPE_CHECKING:
    from bknb.worker.worker import LocalWorker

_LLB_BUILDER = -1
"""pb.LLBBuilder: the definition is LLB."""
LIMIT = 16 << 20
"""Largest nested definition in bytes."""


class BuildOperation(Struct, frozen=True, eq=False):
    """Builds what its input says."""

    vertex: Vertex
    op: BuildOp
    cache_map: CacheMap
    worker: LocalWorker

    async def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """Keyed by the definition alone."""
        yield self.cache_map

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """The result of the nested definition.

        Raises:
            DefinitionError: the file is missing or no definition.
            StepError: a vertex of it failed.
        """
        if self.op.builder != _LLB_BUILDER:
            raise UnsupportedError("a build op with a builder of its own is not run: only nested LLB is")
        index = self.op.inputs.get("buildkit.llb.definition")
        if index is None or not 0 <= index < len(inputs):
            raise DefinitionError("a build op needs the input buildkit.llb.definition", self.vertex.digest)
        ref = inputs[index]
        filename = self.op.attrs.get("llbbuild.filename") or "buildkit.llb.definition"
        data = await self.worker.read(ref, filename, LIMIT) if ref is not None else None
        if data is None:
            raise DefinitionError(f"there is no file {filename} to build", self.vertex.digest)
        edge = Definition.from_bytes(data).to_edge()
        return (None if edge is None else await job.solve(edge),)
