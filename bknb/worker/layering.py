"""MergeOp, DiffOp and PassthroughOp: results made of results, without touching a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from bknb.errors import DefinitionError
from bknb.llb.ops import DiffOp, MergeOp, PassthroughOp
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, Ref

if TYPE_CHECKING:
    from bknb.worker.worker import LocalWorker


class LayeringOperation(Struct, frozen=True, eq=False):
    """Lays results over each other, takes them apart, or hands them on."""

    vertex: Vertex
    op: MergeOp | DiffOp | PassthroughOp
    cache_map: CacheMap
    worker: LocalWorker

    async def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """Keyed by the definition alone."""
        yield self.cache_map

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """One result; for a passthrough one for each of its outputs.

        Raises:
            DefinitionError: an index that points nowhere.
        """
        refs, name = self.worker.refs, self.worker.veil.text(self.vertex.meta.name)
        match self.op:
            case MergeOp(indexes):
                return (
                    await refs.merge([self._input(inputs, i) for i in indexes], description=name or "merge"),
                )
            case DiffOp(lower, upper):
                below = None if lower is None else self._input(inputs, lower)
                above = None if upper is None else self._input(inputs, upper)
                return (await refs.diff(below, above, description=name or "diff"),)
            case PassthroughOp(_, outputs):
                passed = [self._input(inputs, i) for i in outputs] if outputs else list(inputs)
                return tuple(None if ref is None else ref.clone() for ref in passed)

    def _input(self, inputs: Sequence[Ref | None], index: int) -> Ref | None:
        if index == -1:
            return None
        if not 0 <= index < len(inputs):
            raise DefinitionError(f"it names input {index}, the vertex has {len(inputs)}", self.vertex.digest)
        return inputs[index]
