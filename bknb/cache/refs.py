"""Results on disk: counted holds on records. `making` turns a record into files or blobs when they are wanted.

A record is written before its snapshot is committed. So a kernel that is killed leaves a record without
snapshot, which the next start forgets, and never files that nobody knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from bknb.cache import several
from bknb.cache.chain import chain_id, layer_chain
from bknb.cache.folders import CacheMounts
from bknb.cache.handles import StoredMutableRef, StoredRef
from bknb.cache.making import Maker, side_by_side
from bknb.cache.records import GONE, Record, RecordTable, new_id
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

_REMEMBERED: Final = 100_000
_MERGES: Final = 32
"""Of so many lazy results it is remembered what they are made of."""


class DiskRefStore:
    """A `protocols.RefStore`. All calls come from one event loop.

    Use `open`; close with `aclose`.
    """

    def __init__(self, root: Path, snapshots: Snapshotter, content: ContentStore, layers: Layers) -> None:
        self.snapshots = snapshots
        self._content = content
        root.mkdir(parents=True, exist_ok=True)
        self._owner = Owner(root / "owners")
        # One file for each driver: what another one made is not gone, it is only out of reach here.
        self.records = RecordTable(root / f"{snapshots.name}.db", self._owner.token)
        self._maker = Maker(self.records, snapshots, content, layers)
        self._folders = CacheMounts(self, root / "locks")
        self._counts: dict[str, int] = {}
        self._touched: dict[str, float] = {}
        self._letting_go: set[str] = set()
        self._made_of: dict[str, frozenset[str]] = {}  # snapshots that a lazy result needs
        self._sizes: dict[str, int] = {}  # for display: what is said of a size is not taken back

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
            raise SnapshotError(GONE)
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
        known = self._sizes
        unknown = [id for id in ids if id not in known]
        found = self.records.sizes(unknown) if unknown else {}
        if len(known) > _REMEMBERED:
            known.clear()
        known.update((id, size) for id, size in found.items() if size is not None)
        later = {id: self.size(id) for id, size in found.items() if size is None}  # a lazy one may grow yet
        return {id: known[id] for id in ids if id in known} | later

    # --- making records ---

    async def new(self, parent: Ref | None, *, description: str, kind: str = "regular") -> StoredMutableRef:
        (made,) = await several.begin(self, [(parent, description)])
        made.kind = kind
        return made

    async def new_each(self, wanted: Sequence[tuple[Ref | None, str]]) -> list[StoredMutableRef]:
        return await several.begin(self, wanted)

    async def commit_each(self, made: Sequence[MutableRef]) -> list[StoredRef]:
        return await several.commit(self, [each for each in made if isinstance(each, StoredMutableRef)])

    def missing(self, ids: Collection[str]) -> Collection[str]:
        """Those of some records that `get` would not find; nothing is held, and nothing forgotten."""
        snapshots = self.records.snapshots(ids)
        if all(snapshots.values()) and len(snapshots) == len(ids) and self.snapshots.are_there(snapshots.values()):
            return ()  # the usual answer takes one question
        return [id for id in ids if not self._has(id)]

    async def get(self, id: str) -> StoredRef | None:
        ref = self.try_hold(id)  # first: what is held stays while it is looked at
        record = self.records.find(id)
        if ref is None or record is None:
            return None
        if self._is_there(record):
            return ref
        await ref.release()
        if id not in self._counts and not record.chain:
            self.records.forget(id)
            if record.snapshot:
                await self.snapshots.remove(record.snapshot)
        return None

    def _has(self, id: str) -> bool:
        record = self.records.find(id)
        return record is not None and self._is_there(record)

    def _is_there(self, record: Record) -> bool:
        """Whether a record can still become files: what is lazy is asked for what it is made of."""
        if record.snapshot:
            return self.snapshots.are_there([record.snapshot])
        snapshots = self._made_of.get(record.id)
        if snapshots is None:
            with no_collection():
                parts = self.records.parts(record.id)
            layers = [part for part in parts if part.kind == "layer" and not part.snapshot]
            if any(not part.kind for part in parts):
                return False
            if not all(part.chain and self._can_fetch(part.id) for part in layers):
                return False
            snapshots = frozenset([part.snapshot for part in parts if part.snapshot])
            if not layers:  # what a lazy result is made of stays, as long as it does
                if len(self._made_of) >= _MERGES:
                    self._made_of.clear()
                self._made_of[record.id] = snapshots
        return not snapshots or self.snapshots.are_there(snapshots)

    def _can_fetch(self, id: str) -> bool:
        return id in self._maker.fetches or self._maker.local_blob(id) is not None

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
            self._maker.fetches[following.id] = fetch
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
        return await self.snapshots.view(await self._maker.materialise(id))

    async def materialise(self, id: str) -> str:
        """The snapshot of a record, made now if there is none.

        Raises:
            SnapshotError: the record is gone, or cannot be made any more.
        """
        return await self._maker.materialise(id)

    def locked(self, name: str) -> AbstractAsyncContextManager[None]:
        """One at a time for each name, within this kernel."""
        return self._maker.locked(name)

    # --- layers ---

    def chain(self, id: str) -> tuple[str, ...]:
        """Ids of the layer records that a record is made of, bottom first."""
        return layer_chain(self.records.need, id)

    async def layer_mounts(self, ref: Ref | None) -> tuple[str, ...]:
        return self.chain(ref.id) if ref is not None else ()

    async def layers(
        self, ref: Ref | None, compression: Compression, *, progress: Progress | None = None
    ) -> tuple[LayerBlob, ...]:
        if ref is None:
            return ()
        found: dict[str, LayerBlob] = {}
        chain = self.chain(ref.id)
        async with side_by_side() as group:
            for id in dict.fromkeys(chain):
                group.create_task(self._maker.layer_into(found, id, compression, progress))
        return tuple(found[id] for id in chain)

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
        self._maker.fetches.pop(id, None)
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
