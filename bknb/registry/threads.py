"""Work in a thread that is never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *arguments: P.args, **more: P.kwargs) -> T:
    """As `asyncio.to_thread`, but who is cancelled waits until the thread is done.

    What the thread writes to is closed next: a descriptor must not be closed, and its number given to another
    file, while a thread still writes to it.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **more))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
