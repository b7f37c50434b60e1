"""The threads through which layers flow.

Reading and hashing the tar is one thread, compressing and storing it another, with a short queue between. All
layers share one limit, so that ten layers at once neither fill the memory nor starve the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from bknb.digest import Digest
from bknb.protocols import Progress

T = TypeVar("T")
CHUNK: Final = 1 << 20
QUEUED: Final = 8
"""Chunks that wait between two threads."""
_PIPE_SIZE: Final = 1031  # F_SETPIPE_SZ
_REPORT: Final = 0.1
"""Seconds between two reports of progress."""


class Workers:
    """Threads for as many layers at once as there are processors."""

    def __init__(self) -> None:
        self._count = max(2, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(2 * self._count, "bknb-layers")
        self._slots: asyncio.Semaphore | None = None

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A turn for one layer."""
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._count)
        async with self._slots:
            yield

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in a thread; when cancelled, still waits until it has ended."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            with contextlib.suppress(BaseException):
                future.result()
            raise

    def close(self) -> None:
        """No more layers."""
        self._pool.shutdown(wait=False)


def pipe() -> tuple[int, int]:
    """A pipe that takes a mebibyte, where that is allowed."""
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, _PIPE_SIZE, CHUNK)
    return reader, writer


def chunks_of(fd: int) -> Iterator[bytes]:
    """What comes from a descriptor, until its end."""
    while chunk := os.read(fd, CHUNK):
        yield chunk


class Hashed:
    """Passes chunks on and hashes them; `digest` and `size` are of what has passed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> Digest:
        return Digest("sha256:" + self._hash.hexdigest())

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.size += len(chunk)
            yield chunk


class Ahead:
    """Lets a thread of its own produce chunks; whoever iterates gets them, and its error.

    A context manager: leaving it ends the thread, also when not all chunks were taken.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(QUEUED)
        self._stop = False
        self._thread = threading.Thread(target=self._produce, name="bknb-layers-ahead", daemon=True)

    def _produce(self) -> None:
        try:
            for chunk in self._chunks:
                self._queue.put(chunk)
                if self._stop:
                    return
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._thread.join()


class Reporter:
    """Tells the event loop, now and then, how far a thread has come."""

    def __init__(self, progress: Progress | None, name: str, total: int) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._total = total
        self._next = 0.0
        self._done = 0

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Passes chunks on and counts them."""
        for chunk in chunks:
            self._done += len(chunk)
            if self._progress is not None and (now := time.monotonic()) >= self._next:
                self._next = now + _REPORT
                self._tell(self._total)
            yield chunk
        self._tell(self._total or self._done)

    def _tell(self, total: int) -> None:
        if self._progress is not None:
            self._loop.call_soon_threadsafe(self._progress, self._name, self._done, total)


def write_all(fd: int, chunks: Iterable[bytes]) -> None:
    """Put everything into a descriptor."""
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(fd, rest) :]
