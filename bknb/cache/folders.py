"""Cache mounts: directories that steps keep between builds.

Each is a record of type ``exec.cachemount`` with a lock file. Who mounts it holds the lock, shared or alone,
so that the three ways of sharing hold between kernels too, and a lock ends with its kernel (flock(2)).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bknb.cache.records import CACHE_MOUNT, Record, new_id
from bknb.digest import Digest
from bknb.errors import UsageError
from bknb.protocols import Mounts, Ref

try:
    import fcntl
except ImportError:  # no Linux: nothing runs here that could mount one
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from bknb.cache.refs import DiskRefStore

SHARINGS: Final = ("shared", "private", "locked")
_PAUSE: Final = (0.01, 0.5)
"""Seconds between two tries for a lock that another holds: at first, and at most."""


class CacheMounts:
    """The cache mounts of a state folder."""

    def __init__(self, store: DiskRefStore, locks: Path) -> None:
        self._store = store
        self._locks = locks
        locks.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def mount(
        self, key: str, base: Ref | None, sharing: str, description: str
    ) -> AsyncIterator[Mounts]:
        """The directory of a key, as it is left by the last who had it.

        Raises:
            UsageError: `sharing` is none of `SHARINGS`.
        """
        if sharing not in SHARINGS:
            raise UsageError(f"a cache mount is shared, private or locked, not {sharing!r}")
        ref: Ref | None = None
        while ref is None:  # it may be pruned between being chosen and being held
            id, lock = await self._choose(key, base, sharing, description)
            ref = self._store.try_hold(id)
            if ref is None:
                os.close(lock)
        try:
            try:
                record = self._store.records.find(id)
                assert record is not None
                yield await self._store.snapshots.mounts(record.snapshot)
            finally:
                await ref.release()
        finally:
            os.close(lock)

    async def _choose(self, key: str, base: Ref | None, sharing: str, description: str) -> tuple[str, int]:
        """The record to mount, and its lock."""
        pause = _PAUSE[0]
        while True:
            async with self._store.locked(f"cache mount {key}"):
                with _Waiting(self._locks / _file_name(key)) as mine:
                    if mine:
                        found = await self._existing(key)
                        for id in found:
                            lock = self._try(id, alone=sharing != "shared")
                            if lock is not None:
                                return id, lock
                        if not found or sharing != "locked":
                            id = await self._new(key, base, description)
                            lock = self._try(id, alone=sharing != "shared")
                            assert lock is not None
                            return id, lock
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE[1])

    async def _existing(self, key: str) -> list[str]:
        """Records of a key whose directory is there; the others are forgotten."""
        found = []
        for record in self._store.records.by_key(key):
            if record.snapshot and await self._store.snapshots.stat(record.snapshot) is not None:
                found.append(record.id)
            else:
                self._store.records.forget(record.id)
        return found

    async def _new(self, key: str, base: Ref | None, description: str) -> str:
        id = new_id()
        below = await self._store.materialise(base.id) if base is not None else ""
        # The record first: without its directory it is forgotten, while nobody would find the other half. Where the
        # directory is it says only when that is whole: whoever is killed in between leaves none.
        record = Record(id, "folder", key=key, type=CACHE_MOUNT, description=description)
        self._store.records.insert(record, hold=False)
        await self._store.snapshots.prepare_folder(id, below)
        self._store.records.materialised(id, id, 0)
        return id

    def _try(self, id: str, *, alone: bool) -> int | None:
        """The lock of a record, or None if somebody is in the way."""
        fd = os.open(self._locks / id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def forget(self, id: str) -> None:
        """Its record is pruned."""
        with suppress(FileNotFoundError):
            os.unlink(self._locks / id)


class _Waiting:
    """A lock file held while a record is chosen; gives False if another kernel is choosing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)


def _file_name(key: str) -> str:
    return f"choose-{Digest.of_text(key).short}"
