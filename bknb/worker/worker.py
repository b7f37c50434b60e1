"""The worker of this machine: gives every op its behaviour."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from msgspec import Struct

from bknb import keys
from bknb.digest import Digest
from bknb.errors import DefinitionError, UnsupportedError
from bknb.llb import ops
from bknb.llb.veil import Veil
from bknb.llb.vertex import Vertex
from bknb.platforms import Platform
from bknb.protocols import CacheMap, Dep, Executor, Job, Operation, Ref, RefStore, Shim
from bknb.settings import Settings
from bknb.worker.batch import FileBatch
from bknb.worker.build import BuildOperation
from bknb.worker.content import ContentHasher
from bknb.worker.exec import ExecOperation
from bknb.worker.file import FileOperation
from bknb.worker.layering import LayeringOperation

_KEPT_MAPS = 20_000
"""Cache maps that are kept in memory, about 1 kB each."""


class Source(Protocol):
    """One kind of source."""

    schemes: tuple[str, ...]

    def cache_maps(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """Its keys, cheap first."""

    async def snapshot(self, vertex: Vertex, job: Job) -> Ref | None:
        """Its files."""


class SourceOperation(Struct, frozen=True, eq=False):
    """A vertex that brings something from outside."""

    vertex: Vertex
    source: Source

    @property
    def cache_map(self) -> CacheMap | None:
        """None: a source is asked."""
        return None

    def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """The source's keys."""
        return self.source.cache_maps(self.vertex, job)

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """Its files, as the one output."""
        return (await self.source.snapshot(self.vertex, job),)


_OPERATIONS: Mapping[type[ops.Op], Callable[..., Operation]] = {
    ops.ExecOp: ExecOperation,
    ops.FileOp: FileOperation,
    ops.MergeOp: LayeringOperation,
    ops.DiffOp: LayeringOperation,
    ops.PassthroughOp: LayeringOperation,
    ops.BuildOp: BuildOperation,
}


class LocalWorker:
    """Implements `protocols.Worker` with a `RefStore`, a `Shim` and an `Executor`."""

    def __init__(
        self, *, settings: Settings, refs: RefStore, shim: Shim, executor: Executor, sources: Sequence[Source],
        hasher: ContentHasher, files: FileBatch, platforms: tuple[Platform, ...],
    ) -> None:  # fmt: skip
        self.settings = settings
        self.refs = refs
        self.shim = shim
        self.executor = executor
        self.hasher = hasher
        self.files = files
        self._platforms = platforms
        self._sources: Mapping[str, Source] = {
            scheme: source for source in sources for scheme in source.schemes
        }
        self.veil = Veil()
        """Of all builds so far: what is not written down."""
        self._granted: dict[str, frozenset[str]] = {}
        self._cache_maps: dict[Digest, CacheMap] = {}

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What this machine runs, the native platform first."""
        return self._platforms

    def resolve(self, vertex: Vertex) -> Operation:
        """The operation of a vertex.

        Raises:
            DefinitionError: an op or a source that is not known.
        """
        op = vertex.op
        operation = _OPERATIONS.get(type(op))
        if operation is not None:
            return operation(vertex, op, self._cache_map(vertex), self)
        if not isinstance(op, ops.SourceOp):
            raise DefinitionError(f"unknown op {type(op).__name__}", vertex.digest)
        source = self._sources.get(op.identifier.partition("://")[0])
        if source is None:
            raise UnsupportedError(
                f"sources like {op.identifier[:80]} are not there yet: images and local folders are"
            )
        return SourceOperation(vertex, source)

    def missing(self, results: Collection[str]) -> Collection[str]:
        """Those of some results that `load` would not find."""
        return self.refs.missing(results)

    async def load(self, result: str) -> Ref | None:
        """The Ref that a cache record names, or None if it is gone."""
        return await self.refs.get(result)

    async def read(self, ref: Ref, path: str, limit: int) -> bytes | None:
        """A file of a result, or None where there is none."""
        answer = await self.shim.call(
            "views.read", mounts=[m.to_json() for m in await ref.mounts()], path=path, limit=limit
        )
        return None if answer is None else base64.b64decode(answer)

    async def stat(self, ref: Ref, path: str) -> Mapping[str, Any] | None:
        """Mode, size and owner of a file of a result, or None where there is none."""
        answer: Mapping[str, Any] | None = await self.shim.call(
            "views.stat", mounts=[m.to_json() for m in await ref.mounts()], path=path
        )
        return answer

    def resolv_conf(self) -> str | None:
        """The text of a step's /etc/resolv.conf where the settings say one; None for the host's."""
        lines = [f"nameserver {address}" for address in self.settings.dns_nameservers]
        if self.settings.dns_search:
            lines.append(f"search {' '.join(self.settings.dns_search)}")
        if self.settings.dns_options:
            lines.append(f"options {' '.join(self.settings.dns_options)}")
        return "\n".join(lines) + "\n" if lines else None

    def entitled(self, job: Job, entitlement: str) -> bool:
        """Whether a job may have a step do what an entitlement stands for."""
        return entitlement in self.settings.entitlements or entitlement in self._granted.get(
            job.id, frozenset()
        )

    @contextmanager
    def granted(self, job: str, entitlements: frozenset[str], veil: Veil = Veil()) -> Iterator[None]:  # noqa: B008 - frozen
        """Give a job entitlements for as long as the context lasts; what it veils is not written down from now on."""
        self._granted[job] = entitlements
        self.veil |= veil
        try:
            yield
        finally:
            del self._granted[job]

    def _cache_map(self, vertex: Vertex) -> CacheMap:
        """The cache map of a vertex; kept, since a rebuild asks for the same ones again."""
        known = self._cache_maps.get(vertex.digest)
        if known is None:
            spec = keys.cache_map(vertex, self._platforms[0])
            told = self._told(vertex, spec)
            deps = (self._dep(dep, text.paths) for dep, text in zip(spec.deps, told.deps, strict=True))
            known = CacheMap(spec.digest, tuple(deps), told.plaintext)
            if len(self._cache_maps) >= _KEPT_MAPS:
                self._cache_maps.clear()
            self._cache_maps[vertex.digest] = known
        return known

    def _told(self, vertex: Vertex, spec: keys.CacheMapSpec) -> keys.CacheMapSpec:
        """The cache map whose texts are written down: that of the op without what is veiled."""
        if not self.veil.touches(vertex.data):
            return spec
        try:
            return keys.cache_map(replace(vertex, op=self.veil.value(vertex.op)), self._platforms[0])
        except DefinitionError:  # a definition inside of the op, of which bytes cannot be replaced
            return replace(spec, plaintext="", deps=tuple(replace(dep, paths=()) for dep in spec.deps))

    def _dep(self, spec: keys.DepSpec, paths: Sequence[str]) -> Dep:
        selectors = spec.content

        async def content(job: Job, ref: Ref | None) -> Digest:
            assert selectors is not None
            return await self.hasher.digest(ref, selectors)

        async def unpack(job: Job, ref: Ref | None) -> None:
            if ref is not None:
                await ref.mounts()

        return Dep(
            spec.selector,
            content if selectors is not None else None,
            unpack if spec.preprocess else None,
            "\0".join(paths),
        )
