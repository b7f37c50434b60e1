"""How a record becomes files or blobs, when they are wanted.

An image's layers are neither fetched nor unpacked, and a merge or difference is not made, before somebody asks for
its mounts. What is made is made once, for all who wait: by a lock for each record, so that who is cancelled takes
nobody along; and where two kernels make the same, the second keeps the first one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

from bknb.cache.handles import active_name
from bknb.cache.records import Record, RecordTable
from bknb.errors import SnapshotError
from bknb.protocols import Compression, ContentStore, Fetch, LayerBlob, Layers, Progress, Snapshotter


class Maker:
    """Makes snapshots and blobs of records.

    Attributes:
        records: what is to be made, and what was.
        fetches: by record, where its blob comes from.
    """

    def __init__(
        self, records: RecordTable, snapshots: Snapshotter, content: ContentStore, layers: Layers
    ) -> None:
        self.records = records
        self.fetches: dict[str, Fetch] = {}
        self._snapshots = snapshots
        self._content = content
        self._layers = layers
        self._locks: dict[str, _Lock] = {}

    async def materialise(self, id: str) -> str:
        """The snapshot of a record, made now if there is none.

        Raises:
            SnapshotError: the record is gone, or cannot be made any more.
        """
        if made := self.records.need(id).snapshot:
            return made
        await self._fetch_all(id)
        todo = [id]
        while todo:
            record = self.records.need(todo[-1])
            missing = [
                parent
                for parent in record.parents
                if parent is not None and not record.snapshot and not self.records.need(parent).snapshot
            ]
            if missing:
                todo += missing
                continue
            todo.pop()
            if not record.snapshot:
                async with self.locked(record.id):
                    record = self.records.need(record.id)
                    if not record.snapshot:
                        await self._make(record)
        return self.records.need(id).snapshot

    async def _make(self, record: Record) -> None:
        """Make the snapshot of a record whose parents have theirs."""
        below = [self.records.need(parent).snapshot if parent is not None else "" for parent in record.parents]
        if await self._snapshots.stat(record.id) is None:
            match record.kind:
                case "merge":
                    await self._once(record.id, self._snapshots.merge(record.id, below))
                case "diff":
                    await self._once(record.id, self._snapshots.diff(record.id, *below))
                case _:
                    await self._unpack(record, below[0] if below else "")
        self.records.materialised(record.id, record.id, (await self._snapshots.usage(record.id)).bytes)

    async def _once(self, name: str, making: Awaitable[object]) -> None:
        """Await what makes a snapshot, unless another kernel is faster."""
        try:
            await making
        except SnapshotError:
            if await self._snapshots.stat(name) is None:
                raise

    async def _unpack(self, record: Record, parent: str) -> None:
        blob = await self._fetched(record.id)
        active = f"{active_name(record.id)}-{secrets.token_hex(4)}"
        mounts = await self._snapshots.prepare(active, parent)
        try:
            await self._layers.apply(blob, mounts)
            await self._once(record.id, self._snapshots.commit(record.id, active))
        finally:
            if await self._snapshots.stat(active) is not None:
                await self._snapshots.remove(active)

    async def _fetch_all(self, id: str) -> None:
        """Bring the blobs of all layers that are to be unpacked, side by side."""
        todo, lazy = [id], []
        seen = {id}
        while todo:
            record = self.records.need(todo.pop())
            if not record.snapshot:
                if record.chain is not None and self.local_blob(record.id) is None:
                    lazy.append(record.id)
                todo += [parent for parent in record.parents if parent is not None and parent not in seen]
                seen.update(parent for parent in record.parents if parent is not None)
        if len(lazy) < 2:
            return  # it is fetched when it is unpacked
        async with side_by_side() as group:
            for layer in reversed(lazy):
                group.create_task(self._fetched(layer))

    async def _fetched(self, id: str, progress: Progress | None = None) -> LayerBlob:
        """A blob of a record, in the content store.

        Raises:
            SnapshotError: it is not there, and nobody knows where to get it.
        """
        async with self.locked(f"fetch {id}"):
            blob = self.local_blob(id)
            if blob is not None:
                return blob
            known = self.records.blobs(id)
            fetch = self.fetches.get(id)
            if not known or fetch is None:
                raise SnapshotError("a layer is gone from the store and must be pulled again: build again")
            await fetch(known[-1].descriptor, progress)
            return known[-1]

    async def layer_into(
        self, found: dict[str, LayerBlob], id: str, compression: Compression, progress: Progress | None
    ) -> None:
        async with self.locked(f"blob {id}"):
            found[id] = await self._layer(id, compression, progress)

    async def _layer(self, id: str, compression: Compression, progress: Progress | None) -> LayerBlob:
        """One layer record as a blob."""
        blobs = self.records.blobs(id)
        there = [blob for blob in blobs if self._content.info(blob.descriptor.digest) is not None]
        wanted = [blob for blob in there if _is_compressed(blob, compression)]
        if wanted:
            return wanted[0]
        if not there and id in self.fetches and blobs:
            there = [await self._fetched(id, progress)]
        if there and not compression.force:
            return there[0]
        if there:
            blob = await self._layers.convert(there[0], compression, progress)
        else:
            directory = await self._snapshots.layer(await self.materialise(id))
            if directory is None:
                raise SnapshotError(f"record {id} has no layer of its own")
            blob = await self._layers.create(directory, compression, progress)
        self.records.add_blob(id, blob)
        record = self.records.need(id)
        return LayerBlob(blob.descriptor, blob.diff_id, blob.compressor, record.created, record.description)

    def local_blob(self, id: str) -> LayerBlob | None:
        """A blob of a record that is in the content store."""
        found = self.records.blobs(id)
        return next((blob for blob in found if self._content.info(blob.descriptor.digest) is not None), None)

    @contextlib.asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[None]:
        """One at a time for each name, within this kernel."""
        lock = self._locks.setdefault(name, _Lock(asyncio.Lock()))
        lock.waiting += 1
        try:
            async with lock.lock:
                yield
        finally:
            lock.waiting -= 1
            if not lock.waiting:
                del self._locks[name]


@dataclass(slots=True)
class _Lock:
    lock: asyncio.Lock
    waiting: int = 0


@contextlib.asynccontextmanager
async def side_by_side() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first error is raised as itself: the others are consequences or the same."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _is_compressed(blob: LayerBlob, compression: Compression) -> bool:
    """Whether a blob has the wanted compression, by its media type."""
    kind = blob.descriptor.media_type
    if kind.endswith("gzip"):
        return compression.type == "gzip"
    if kind.endswith("zstd"):
        return compression.type == "zstd"
    return compression.type == "uncompressed"
