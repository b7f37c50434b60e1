"""What is stored: blobs, snapshots, layers, and the counted holds on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bknb.digest import Digest
from bknb.oci.types import Descriptor
from bknb.protocols.executor import Mounts


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob of a content store; `size` in bytes, times in unix seconds."""

    digest: Digest
    size: int
    created: float = 0.0


class BlobWriter(Protocol):
    """An unfinished blob. Leaving its context without commit keeps nothing."""

    offset: int

    def write(self, data: bytes | memoryview) -> None: ...

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        """Put it in the store, durably.

        Raises:
            ContentError: the bytes have another digest or size.
        """

    def __enter__(self) -> BlobWriter: ...

    def __exit__(self, *error: object) -> None: ...


class ContentStore(Protocol):
    """Immutable bytes by digest, on disk."""

    def info(self, digest: Digest) -> BlobInfo | None: ...

    def read(self, digest: Digest) -> bytes:
        """A small blob, whole (manifests, configs).

        Raises:
            ContentError: it is not there, or larger than 16 MiB.
        """

    def open(self, digest: Digest) -> int:
        """A file descriptor for reading, positioned at 0; the caller closes it.

        Raises:
            ContentError: it is not there.
        """

    def path(self, digest: Digest) -> str:
        """Where the blob lies; for handing to other programs."""

    def write(self) -> BlobWriter: ...

    def put(self, data: bytes) -> Digest:
        """Store a small blob."""

    def delete(self, digest: Digest) -> None: ...

    def walk(self) -> Sequence[BlobInfo]: ...


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot: `kind` is ``active`` or ``committed``; parents bottom first (one, save for merges)."""

    name: str
    kind: str
    parents: tuple[str, ...] = ()
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Disk that a snapshot alone takes."""

    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class LayerDirectory:
    """One layer on disk, as a snapshotter keeps it.

    Attributes:
        path: what the step added, changed and, as whiteouts, removed.
        lower: the directories that it was written on, bottom first.
        marks: how whiteouts are spelled (`bknb.shim.marks`).
    """

    path: str
    lower: tuple[str, ...]
    marks: str


class Snapshotter(Protocol):
    """File system states; containerd's verbs. Names are given by the caller."""

    name: str

    async def prepare(self, name: str, parent: str = "") -> Mounts:
        """An active, writable snapshot on a committed parent ("" is empty)."""

    async def view(self, name: str) -> Mounts:
        """Mounts for reading a committed snapshot. They may be mounted any number of times."""

    async def mounts(self, name: str) -> Mounts:
        """Mounts of an active snapshot, again."""

    async def commit(self, name: str, active: str) -> Usage:
        """Make an active snapshot immutable, under a new name."""

    async def prepare_each(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Mounts]:
        """`prepare` of several, as (name, parent) pairs: all or none, at little more than the price of one."""

    async def commit_each(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Usage]:
        """`commit` of several, as (name, active) pairs: all or none."""

    async def prepare_folder(self, name: str, base: str = "") -> Mounts:
        """An active snapshot for cache mounts: a copy of its base, mounted any number of times, never committed.

        It stays until it is removed, over restarts too.
        """

    async def layer(self, name: str) -> LayerDirectory | None:
        """The layer that a committed snapshot adds; None for a merge, and for a difference to an ancestor."""

    async def merge(self, name: str, parents: Sequence[str]) -> None:
        """A committed snapshot: the layers of each parent laid over those of the ones before."""

    async def diff(self, name: str, lower: str, upper: str) -> None:
        """A committed snapshot holding what `upper` has over `lower`, deletions included, for merging."""

    async def stat(self, name: str) -> SnapshotInfo | None: ...

    def are_there(self, names: Collection[str]) -> bool:
        """Whether all of some committed snapshots are there, with their files."""

    async def usage(self, name: str) -> Usage: ...

    async def remove(self, name: str) -> None:
        """Remove it, with its files. A snapshot that others stand on is hidden and goes with the last."""

    async def walk(self) -> Sequence[SnapshotInfo]: ...


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer as a blob: `diff_id` is the digest of its tar, `compressor` what made the bytes.

    `created` (unix seconds) and `description` are those of the layer's record: an image's history tells them.
    """

    descriptor: Descriptor
    diff_id: Digest
    compressor: str = ""
    created: float | None = None
    description: str = ""


class Layers(Protocol):
    """Makes blobs of layer directories, and the other way round (`bknb.layers`)."""

    async def create(
        self, directory: LayerDirectory, compression: Compression, progress: Progress | None = None
    ) -> LayerBlob:
        """A layer directory as a blob in the content store."""

    async def apply(self, blob: LayerBlob, mounts: Mounts, progress: Progress | None = None) -> None:
        """Unpack a blob of the content store over a tree.

        Raises:
            ContentError: it is not there, damaged, or has another diff_id.
        """

    async def convert(
        self, blob: LayerBlob, compression: Compression, progress: Progress | None = None
    ) -> LayerBlob:
        """The same layer in another compression."""


class Ref(Protocol):
    """A counted hold on an immutable result. An output that is empty (scratch) is None, not a Ref.

    Each Ref is released once; what is released last may be pruned.
    """

    @property
    def id(self) -> str:
        """The id of the record that it holds; lasts over restarts."""

    def clone(self) -> Ref: ...

    async def release(self) -> None: ...

    async def mounts(self) -> Mounts:
        """For reading; pulls and unpacks what is still lazy."""

    async def size(self) -> int:
        """Bytes that this result adds to its parents."""


@runtime_checkable
class MutableRef(Protocol):
    """A snapshot that is being written."""

    @property
    def id(self) -> str: ...

    async def mounts(self) -> Mounts: ...

    async def commit(self) -> Ref:
        """Make it immutable; the MutableRef is used up."""

    async def discard(self) -> None:
        """Throw it away. After commit or discard this does nothing."""


class RefStore(Protocol):
    """Results on disk: records in sqlite, files in the snapshotter, blobs in the content store."""

    async def new(self, parent: Ref | None, *, description: str, kind: str = "regular") -> MutableRef:
        """Begin a result on top of another. `kind` is BuildKit's record type (``source.local`` ...)."""

    async def new_each(self, wanted: Sequence[tuple[Ref | None, str]]) -> Sequence[MutableRef]:
        """`new` of several, as (parent, description) pairs: all or none, at little more than the price of one."""

    async def commit_each(self, made: Sequence[MutableRef]) -> Sequence[Ref]:
        """`MutableRef.commit` of several: all or none."""

    def missing(self, ids: Collection[str]) -> Collection[str]:
        """Those of some records that `get` would not find; nothing is held, and nothing forgotten."""

    async def get(self, id: str) -> Ref | None:
        """A hold on a record, or None if it or what it needs is gone."""

    async def from_layers(self, layers: Sequence[LayerBlob], fetch: Fetch, *, description: str) -> Ref | None:
        """A lazy result: the layers are fetched and unpacked when its mounts are asked for."""

    async def merge(self, refs: Sequence[Ref | None], *, description: str) -> Ref | None: ...

    async def diff(self, lower: Ref | None, upper: Ref | None, *, description: str) -> Ref | None: ...

    def share(self, ref: Ref, lender: Ref) -> None:
        """A result has files of another, which therefore stays as long as it."""

    async def layers(
        self, ref: Ref | None, compression: Compression, *, progress: Progress | None = None
    ) -> tuple[LayerBlob, ...]:
        """The result as layer blobs, bottom first; made where they are missing, once."""

    def cache_mount(
        self, key: str, base: Ref | None, sharing: str, *, description: str, job: str = ""
    ) -> AbstractAsyncContextManager[Mounts]:
        """The files of a cache mount, writable, for as long as the context lasts.

        `sharing` is ``shared`` (any number at once), ``private`` (a second user gets its own) or ``locked``
        (a second user waits, over kernels too). A new one starts with the files of `base`.
        """

    async def layer_mounts(self, ref: Ref | None) -> tuple[str, ...]:
        """Ids of the layer records of a result, bottom first."""


Progress = Callable[[str, int, int], None]
"""Called with (name of the thing, done, total), in bytes; total 0 is unknown."""

Fetch = Callable[[Descriptor, Progress | None], Awaitable[None]]
"""Brings a blob into the content store."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How layers are written: ``gzip``, ``zstd`` or ``uncompressed``; None is the compressor's default level."""

    type: str = "gzip"
    level: int | None = None
    force: bool = False
