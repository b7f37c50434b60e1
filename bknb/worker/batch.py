"""Small file operations, made together.

A step that writes one file is 0.1 ms of work and ten times that of asking for it: requests to the shim, and
transactions in two databases. Graphs with thousands of such steps have many ready at the same time. So those
that become ready in the same turn of the loop share their requests and transactions: one that is alone does not wait.

Several hands take turns: the shim writes while the databases are written, and where operations stand on others,
whose trees are mounted and let go of one after the other, it waits for the kernel in several threads at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from bknb.errors import BknbError
from bknb.executor.shim import error_of
from bknb.protocols import Mounts, MutableRef, Ref, RefStore, Shim

MOST: Final = 128
"""Operations in one batch: what a kill may lose, and how long a cancelled one may still run (some 20 ms)."""
HANDS: Final = 6


@dataclass(slots=True, eq=False)
class _Request:
    parent: Ref | None
    actions: Sequence[Mapping[str, Any]]
    others: Sequence[Mounts]
    description: str
    answer: asyncio.Future[Ref]


class FileBatch:
    """Makes layers by file actions. An async context manager, entered on the loop that uses it."""

    def __init__(self, refs: RefStore, shim: Shim) -> None:
        self._refs = refs
        self._shim = shim
        self._waiting: deque[_Request] = deque()
        self._wake = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._hands: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._hands = [self._tasks.create_task(self._work(), name="bknb-files") for _ in range(HANDS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hand in self._hands:
            hand.cancel()
        await self._tasks.__aexit__(None, None, None)

    async def make(
        self, parent: Ref | None, actions: Sequence[Mapping[str, Any]], others: Sequence[Mounts], description: str
    ) -> Ref:
        """A result on top of another, written by actions as `bknb.shim.files.apply` takes them.

        Args:
            parent: what it stands on; held by the caller until this returns.
            actions: on tree 0, which is the new one; the `others` are trees 1 and up.
            others: trees in which names of owners are looked up.
            description: what people call it.

        Raises:
            PathError: an action cannot be done.
            SnapshotError, StoreError: the result cannot be kept.
        """
        base = parent.clone() if parent is not None else None
        request = _Request(base, actions, others, description, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._wake.set()
        return await request.answer

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(0)  # who becomes ready in this turn comes along
            share = -(-len(self._waiting) // HANDS)
            taken = [self._waiting.popleft() for _ in range(min(MOST, share))]
            try:
                await self._serve([request for request in taken if not request.answer.done()])
            finally:
                for request in taken:
                    request.answer.cancel()  # if it has none: this hand was stopped
                    if request.parent is not None:
                        await request.parent.release()

    async def _serve(self, requests: Sequence[_Request]) -> None:
        """Make a batch; where that cannot even begin or end together, each by itself, to tell whose fault it is."""
        if not requests:
            return
        try:
            await self._make(requests)
        except BknbError as error:
            left = [request for request in requests if not request.answer.done()]
            if len(requests) == 1:
                for request in left:
                    request.answer.set_exception(error)
                return
            for request in left:
                await self._serve([request])

    async def _make(self, requests: Sequence[_Request]) -> None:
        made = await self._refs.new_each([(request.parent, request.description) for request in requests])
        done: list[tuple[_Request, MutableRef]] = []
        try:
            asked = [
                {
                    "trees": [[m.to_json() for m in tree] for tree in (await mutable.mounts(), *request.others)],
                    "actions": request.actions,
                }
                for request, mutable in zip(requests, made, strict=True)
            ]
            answers = await self._shim.call("files.apply_each", requests=asked)
            for request, mutable, answer in zip(requests, made, answers, strict=True):
                if request.answer.done():
                    continue
                if (error := answer.get("error")) is not None:
                    request.answer.set_exception(error_of(*error))
                else:
                    done.append((request, mutable))
            refs = await self._refs.commit_each([mutable for _, mutable in done]) if done else []
        finally:
            for mutable in made:
                await mutable.discard()  # of those that were committed nothing
        for (request, _), ref in zip(done, refs, strict=True):
            if request.answer.done():
                await ref.release()
            else:
                request.answer.set_result(ref)
