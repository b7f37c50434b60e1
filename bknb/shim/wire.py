"""Frames between kernel and shim: length, number of descriptors, then a value.

Both ends are one interpreter and one trust, so values are written with `marshal`: it is part of the
interpreter, carries bytes without an escape, and its import costs nothing (`json` would cost the shim 8 ms at
its start). Nothing that a container can write to ever gets here.
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HEADER = 8  # bytes: length of the body, number of descriptors; big-endian, 4 each
MAX_FRAME = 1 << 30
MAX_FDS = 64  # in one frame; the kernel takes at most 253 in one message
CHUNK = 1 << 18


def encode(value: Any, fds: int = 0) -> bytes:
    """A frame that says that `fds` descriptors come with its first byte."""
    body = marshal.dumps(value)
    if len(body) > MAX_FRAME or fds > MAX_FDS:
        raise ValueError(f"a frame of {len(body)} bytes and {fds} descriptors is too large")
    return len(body).to_bytes(4, "big") + fds.to_bytes(4, "big") + body


class Decoder:
    """Puts frames together from what recvmsg gave.

    Descriptors arrive with or before the first byte of the frame that they belong to, in order.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: list[int] = []

    def feed(self, data: bytes, fds: list[int]) -> list[tuple[Any, list[int]]]:
        """Adds what was received; returns the frames that are whole now, each with its descriptors."""
        self._buffer += data
        self._fds += fds
        frames = []
        while len(self._buffer) >= HEADER:
            length = int.from_bytes(self._buffer[:4], "big")
            count = int.from_bytes(self._buffer[4:HEADER], "big")
            if len(self._buffer) < HEADER + length:
                break
            body = bytes(self._buffer[HEADER : HEADER + length])
            del self._buffer[: HEADER + length]
            frames.append((marshal.loads(body), self._fds[:count]))
            del self._fds[:count]
        return frames

    def discard(self, close: Callable[[int], None]) -> None:
        """Closes descriptors that no frame has claimed."""
        while self._fds:
            close(self._fds.pop())
