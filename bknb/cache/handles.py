"""Holds on results: what the rest of bknb has in hand of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bknb.cache.records import Record
from bknb.errors import SnapshotError
from bknb.protocols import Mounts

if TYPE_CHECKING:
    from bknb.cache.refs import DiskRefStore


def active_name(id: str) -> str:
    """The name of a record's snapshot while it is written."""
    return f"{id}-active"


class StoredRef:
    """A `protocols.Ref`: one hold, let go once."""

    __slots__ = ("_released", "_store", "id")

    def __init__(self, store: DiskRefStore, id: str) -> None:
        self.id = id
        self._store = store
        self._released = False

    def clone(self) -> StoredRef:
        return self._store.hold(self.id)

    async def release(self) -> None:
        if not self._released:
            self._released = True
            self._store.let_go(self.id)

    async def mounts(self) -> Mounts:
        return await self._store.mounts(self.id)

    async def size(self) -> int:
        return self._store.size(self.id)

    def __repr__(self) -> str:
        return f"<Ref {self.id}{' released' if self._released else ''}>"


class StoredMutableRef:
    """A `protocols.MutableRef`."""

    __slots__ = ("_done", "_kind", "_mounts", "_parent", "_store", "_text", "id")

    def __init__(
        self, store: DiskRefStore, id: str, parent: StoredRef | None, mounts: Mounts, kind: str, text: str
    ) -> None:
        self.id = id
        self._store = store
        self._parent = parent
        self._mounts = mounts
        self._kind = kind
        self._text = text
        self._done = False

    async def mounts(self) -> Mounts:
        return self._mounts

    async def commit(self) -> StoredRef:
        if self._done:
            raise SnapshotError(f"{self.id} was committed or discarded before")
        parents = (self._parent.id,) if self._parent is not None else ()
        record = Record(self.id, "layer", parents, type=self._kind, description=self._text)
        self._store.records.insert(record)
        ref = self._store.counted(self.id)
        try:
            usage = await self._store.snapshots.commit(self.id, active_name(self.id))
        except BaseException:
            self._store.records.forget(self.id)
            await ref.release()
            raise
        self._done = True
        self._store.records.materialised(self.id, self.id, usage.bytes)
        await self._let_go()
        return ref

    async def discard(self) -> None:
        if not self._done:
            self._done = True
            await self._store.snapshots.remove(active_name(self.id))
            await self._let_go()

    async def _let_go(self) -> None:
        if self._parent is not None:
            await self._parent.release()
