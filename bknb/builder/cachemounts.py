"""Cache mounts from outside of a build: which there are, taken out as a tar, put back from one.

A step names its cache mount by an id, ``RUN --mount=type=cache,id=go-build``, which is the target where there is none;
the Dockerfile frontend puts a slash in front of it, which may be left out here. The tar is a plain one, so that any
tool reads it; the suffix of a file's name says how it is compressed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bknb.builder.parts import Parts
from bknb.cache.records import CACHE_MOUNT
from bknb.errors import ContentError, SourceError, UsageError, did_you_mean
from bknb.layers.compress import compressor, decompressed
from bknb.layers.pipeline import Ahead, chunks_of, pipe, write_all
from bknb.protocols import Compression, Mounts

_PREFIX: Final = "cache-dir:"
_SUFFIXES: Final = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd"}
_OTHERS: Final = (".zip", ".7z", ".xz", ".txz", ".bz2", ".tbz2", ".lz4")


@dataclass(frozen=True, slots=True)
class CacheMount:
    """One directory that steps keep.

    Attributes:
        id: as steps name it.
        record: its id in the store.
        base: id of the record that it began as (``from=``); "" for an empty directory.
        size: bytes on disk.
        uses: how often a step had it.
        description: the step that made it.
        created: unix seconds.
        used: the same, the last time.
    """

    id: str
    record: str
    base: str
    size: int
    uses: int
    description: str
    created: float
    used: float


async def cache_mounts(parts: Parts) -> list[CacheMount]:
    """All of them, the last used first, measured now."""
    await parts.refs.measure()
    found = []
    for record in parts.refs.records.all():
        if record.type == CACHE_MOUNT and record.key is not None:
            id, base = _names(record.key)
            found.append(
                CacheMount(
                    id, record.id, base, record.size or 0, record.uses, record.description, record.created, record.used
                )
            )  # fmt: skip
    return sorted(found, key=lambda mount: -mount.used)


def _names(key: str) -> tuple[str, str]:
    """The id and the base that a key was made of; a base is a record's id: 25 hex digits."""
    id, colon, base = key.removeprefix(_PREFIX).rpartition(":")
    if colon and len(base) == 25 and not base.strip("0123456789abcdef"):
        return id, base
    return key.removeprefix(_PREFIX), ""


def _called(mounts: list[CacheMount], id: str) -> CacheMount | None:
    """The first that steps name so; an id as it is written in a Dockerfile counts after the exact one."""
    return next((mount for name in (id, f"/{id}") for mount in mounts if mount.id == name), None)


async def save_cache_mount(parts: Parts, id: str, path: str) -> int:
    """Write a cache mount to a tar file, whole or not at all. Steps that want it meanwhile wait, as for a locked one.

    Args:
        parts: of the builder.
        id: as steps name it; of several, the one used last.
        path: of the file; ``.gz`` and ``.zst`` at its end compress it.

    Returns:
        Bytes of the file.

    Raises:
        UsageError: there is no such cache mount, or the file cannot be written.
    """
    mounts = await cache_mounts(parts)
    mount = _called(mounts, id)
    if mount is None:
        names = sorted({mount.id.removeprefix("/") for mount in mounts})
        known = did_you_mean(id, names) or (
            f"; there are {', '.join(names)}" if names else "; there are none yet"
        )
        raise UsageError(f"there is no cache mount {id!r}{known}")
    if Path(path).suffix.lower() in _OTHERS:
        raise UsageError(f"{path}: a cache mount is written as a tar; end the name with .tar, .tar.gz or .tar.zst")
    codec = compressor(Compression(_SUFFIXES.get(Path(path).suffix, "uncompressed")))

    def write(reader: int) -> int:
        unfinished = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
        try:
            with open(unfinished, "wb") as file, Ahead(chunks_of(reader)) as chunks:
                for chunk in chunks:
                    file.write(codec.add(chunk))
                file.write(codec.finish())
            unfinished.replace(path)
            return Path(path).stat().st_size
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    key = _PREFIX + mount.id + (f":{mount.base}" if mount.base else "")
    base = parts.refs.try_hold(mount.base) if mount.base else None
    try:
        async with parts.refs.cache_mount(key, base, "locked", description=mount.description) as tree:
            return await _through_pipe(parts, "trees.tar", tree, write, theirs_reads=False)
    finally:
        if base is not None:
            await base.release()


async def load_cache_mount(parts: Parts, id: str, path: str) -> int:
    """Put the files of a tar into a cache mount, over what is there; it is made where it is not there yet.

    Args:
        parts: of the builder.
        id: as steps name it; where there is none of that name yet, it is for a Dockerfile.
        path: of a tar, plain or compressed with gzip or zstd.

    Returns:
        Bytes of the file.

    Raises:
        UsageError: the file cannot be read.
        SourceError: it is no tar, or has names that lead out of it.
    """
    if not id:
        raise UsageError("a cache mount has a name: the id= of its steps, or their target")
    mount = _called([mount for mount in await cache_mounts(parts) if not mount.base], id)
    key = _PREFIX + (mount.id if mount is not None else f"/{id.removeprefix('/')}")
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None

    def read(writer: int) -> int:
        with Ahead(decompressed(chunks_of(source))) as chunks:
            write_all(writer, chunks)
        return os.fstat(source).st_size

    try:
        async with parts.refs.cache_mount(key, None, "locked", description=f"imported from {path}") as tree:
            return await _through_pipe(parts, "trees.apply", tree, read, theirs_reads=True)
    except ContentError as error:
        raise SourceError(f"{path} is no tar to fill a cache mount from: {error.message}") from None
    finally:
        os.close(source)


async def _through_pipe(
    parts: Parts, op: str, tree: Mounts, work: Callable[[int], int], *, theirs_reads: bool
) -> int:
    """Run an op of the shim at one end of a pipe and a function in a thread at the other."""
    reader, writer = pipe()
    theirs, ours = (reader, writer) if theirs_reads else (writer, reader)

    def worked() -> int:
        try:
            return work(ours)
        finally:
            os.close(ours)

    working = asyncio.ensure_future(asyncio.to_thread(worked))
    failure: BaseException | None = None
    try:
        await parts.shim.call(op, fds=[theirs], mounts=[mount.to_json() for mount in tree])
    except BaseException as error:
        failure = error
    finally:
        os.close(theirs)  # so the thread comes to its end, whatever happened to the shim
    await asyncio.wait([working])
    if isinstance(failure, asyncio.CancelledError):
        raise failure
    try:
        done = working.result()
    except BrokenPipeError:  # the shim stopped reading: its words say why
        if failure is None:
            raise SourceError("the tar has more after its end") from None
        raise failure from None
    if failure is not None:
        raise failure
    return done
