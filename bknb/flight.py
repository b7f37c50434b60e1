"""Work that is done once for all who want it at the same time.

A `Flight` runs in a task group that outlives its callers. It starts with the first who joins and is cancelled
when the last one leaves before it has landed: a caller that is cancelled takes nobody else down with it. Who
waits does so through `Waits`, which costs no task for each wait and never loses an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task that outlives its caller: a TaskGroup's `create_task`, mostly."""

AT_ONCE: Final = 512
"""How many flights of one `join_each` are in the air: ten thousand tasks at once are 200 MB and no faster."""


class Flight(Generic[T]):
    """One run of a coroutine, shared.

    Attributes:
        done: it has ended, one way or another.
        error: what it raised; `asyncio.CancelledError` when nobody wanted it any more.
        waiting: how many wait for it now.
    """

    __slots__ = ("_body", "_ended", "_spawn", "_task", "_value", "_wakers", "done", "error")

    def __init__(
        self,
        spawn: Spawn,
        body: Callable[[], Awaitable[T]],
        ended: Callable[[Flight[T]], None] | None = None,
    ) -> None:
        """`ended` is told at once when it fails or is abandoned, so that it can be forgotten."""
        self._spawn = spawn
        self._body: Callable[[], Awaitable[T]] | None = body
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self._wakers: dict[Waits, None] = {}
        self._value: T | None = None
        self.done = False
        self.error: BaseException | None = None

    @property
    def value(self) -> T:
        """What the coroutine returned.

        Raises:
            BaseException: what it raised.
        """
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]

    @property
    def waiting(self) -> int:
        return len(self._wakers)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs it; None before the first join, and when it has landed."""
        return self._task

    def join(self, waits: Waits) -> None:
        """Start it if it has not been, and be told when it has landed."""
        if self.done:
            waits.landed(self)
            return
        self._wakers[waits] = None
        if self._task is None:
            self._task = self._spawn(self._main())

    def leave(self, waits: Waits) -> None:
        """Not wanted by this one any more; cancelled when it was the last."""
        self._wakers.pop(waits, None)
        if not self._wakers and not self.done and self._task is not None:
            self._task.cancel()
            self._land(asyncio.CancelledError())

    def _land(self, error: BaseException | None) -> None:
        if self.done:
            return
        self.done, self.error = True, error
        if error is not None and self._ended is not None:
            self._ended(self)
        self._body = self._ended = self._task = None  # they lead back to whoever keeps this flight: a cycle
        wakers, self._wakers = list(self._wakers), {}
        for waits in wakers:
            waits.landed(self)

    async def _main(self) -> None:
        assert self._body is not None
        try:
            self._value = await self._body()
        except asyncio.CancelledError as error:
            self._land(error)
            raise
        except Exception as error:
            self._land(error)
        else:
            self._land(None)


class Waits:
    """The flights that one coroutine waits for; all are left when its context ends."""

    __slots__ = ("_event", "_flights", "_following", "_landed")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._flights: dict[Flight[Any], None] = {}
        self._following: Iterator[Flight[Any]] = iter(())
        self._landed: list[Flight[Any]] = []

    def __enter__(self) -> Waits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave_all()

    def leave_all(self) -> None:
        """Wait for none of them any more."""
        flights, self._flights, self._following = list(self._flights), {}, iter(())
        for flight in flights:
            flight.leave(self)

    def wake(self) -> None:
        """Let `change` return, although nothing has landed."""
        self._event.set()

    def landed(self, flight: Flight[Any]) -> None:
        """Called by a flight that was joined."""
        self._landed.append(flight)
        self._event.set()

    def join(self, flight: Flight[T]) -> None:
        """Wait for this one too."""
        if flight not in self._flights:
            self._flights[flight] = None
            flight.join(self)

    def join_each(self, flights: Iterable[Flight[Any]]) -> None:
        """Wait for all of these too: the first `AT_ONCE` now, and the next whenever one has landed."""
        self._following = iter(flights)
        self._join_following()

    def _join_following(self) -> None:
        while len(self._flights) < AT_ONCE and (flight := next(self._following, None)) is not None:
            self.join(flight)

    async def change(self) -> None:
        """Return when at least one flight has landed since the last call, or somebody called `wake`.

        Raises:
            BaseException: the error of one that failed.
        """
        await self._event.wait()
        self._event.clear()
        landed, self._landed = self._landed, []
        for flight in landed:
            self._flights.pop(flight, None)
            if flight.error is not None:
                raise flight.error
        self._join_following()

    async def on(self, flight: Flight[T]) -> T:
        """Join and wait for one."""
        self.join(flight)
        while not flight.done:
            await self.change()
        self._flights.pop(flight, None)
        return flight.value
