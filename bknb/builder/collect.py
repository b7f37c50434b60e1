"""Removing what the policies take: by itself after builds, or when somebody asks.

Which record goes is `cache.gc`'s to say; here the facts are gathered and the decision is carried out, in an order
in which a kill at any moment leaves nothing wrong: the record first, so that nobody finds it; then its files; then
its keys, which a build that asks for them forgets by itself. What a killed kernel left of it is swept by the next.

Blobs are another matter, because a build may rely on one that no table names yet. So they are removed only while
no build runs in any kernel (each holds a lock, shared), and what is not the remains of a pruned record has a time
of grace. A blob of an image that has a name is never removed: the image stays whole when all its records are gone.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bknb.builder.parts import Parts
from bknb.builder.survey import Survey, blobs_of, blocks, survey
from bknb.cache.gc import Fact, Plan, Verdict, Why, plan, policies_of
from bknb.cache.tombstones import Tombstone
from bknb.digest import Digest
from bknb.errors import BknbError, StoreError
from bknb.settings import GCPolicy

try:
    import fcntl
except ImportError:  # no Linux: nothing is built here
    fcntl = None  # type: ignore[assignment]

DELAY: Final = 1.0
"""Seconds between the end of a build and the collection (control/control.go: likewise)."""
PAUSE: Final = 60.0
"""Seconds between two collections by itself."""
GRACE: Final = 3600.0
"""Seconds that a blob which nothing names is kept."""
DOCUMENT: Final = 128 << 10
DOCUMENT_GRACE: Final = 30 * 86400.0
"""Seconds for manifests and configs, known by their size: they cost nothing and save asking a registry."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done: the records that went, and the bytes of blobs that went beside theirs."""

    removed: tuple[Verdict, ...]
    blobs: int = 0

    @property
    def freed(self) -> int:
        """Bytes that are free now."""
        return sum(verdict.fact.size for verdict in self.removed) + self.blobs


class Collector:
    """Prunes a builder's store. An async context manager: while it is open, it works by itself after builds."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._root = Path(parts.settings.root)
        self._due = asyncio.Event()
        self._swept = False
        self._dropped: set[Digest] = set()
        self._tasks = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None
        self.failed: BknbError | OSError | None = None
        """Why the last collection by itself came to nothing, or None."""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self._parts.settings.gc:
            self._task = self._tasks.create_task(self._work(), name="bknb-gc")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        await self._tasks.__aexit__(kind, error, traceback)

    @contextmanager
    def building(self) -> Iterator[None]:
        """While a build runs: its blobs are safe. Afterwards there may be something to collect."""
        with _Lock(self._root / "builds.lock") as lock:
            lock.share()
            try:
                yield
            finally:
                self._due.set()

    async def _work(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(DELAY)
            self._due.clear()
            try:
                await self.collect()
                self.failed = None
            except (BknbError, OSError) as error:  # no reason for anything else to fail
                self.failed = error
            await asyncio.sleep(PAUSE)

    async def collect(self) -> Pruned:
        """Apply the builder's policies now, unless another kernel is at it."""
        async with self._alone(wait=0) as mine:
            if not mine:
                return Pruned(())
            await self._sweep()
            found = await survey(self._parts)
            policies = policies_of(self._parts.settings, found.disk.total)
            return await self._prune(found, policies, "rule {}")

    async def prune(self, policy: GCPolicy) -> Pruned:
        """Remove what one policy takes.

        Raises:
            UsageError: a filter is not understood.
            StoreError: another kernel has been pruning for a minute.
        """
        async with self._alone(wait=60) as mine:
            if not mine:
                raise StoreError("another kernel is pruning this store: try again when it is done")
            self._swept = False
            await self._sweep()
            return await self._prune(await survey(self._parts), [policy], "prune")

    async def plan(self, policies: Sequence[GCPolicy] | None = None) -> Plan:
        """What would become of every record, and of what names keep; the builder's own policies if none are given.

        Raises:
            UsageError: a filter is not understood.
        """
        found = await survey(self._parts)
        if policies is None:
            policies = policies_of(self._parts.settings, found.disk.total)
        decided = await asyncio.to_thread(plan, found.facts, policies, now=time.time(), disk=found.disk)
        named = (Verdict(image, None, Why.NAMED, image.image) for image in found.images)
        return Plan(decided.removed, (*decided.kept, *named))

    @asynccontextmanager
    async def _alone(self, *, wait: float) -> AsyncIterator[bool]:
        """One collection at a time, of all kernels; False if it is still another's turn after some seconds."""
        end = time.monotonic() + wait
        with _Lock(self._root / "gc.lock") as lock:
            while not (mine := lock.alone()) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            yield mine

    async def survey(self) -> Survey:
        """What the store holds."""
        return await survey(self._parts)

    # --- deeds ---

    async def _prune(self, found: Survey, policies: Sequence[GCPolicy], rule: str) -> Pruned:
        decided = await asyncio.to_thread(plan, found.facts, policies, now=time.time(), disk=found.disk)
        removed: list[Verdict] = []
        stones: list[Tombstone] = []
        try:
            for verdict in decided.removed:
                stone = await self._remove(verdict.fact, rule.format(verdict.rule))
                if stone is not None:
                    removed.append(verdict)
                    stones.append(stone)
        finally:
            if stones:
                self._parts.tombstones.add(stones)
            gone = {verdict.fact.id for verdict in removed if verdict.fact.type == "source.local"}
            self._parts.local.tidy(gone)
        return Pruned(tuple(removed), self._sweep_blobs())

    async def _remove(self, fact: Fact, rule: str) -> Tombstone | None:
        """Remove one record, unless it came into use."""
        parts = self._parts
        keys = parts.store.keys_of(fact.id)
        if parts.refs.count(fact.id) == 1:
            await parts.local.let_go(fact.id)
        digests = await parts.refs.evict(fact.id)
        if digests is None:
            return None
        parts.store.forget(fact.id)
        self._dropped.update(digests)
        return Tombstone(fact.id, time.time(), rule, fact.type, fact.description, fact.size, keys)

    async def _sweep(self) -> None:
        """Once, and when asked: what a killed kernel left."""
        if self._swept:
            return
        parts = self._parts
        await parts.refs.bury()
        await parts.refs.sweep()
        results = [result for result in parts.store.results() if result]
        known = self._column("SELECT id FROM record")
        for result in results:  # read before the records were: each is there before a key leads to it
            if result not in known:
                parts.store.forget(result)
        self._swept = True

    def _column(self, sql: str) -> set[str]:
        """A column of the records of every driver: what another one made lies in the same folder."""
        found: set[str] = set()
        for path in (self._root / "refs").glob("*.db"):
            try:
                with closing(sqlite3.connect(path, timeout=30)) as db:
                    found |= {value for (value,) in db.execute(sql)}
            except sqlite3.Error as error:
                raise StoreError(f"cannot read {path}: {error}") from None
        return found

    def _sweep_blobs(self) -> int:
        """Remove blobs that nothing names; the bytes of those that were no pruned record's. Never waits."""
        content, now, freed = self._parts.content, time.time(), 0
        with _Lock(self._root / "builds.lock") as lock:
            if not lock.alone():
                return 0  # a build runs: what was dropped is remembered
            needed = set(self._column("SELECT digest FROM blob"))
            for image in self._parts.image_store.walk():
                needed.update(blobs_of(content, image.target))
            for info in content.walk():
                grace = DOCUMENT_GRACE if info.size <= DOCUMENT else GRACE
                dropped = info.digest in self._dropped
                if info.digest not in needed and (dropped or info.created < now - grace):
                    content.delete(info.digest)
                    freed += 0 if dropped else blocks(info.size)
            self._dropped.clear()
        return freed


class _Lock:
    """A file that kernels lock: shared by many, or by one alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use {self._path}: {error.strerror}") from None
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)

    def share(self) -> None:
        """Wait for who is alone: milliseconds."""
        if fcntl is not None:
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def alone(self) -> bool:
        """Whether nobody else has it."""
        try:
            if fcntl is not None:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
