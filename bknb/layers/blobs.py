"""Blobs of layers, made and unpacked with the help of the shim."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from bknb.digest import Digest
from bknb.errors import ContentError
from bknb.layers.compress import MEDIA_TYPES, compressor, decompressed
from bknb.layers.pipeline import Ahead, Hashed, Reporter, Workers, chunks_of, pipe, write_all
from bknb.layers.tar import clamp_times
from bknb.protocols import (
    Compression,
    ContentStore,
    Descriptor,
    LayerBlob,
    LayerDirectory,
    Mounts,
    Progress,
    Shim,
)


class ShimLayers:
    """A `protocols.Layers`. Close it when no more layers are made."""

    def __init__(self, shim: Shim, content: ContentStore) -> None:
        self._shim = shim
        self._content = content
        self._workers = Workers()

    def close(self) -> None:
        """Let the threads end."""
        self._workers.close()

    async def create(
        self, directory: LayerDirectory, compression: Compression, progress: Progress | None = None
    ) -> LayerBlob:
        reader, writer = pipe()
        reporter = Reporter(progress, "exporting layer", 0)

        def store() -> LayerBlob:
            try:
                return self._store(chunks_of(reader), compression, reporter)
            finally:
                os.close(reader)

        async with self._workers.slot():
            call = self._shim.call(
                "trees.layer_tar", fds=[writer], layer=directory.path, lower=list(directory.lower),
                marks=directory.marks,
            )  # fmt: skip
            made: LayerBlob = await self._beside(call, writer, store)
            return made

    async def apply(self, blob: LayerBlob, mounts: Mounts, progress: Progress | None = None) -> None:
        reader, writer = pipe()
        digest = blob.descriptor.digest
        reporter = Reporter(progress, f"extracting {digest}", blob.descriptor.size)

        def unpack() -> Digest:
            try:
                fd = self._content.open(digest)
                try:
                    with Ahead(decompressed(reporter.watch(chunks_of(fd)))) as chunks:
                        hashed = Hashed(chunks)
                        write_all(writer, hashed)
                        return hashed.digest
                finally:
                    os.close(fd)
            finally:
                os.close(writer)

        async with self._workers.slot():
            call = self._shim.call("trees.apply", fds=[reader], mounts=[mount.to_json() for mount in mounts])
            found = await self._beside(call, reader, unpack)
        if found != blob.diff_id:
            raise ContentError(f"layer {digest} unpacks to {found}, its image says {blob.diff_id}")

    async def _beside(self, call: Any, handed: int, work: Callable[[], Any]) -> Any:
        """Run an op of the shim and a thread at the two ends of a pipe; what the thread returns.

        `handed` is the shim's end, closed here when its op has ended: so the thread comes to an end too.
        The shim's error counts more, since the thread's then is only a broken pipe.
        """
        working = asyncio.ensure_future(self._workers.run(work))
        try:
            try:
                await call
            finally:
                os.close(handed)
        except BaseException:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await asyncio.shield(working)
            raise
        try:
            return await working
        except BrokenPipeError:
            raise ContentError("a layer could not be unpacked: it has more after its end") from None

    def _store(self, tar: Iterable[bytes], compression: Compression, reporter: Reporter) -> LayerBlob:
        """Compress a tar into the content store; in a thread."""
        codec = compressor(compression)
        hashed = Hashed(reporter.watch(tar))
        with Ahead(hashed) as chunks, self._content.write() as writer:
            for chunk in chunks:
                writer.write(codec.add(chunk))
            writer.write(codec.finish())
            size = writer.offset
            digest = writer.commit()
        descriptor = Descriptor(MEDIA_TYPES[compression.type], digest, size)
        return LayerBlob(descriptor, hashed.digest, codec.name)

    async def convert(
        self, blob: LayerBlob, compression: Compression, progress: Progress | None = None
    ) -> LayerBlob:
        return await self._rewritten(blob, compression, progress, lambda chunks: chunks)

    async def clamp(
        self, blob: LayerBlob, compression: Compression, epoch: int, progress: Progress | None = None
    ) -> LayerBlob:
        """The layer with no time later than `epoch` (``rewrite-timestamp``); its diff_id changes with it."""
        return await self._rewritten(
            blob, compression, progress, lambda chunks: clamp_times(chunks, epoch)
        )

    async def _rewritten(
        self, blob: LayerBlob, compression: Compression, progress: Progress | None,
        change: Callable[[Iterable[bytes]], Iterable[bytes]],
    ) -> LayerBlob:  # fmt: skip
        digest = blob.descriptor.digest
        reporter = Reporter(progress, f"converting {digest}", 0)

        def convert() -> LayerBlob:
            fd = self._content.open(digest)
            try:
                return self._store(change(decompressed(chunks_of(fd))), compression, reporter)
            finally:
                os.close(fd)

        async with self._workers.slot():
            made = await self._workers.run(convert)
        return LayerBlob(made.descriptor, made.diff_id, made.compressor, blob.created, blob.description)


