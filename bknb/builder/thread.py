"""The thread that builds.

Builds run on an event loop of their own, in one daemon thread for each kernel. The kernel's loop is never
touched: a loop that is entered a second time (nest-asyncio) hands an interrupt to whoever runs at that moment, and the
build's tasks run on without anybody who waits for them. The caller waits in short ticks on the main thread,
where it also draws; an interrupt therefore reaches the caller, who cancels the build and waits for its end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bknb.errors import BknbError, BuildCancelled

T = TypeVar("T")


@dataclass(slots=True)
class Running(Generic[T]):
    """A coroutine on the solver's thread.

    `finished` is set when its clean-up is over too, which the future of a cancelled coroutine does not say.
    """

    future: concurrent.futures.Future[T]
    finished: threading.Event
    _task: list[asyncio.Task[T]]
    _loop: asyncio.AbstractEventLoop

    def cancel(self) -> None:
        """Ask it to stop; returns at once. Asking again does nothing more."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        for task in self._task:
            task.cancel()

    def stop(self, *, grace: float = 10.0) -> BuildCancelled:
        """Cancel it and wait for the end of its clean-up; returns the error that says so, to be raised.

        Args:
            grace: seconds that the clean-up may take. A second interrupt ends the waiting too.
        """
        self.cancel()
        clean = False
        with contextlib.suppress(KeyboardInterrupt):
            clean = self.finished.wait(grace)
        text = "Build cancelled." if clean else "Build cancelled; its clean-up goes on in the background."
        return BuildCancelled(text, clean=clean)

    def wait(self, on_tick: Callable[[], None], *, tick: float = 0.05, grace: float = 10.0) -> T:
        """Wait for the end, calling `on_tick` in between and once more at the end.

        Args:
            on_tick: draws; runs on the caller's thread.
            tick: seconds between two calls.
            grace: seconds that a cancelled build may take to clean up.

        Raises:
            BuildCancelled: the caller was interrupted; `clean` says whether everything had ended.
        """
        try:
            while not self.finished.wait(tick):
                on_tick()
            return self.future.result()
        except KeyboardInterrupt:
            raise self.stop(grace=grace) from None
        except concurrent.futures.CancelledError:
            raise BuildCancelled() from None
        finally:
            on_tick()


class SolverThread:
    """An event loop in a daemon thread, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Running[T]:
        """Run a coroutine on the thread.

        Raises:
            BknbError: called from the thread itself, which would wait for itself.
        """
        loop = self._ready()
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise BknbError(
                "a build cannot be started and waited for from inside of a build: await it instead"
            )
        finished = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        async def guarded() -> T:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            try:
                return await coroutine
            finally:
                tasks.clear()
                finished.set()

        return Running(asyncio.run_coroutine_threadsafe(guarded(), loop), finished, tasks, loop)

    def run(self, coroutine: Coroutine[Any, Any, T], on_tick: Callable[[], None] = lambda: None) -> T:
        """`start` and `wait` in one."""
        return self.start(coroutine).wait(on_tick)

    def stop(self, *, timeout: float = 10.0) -> None:
        """End the thread; what still runs on it is cancelled. It starts anew when it is needed again."""
        with self._lock:
            loop, thread, stop = self._loop, self._thread, self._stop
            self._loop = self._thread = self._stop = None
        if loop is not None and thread is not None and stop is not None and thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
            thread.join(timeout)

    def _ready(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                ready = threading.Event()
                self._thread = threading.Thread(
                    target=self._main, args=(ready,), name="bknb-solver", daemon=True
                )
                self._thread.start()
                ready.wait()
            assert self._loop is not None
            return self._loop

    def _main(self, ready: threading.Event) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            stop = self._stop = asyncio.Event()
            ready.set()
            await stop.wait()

        asyncio.run(serve())
