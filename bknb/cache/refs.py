"""Results on disk: counted holds on records, and how a record becomes files or blobs when they are wanted.

A record is cheap: an image's layers are neither fetched nor unpacked, and a merge or difference is not made,
before somebody asks for its mounts. What is made is made once, for all who wait: by a lock for each record,
so that who is cancelled takes nobody along; and where two kernels make the same, the second keeps the
first one's.

A record is written before its snapshot is committed. So a kernel that is killed leaves a record without
snapshot, which the next start forgets, and never files that nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from bknb.cache import several
from bknb.cache.chain import chain_id, layer_chain
from bknb.cache.folders import CacheMounts
from bknb.cache.handles import StoredMutableRef, StoredRef, active_name
from bknb.cache.records import Record, RecordTable, new_id
from bknb.digest import Digest
from bknb.errors import SnapshotError
from bknb.garbage import no_collection
from bknb.owner import Owner
from bknb.protocols import (
    Compression,
    ContentStore,
    Fetch,
    LayerBlob,
    Layers,
    Mounts,
    MutableRef,
    Progress,
    Ref,
    Snapshotter,
)


class DiskRefStore:
    """A `protocols.RefStore`. All calls come from one event loop.

    Use `open`; close with `aclose`.
    """

    def __init__(self, root: Path, snapshots: Snapshotter, content: ContentStore, layers: Layers) -> None:
        self.snapshots = snapshots
        self._content = content
        self._layers = layers
        root.mkdir(parents=True, exist_ok=True)
        self._owner = Owner(root / "owners")
        # One file for each driver: what another one made is not gone, it is only out of reach here.
        self.records = RecordTable(root / f"{snapshots.name}.db", self._owner.token)
        self._folders = CacheMounts(self, root / "locks")
        self._counts: dict[str, int] = {}
        self._fetches: dict[str, Fetch] = {}
        self._touched: dict[str, float] = {}
        self._letting_go: set[str] = set()
        self._locks: dict[str, _Lock] = {}

    @classmethod
    async def open(
        cls, root: Path | str, snapshots: Snapshotter, content: ContentStore, layers: Layers
    ) -> DiskRefStore:
        """Open the records of a state folder, and forget what dead kernels left half made.

        Raises:
            StoreError: the folder cannot be used.
        """
        store = cls(Path(root), snapshots, content, layers)
        await store.bury()
        return store

    async def bury(self) -> None:
        """Drop the holds of kernels that are gone, and forget what they left half made."""
        dead = [token for token in self.records.owners() if self._owner.is_dead(token)]
        for id in self.records.bury(dead):
            record = self.records.find(id)
            if record is not None and record.kind == "layer" and not record.snapshot and not record.chain:
                if await self.snapshots.stat(id) is None:
                    self.records.forget(id)
                else:
                    self.records.materialised(id, id, (await self.snapshots.usage(id)).bytes)
        self._owner.tidy(self.records.owners())

    async def aclose(self) -> None:
        """Let go of everything."""
        self._write_holds()
        self._touch()
        self.records.close()
        self._owner.release()

    # --- holds ---

    def hold(self, id: str) -> StoredRef:
        """One more hold on a record that is there.

        Raises:
            SnapshotError: it is gone.
        """
        ref = self.try_hold(id)
        if ref is None:
            raise SnapshotError("a result that is needed was removed from the store: build again")
        return ref

    def try_hold(self, id: str) -> StoredRef | None:
        """One more hold on a record; None if another kernel removed it meanwhile."""
        if self._counts.get(id, 0) > 0:
            self._touched[id] = time.time()
        elif id in self._letting_go:
            self._letting_go.discard(id)
            self._touched[id] = time.time()
        elif not self.records.hold(id):
            return None
        return self.counted(id)

    def count(self, id: str) -> int:
        """How often this kernel holds a record."""
        return self._counts.get(id, 0)

    def _touch(self) -> None:
        """Write down when records were used that are held all the time."""
        if self._touched:
            self.records.touch(self._touched)
            self._touched = {}

    def counted(self, id: str) -> StoredRef:
        """A Ref for a record that this kernel has marked as held."""
        self._counts[id] = self._counts.get(id, 0) + 1
        return StoredRef(self, id)

    def let_go(self, id: str) -> None:
        """One hold less. Those of one turn of the loop are written together: a job lets go of all that it built."""
        self._counts[id] -= 1
        if self._counts[id] == 0:
            del self._counts[id]
            if not self._letting_go:
                asyncio.get_running_loop().call_soon(self._write_holds)
            self._letting_go.add(id)

    def _write_holds(self) -> None:
        """Write down what is not held any more."""
        if self._letting_go:
            ids, self._letting_go = self._letting_go, set()
            self.records.let_go(ids)

    def size(self, id: str) -> int:
        """Bytes of a record itself; of a lazy layer, those of its blob."""
        record = self.records.find(id)
        if record is None:
            return 0
        if record.size is not None:
            return record.size
        return sum(blob.descriptor.size for blob in self.records.blobs(id)[:1])

    def sizes(self, ids: Collection[str]) -> dict[str, int]:
        """`size` of several records, of those that are there."""
        known = self.records.sizes(ids)
        return {id: self.size(id) if size is None else size for id, size in known.items()}

    # --- making records ---

    async def new(self, parent: Ref | None, *, description: str, kind: str = "regular") -> StoredMutableRef:
        (made,) = await several.begin(self, [(parent, description)])
        made.kind = kind
        return made

    async def new_each(self, wanted: Sequence[tuple[Ref | None, str]]) -> list[StoredMutableRef]:
        return await several.begin(self, wanted)

    async def commit_each(self, made: Sequence[MutableRef]) -> list[StoredRef]:
        return await several.commit(self, [each for each in made if isinstance(each, StoredMutableRef)])

    async def get(self, id: str) -> StoredRef | None:
        ref = self.try_hold(id)  # first: what is held stays while it is looked at
        record = self.records.find(id)
        if ref is None or record is None:
            return None
        if await self._is_there(record):
            return ref
        await ref.release()
        if id not in self._counts and not record.chain:
            self.records.forget(id)
            if record.snapshot:
                await self.snapshots.remove(record.snapshot)
        return None

    async def has(self, id: str) -> bool:
        """Whether `get` would find a record; nothing is held, and nothing forgotten."""
        record = self.records.find(id)
        return record is not None and await self._is_there(record)

    async def _is_there(self, record: Record) -> bool:
        """Whether a record can still become files: what is lazy asks for its parents, generation by generation."""
        todo, seen = [record], {record.id}
        snapshots: set[str] = set()
        while todo:
            wanted: dict[str, None] = {}
            for record in todo:
                if record.snapshot:
                    snapshots.add(record.snapshot)
                elif record.kind == "layer" and not (record.chain and self._can_fetch(record.id)):
                    return False
                else:
                    wanted.update((each, None) for each in record.parents if each is not None and each not in seen)
            seen.update(wanted)
            with no_collection():
                todo = self.records.find_each(wanted) if wanted else []
            if len(todo) < len(wanted):
                return False
        return not snapshots or await self.snapshots.are_there(snapshots)

    def _can_fetch(self, id: str) -> bool:
        return id in self._fetches or self._local_blob(id) is not None

    def _local_blob(self, id: str) -> LayerBlob | None:
        """A blob of a record that is in the content store."""
        found = self.records.blobs(id)
        return next((blob for blob in found if self._content.info(blob.descriptor.digest) is not None), None)

    async def from_layers(
        self, layers: Sequence[LayerBlob], fetch: Fetch, *, description: str
    ) -> StoredRef | None:
        ref: StoredRef | None = None
        chain = ""
        for blob in layers:
            chain = chain_id(chain, blob.diff_id)
            following = None
            while following is None:  # it may be pruned between being found and being held
                id = await self._image_layer(chain, blob, ref, description)
                following = self.try_hold(id)
            self._fetches[following.id] = fetch
            if ref is not None:
                await ref.release()
            ref = following
        return ref

    async def _image_layer(self, chain: str, blob: LayerBlob, below: StoredRef | None, text: str) -> str:
        """The record of an image's layers up to one of them, with a blob for it."""
        record = self.records.by_chain(chain)
        if record is None:
            parents = (below.id,) if below is not None else ()
            record = Record(new_id(), "layer", parents, chain=chain, description=text)
            if self.records.insert_chain(record, blob):
                return record.id
            record = self.records.by_chain(chain)  # another kernel was faster
            if record is None:
                raise SnapshotError("the layers of an image were removed while it was looked up: build again")
        if record.snapshot and await self.snapshots.stat(record.snapshot) is None:
            await self.snapshots.remove(record.snapshot)  # its folder is gone: to be unpacked again
            self.records.materialised(record.id, "", blob.descriptor.size)
        if blob.descriptor.digest not in {known.descriptor.digest for known in self.records.blobs(record.id)}:
            self.records.add_blob(record.id, blob)
        return record.id

    async def merge(self, refs: Sequence[Ref | None], *, description: str) -> StoredRef | None:
        found = [ref.id for ref in refs if ref is not None]
        if len(found) < 2:
            return self.hold(found[0]) if found else None
        return self._derive("merge", tuple(found), description)

    def share(self, ref: Ref, lender: Ref) -> None:
        self.records.stand_on(ref.id, lender.id)

    async def diff(self, lower: Ref | None, upper: Ref | None, *, description: str) -> StoredRef | None:
        if upper is None or lower is None:
            return self.hold(upper.id) if upper is not None else self._erase(lower, description)
        if self.chain(lower.id) == self.chain(upper.id):
            return None
        return self._derive("diff", (lower.id, upper.id), description)

    def _erase(self, lower: Ref | None, description: str) -> StoredRef | None:
        """What leads from a result to nothing: all of it deleted."""
        return self._derive("diff", (lower.id, None), description) if lower is not None else None

    def _derive(self, kind: str, parents: tuple[str | None, ...], description: str) -> StoredRef:
        id = new_id()
        self.records.insert(Record(id, kind, parents, description=description))
        return self.counted(id)

    # --- files ---

    async def mounts(self, id: str) -> Mounts:
        """Mounts for reading a record."""
        return await self.snapshots.view(await self.materialise(id))

    async def materialise(self, id: str) -> str:
        """The snapshot of a record, made now if there is none.

        Raises:
            SnapshotError: the record is gone, or cannot be made any more.
        """
        if made := self._need(id).snapshot:
            return made
        await self._fetch_all(id)
        todo = [id]
        while todo:
            record = self._need(todo[-1])
            missing = [
                parent
                for parent in record.parents
                if parent is not None and not record.snapshot and not self._need(parent).snapshot
            ]
            if missing:
                todo += missing
                continue
            todo.pop()
            if not record.snapshot:
                async with self.locked(record.id):
                    record = self._need(record.id)
                    if not record.snapshot:
                        await self._make(record)
        return self._need(id).snapshot

    def _need(self, id: str) -> Record:
        record = self.records.find(id)
        if record is None:
            raise SnapshotError("a result that is needed was removed from the store: build again")
        return record

    async def _make(self, record: Record) -> None:
        """Make the snapshot of a record whose parents have theirs."""
        below = [self._need(parent).snapshot if parent is not None else "" for parent in record.parents]
        if await self.snapshots.stat(record.id) is None:
            match record.kind:
                case "merge":
                    await self._once(record.id, self.snapshots.merge(record.id, below))
                case "diff":
                    await self._once(record.id, self.snapshots.diff(record.id, *below))
                case _:
                    await self._unpack(record, below[0] if below else "")
        self.records.materialised(record.id, record.id, (await self.snapshots.usage(record.id)).bytes)

    async def _once(self, name: str, making: Awaitable[object]) -> None:
        """Await what makes a snapshot, unless another kernel is faster."""
        try:
            await making
        except SnapshotError:
            if await self.snapshots.stat(name) is None:
                raise

    async def _unpack(self, record: Record, parent: str) -> None:
        blob = await self._fetched(record.id)
        active = f"{active_name(record.id)}-{secrets.token_hex(4)}"
        mounts = await self.snapshots.prepare(active, parent)
        try:
            await self._layers.apply(blob, mounts)
            await self._once(record.id, self.snapshots.commit(record.id, active))
        finally:
            if await self.snapshots.stat(active) is not None:
                await self.snapshots.remove(active)

    async def _fetch_all(self, id: str) -> None:
        """Bring the blobs of all layers that are to be unpacked, side by side."""
        todo, lazy = [id], []
        seen = {id}
        while todo:
            record = self._need(todo.pop())
            if not record.snapshot:
                if record.chain is not None and self._local_blob(record.id) is None:
                    lazy.append(record.id)
                todo += [parent for parent in record.parents if parent is not None and parent not in seen]
                seen.update(parent for parent in record.parents if parent is not None)
        if len(lazy) < 2:
            return  # it is fetched when it is unpacked
        async with _side_by_side() as group:
            for layer in reversed(lazy):
                group.create_task(self._fetched(layer))

    async def _fetched(self, id: str, progress: Progress | None = None) -> LayerBlob:
        """A blob of a record, in the content store.

        Raises:
            SnapshotError: it is not there, and nobody knows where to get it.
        """
        async with self.locked(f"fetch {id}"):
            blob = self._local_blob(id)
            if blob is not None:
                return blob
            known = self.records.blobs(id)
            fetch = self._fetches.get(id)
            if not known or fetch is None:
                raise SnapshotError("a layer is gone from the store and must be pulled again: build again")
            await fetch(known[-1].descriptor, progress)
            return known[-1]

    # --- layers ---

    def chain(self, id: str) -> tuple[str, ...]:
        """Ids of the layer records that a record is made of, bottom first."""
        return layer_chain(self._need, id)

    async def layer_mounts(self, ref: Ref | None) -> tuple[str, ...]:
        return self.chain(ref.id) if ref is not None else ()

    async def layers(
        self, ref: Ref | None, compression: Compression, *, progress: Progress | None = None
    ) -> tuple[LayerBlob, ...]:
        if ref is None:
            return ()
        found: dict[str, LayerBlob] = {}
        chain = self.chain(ref.id)
        async with _side_by_side() as group:
            for id in dict.fromkeys(chain):
                group.create_task(self._layer_into(found, id, compression, progress))
        return tuple(found[id] for id in chain)

    async def _layer_into(
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
        if not there and id in self._fetches and blobs:
            there = [await self._fetched(id, progress)]
        if there and not compression.force:
            return there[0]
        if there:
            blob = await self._layers.convert(there[0], compression, progress)
        else:
            directory = await self.snapshots.layer(await self.materialise(id))
            if directory is None:
                raise SnapshotError(f"record {id} has no layer of its own")
            blob = await self._layers.create(directory, compression, progress)
        self.records.add_blob(id, blob)
        record = self._need(id)
        return LayerBlob(blob.descriptor, blob.diff_id, blob.compressor, record.created, record.description)

    # --- cache mounts, pruning ---

    def cache_mount(
        self, key: str, base: Ref | None, sharing: str, *, description: str, job: str = ""
    ) -> AbstractAsyncContextManager[Mounts]:
        return self._folders.mount(key, base, sharing, description)

    async def measure(self) -> None:
        """Bring up to date what changes behind our back: sizes of cache mounts, times of use, what is held."""
        self._write_holds()
        self._touch()
        for record in self.records.all():
            if record.kind == "folder" and await self.snapshots.stat(record.snapshot) is not None:
                usage = await self.snapshots.usage(record.snapshot)
                self.records.materialised(record.id, record.snapshot, usage.bytes)

    async def remove(self, id: str) -> bool:
        """Prune a record, its files and its blobs; False if somebody holds it or stands on it."""
        digests = await self.evict(id)
        for digest in digests or ():
            self._content.delete(digest)
        return digests is not None

    async def evict(self, id: str) -> list[Digest] | None:
        """Prune a record and its files.

        Returns:
            Its blobs, if they are no other record's; None if somebody holds it or stands on it.
        """
        self._write_holds()
        record = self.records.find(id)
        digests = self.records.remove(id) if record is not None else None
        if record is None or digests is None:
            return None
        self._fetches.pop(id, None)
        if record.kind == "folder":
            self._folders.forget(id)
        for name in {record.snapshot, id} - {""}:  # a killed kernel did not write down what it made
            await self.snapshots.remove(name)
        return digests

    async def sweep(self) -> None:
        """Remove files whose record is gone: a kernel was killed while it removed them."""
        left = [info.name for info in await self.snapshots.walk() if "-active" not in info.name]
        known = self.records.names()
        for name in left:  # a record is written before its files: whatever lies there and has none is lost
            if name not in known:
                await self.snapshots.remove(name)

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
async def _side_by_side() -> AsyncIterator[asyncio.TaskGroup]:
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
