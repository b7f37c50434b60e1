"""A build that may still be running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from bknb.api.build import Build
from bknb.builder.thread import Running
from bknb.errors import BuildCancelled, BuildError
from bknb.events import Event
from bknb.options import BuildOptions
from bknb.protocols import SolveRequest, SolveResult

if TYPE_CHECKING:
    from bknb.api.client import Client


class RunningBuild:
    """A build that may still be running."""

    def __init__(
        self, client: Client, request: SolveRequest, running: Running[SolveResult], events: list[Event],
        options: BuildOptions,
    ) -> None:  # fmt: skip
        self._client = client
        self._request = request
        self._running = running
        self._events = events
        self._told = 0
        self._options = options
        self._finished: Build | None = None

    @property
    def title(self) -> str:
        """What people call the build."""
        return self._request.title

    @property
    def done(self) -> bool:
        """Whether it has ended, with whatever outcome."""
        return self._running.finished.is_set()

    def new_events(self) -> list[Event]:
        """What has happened since this was asked last; for views."""
        found = self._events[self._told :]
        self._told += len(found)
        return found

    def cancel(self) -> None:
        """Ask it to stop; returns at once."""
        self._running.cancel()

    def stop(self) -> BuildCancelled:
        """Ask it to stop and wait for the end; returns the error that says so, to be raised."""
        return self._running.stop()

    def wait(self, on_tick: Callable[[], None] = lambda: None) -> Build:
        """Wait for the end.

        Args:
            on_tick: called some times a second on this thread, for drawing.

        Raises:
            BuildError: it failed; `result` is what there is of it.
            BuildCancelled: it was stopped.
        """
        result = self._running.wait(on_tick)
        return self._finish(result)

    def result(self) -> Build:
        """`wait`, without drawing."""
        return self.wait()

    def __await__(self) -> Generator[Any, None, Build]:
        return self.aresult().__await__()

    async def aresult(self) -> Build:
        """`wait` as a coroutine; cancelling it stops the build."""
        try:
            result = await asyncio.wrap_future(self._running.future)
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._finish(result)

    def _finish(self, result: SolveResult) -> Build:
        if self._finished is None:
            self._finished = Build(self._client, self._request, result, tuple(self._events))
        build = self._finished
        if result.error is not None:
            step = build.failed_step
            raise BuildError(str(result.error), result=build, step=step) from result.error
        if self._options.iidfile or self._options.metadata_file:
            build.write_files(self._options.iidfile, self._options.metadata_file)
        return build

    def __repr__(self) -> str:
        return f"<RunningBuild {self._request.title!r} {'done' if self.done else 'running'}>"
