"""The files of a result as a stream of tar, read through the shim: nobody else mounts."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from typing import IO, TypeVar

from bknb.errors import BknbError, SourceError
from bknb.layers.pipeline import pipe
from bknb.protocols import ExportInput, Ref, Shim

T = TypeVar("T")


async def read_tree(shim: Shim, ref: Ref | None, consume: Callable[[IO[bytes]], T]) -> T:
    """Have a function read the tar of a tree, in a thread, while the shim writes it; None is an empty tree.

    Raises:
        BknbError: what the function or the shim raised; the function's error counts more.
    """
    if ref is None:
        return await asyncio.to_thread(consume, io.BytesIO(bytes(1024)))
    mounts = [mount.to_json() for mount in await ref.mounts()]
    reader, writer = pipe()
    source = open(reader, "rb", buffering=1 << 20)  # noqa: SIM115 - closed by whoever reads
    reading = asyncio.ensure_future(asyncio.to_thread(_consumed, source, consume))
    failure: BaseException | None = None
    try:
        await shim.call("trees.tar", fds=[writer], mounts=mounts)
    except BaseException as error:
        failure = error
    finally:
        # The end of the stream: the thread cannot hang on it, whatever happened to the shim.
        os.close(writer)
    try:
        answer = await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])
        raise
    except (BknbError, OSError) as error:
        # A stream that the shim broke off reads as damaged: then the shim's words say more.
        if failure is not None and isinstance(error, SourceError) and error.message == _BROKEN:
            raise failure from None
        raise
    if failure is not None:
        raise failure
    return answer


_BROKEN = "the files of the result could not be read to their end"


def _consumed(source: IO[bytes], consume: Callable[[IO[bytes]], T]) -> T:
    with source:
        try:
            answer = consume(source)
        except tarfile.TarError:
            raise SourceError(_BROKEN) from None
        # A tar ends before its padding does: who writes that must not find the pipe closed.
        while source.read(1 << 20):
            pass
        return answer


def entries(stream: IO[bytes]) -> tarfile.TarFile:
    """A tar that is read once, in order; names that are no UTF-8 keep their bytes."""
    return tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape")


def folder_of(one: ExportInput) -> str:
    """The folder of one platform's files among several: ``linux_amd64``."""
    return one.platform.format_all().replace("/", "_") if one.platform else "unknown"


def several(inputs: Sequence[ExportInput], split: bool | None) -> bool:
    """Whether each result gets a folder of its own."""
    return len(inputs) > 1 if split is None else split
