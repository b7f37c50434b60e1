"""Holds on results: what the rest of bknb has in hand of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from bknb.errors import SnapshotError
from bknb.protocols import Mounts

if TYPE_CHECKING:
    from bknb.cache.refs import DiskRefStore


def active_name(id: str) -> str:
    """The name of a record's snapshot while it is written."""
    return f"{id}-active"


class UncountedRef:
    """What a `protocols.Ref` does where nothing is held: of files that lie elsewhere, or of a result that is only thought of."""

    __slots__ = ()

    def clone(self) -> Self:
        """Nothing is counted."""
        return self

    async def release(self) -> None:
        """Nothing is held."""

    async def mounts(self) -> Mounts:
        """Nothing is mounted."""
        return ()

    async def size(self) -> int:
        """It adds nothing to the store."""
        return 0


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
    """A `protocols.MutableRef`.

    Attributes:
        kind: BuildKit's record type.
        text: what people call it.
        parents: ids of the records that it stands on, none or one.
    """

    __slots__ = ("_done", "_mounts", "_parent", "_store", "id", "kind", "text")

    def __init__(
        self, store: DiskRefStore, id: str, parent: StoredRef | None, mounts: Mounts, kind: str, text: str
    ) -> None:
        self.id = id
        self.kind = kind
        self.text = text
        self._store = store
        self._parent = parent
        self._mounts = mounts
        self._done = False

    @property
    def parents(self) -> tuple[str, ...]:
        return (self._parent.id,) if self._parent is not None else ()

    async def mounts(self) -> Mounts:
        return self._mounts

    async def commit(self) -> StoredRef:
        if self._done:
            raise SnapshotError(f"{self.id} was committed or discarded before")
        return (await self._store.commit_each([self]))[0]

    async def discard(self) -> None:
        if not self._done:
            self._done = True
            await self._store.snapshots.remove(active_name(self.id))
            await self.used_up()

    async def used_up(self) -> None:
        """It is committed, or thrown away: what it stands on is held by others."""
        self._done = True
        if self._parent is not None:
            await self._parent.release()
