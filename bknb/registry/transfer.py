"""Blobs over the wire: down with resume, up whole or in pieces.

Bytes are gathered to chunks of a MiB that a thread hashes and writes: the event loop only moves them.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from bknb.digest import Digest
from bknb.errors import ContentError, RegistryError
from bknb.oci.types import Descriptor
from bknb.protocols import BlobWriter, ContentStore, Progress
from bknb.registry.auth import AskCredentials
from bknb.registry.hosts import Endpoint
from bknb.registry.http import Http, Request, TemporaryError
from bknb.registry.threads import in_thread

if TYPE_CHECKING:
    import aiohttp

CHUNK: Final = 1 << 20
_INTERVAL: Final = 0.1
_BYTES: Final = {"Content-Type": "application/octet-stream"}
PIECE: Final = 16 << 20
"""Bytes of one PATCH, for registries that do not take a blob in one request."""
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)\Z")


class Transfer:
    """Moves blobs between one repository and a content store."""

    def __init__(
        self, http: Http, store: ContentStore, endpoint: Endpoint, repository: str, ask: AskCredentials | None
    ) -> None:
        self._http = http
        self._store = store
        self._endpoint = endpoint
        self._ask = ask
        self._base = f"{endpoint.path}/{repository}"
        self._repository = repository

    async def download(self, descriptor: Descriptor, progress: Progress | None) -> None:
        """Bring a blob into the store; a broken connection is taken up where it broke.

        Raises:
            ContentError: the bytes are not those that were promised.
            RegistryError: it cannot be had.
        """
        metadata = descriptor.media_type.endswith("+json")
        path = f"{self._base}/blobs/{descriptor.digest}"
        with self._store.write() as writer:
            reached = -1
            while True:
                try:
                    await self._http.retried(
                        lambda: self._download_rest(path, metadata, descriptor, writer, progress)
                    )
                    break
                except TemporaryError:
                    # Retries are counted anew for as long as bytes arrive.
                    if writer.offset <= reached:
                        raise
                    reached = writer.offset
            await in_thread(writer.commit, descriptor.digest, descriptor.size)

    async def _download_rest(
        self,
        path: str,
        metadata: bool,
        descriptor: Descriptor,
        writer: BlobWriter,
        progress: Progress | None,
    ) -> None:
        scopes = (f"repository:{self._repository}:pull",)
        headers = {"Range": f"bytes={writer.offset}-"} if 0 < writer.offset < descriptor.size else {}
        if descriptor.size and writer.offset == descriptor.size:
            return
        request = Request("GET", path, scopes, headers, metadata=metadata, accept=(200, 206, 416))
        async with self._http.send(self._endpoint, request, self._ask) as response:
            skip = 0
            if response.status == 416:
                text = f"{self._endpoint.host} sent {writer.offset} of {descriptor.size} bytes"
                raise RegistryError(
                    f"{text} of {descriptor.digest}, and has no more", host=self._endpoint.host
                )
            if writer.offset and response.status == 200:
                skip = writer.offset
            elif response.status == 206:
                found = _RANGE.match(response.headers.get("Content-Range", ""))
                if found is None or int(found[1]) != writer.offset:
                    text = f"{self._endpoint.host} sends another range than asked"
                    raise RegistryError(text, host=self._endpoint.host)
            await self._receive(response, skip, descriptor, writer, progress)
        if writer.offset < descriptor.size:
            text = f"{self._endpoint.host} sent {writer.offset} of {descriptor.size} bytes"
            raise TemporaryError(f"{text} of {descriptor.digest}", host=self._endpoint.host)

    async def _receive(
        self,
        response: aiohttp.ClientResponse,
        skip: int,
        descriptor: Descriptor,
        writer: BlobWriter,
        progress: Progress | None,
    ) -> None:
        writing = _Writing(writer)
        told = time.monotonic()
        try:
            async for part in response.content.iter_any():
                if skip:
                    part, skip = part[skip:], max(skip - len(part), 0)
                if writing.size + len(part) > descriptor.size:
                    promised = f"the {descriptor.size} bytes of {descriptor.digest}"
                    raise ContentError(f"{self._endpoint.host} sends more than {promised}")
                await writing.add(part)
                if progress is not None and time.monotonic() - told >= _INTERVAL:
                    told = time.monotonic()
                    progress(descriptor.digest, writing.size, descriptor.size)
        finally:
            # What came is kept, whatever ended it: the next attempt goes on from there.
            await writing.finish()
        if progress is not None:
            progress(descriptor.digest, writer.offset, descriptor.size)

    async def exists(self, digest: Digest) -> bool:
        """Whether the repository has a blob.

        Raises:
            RegistryError: it does not say.
        """
        scopes = (f"repository:{self._repository}:pull",)
        request = Request("HEAD", f"{self._base}/blobs/{digest}", scopes, metadata=True, accept=(200, 404))

        async def once() -> bool:
            async with self._http.send(self._endpoint, request, self._ask) as response:
                return response.status == 200

        return await self._http.retried(once)

    async def upload(self, descriptor: Descriptor, progress: Progress | None, mount_from: str = "") -> str:
        """Put a blob of the store into the repository, unless it is there.

        Returns:
            ``exists``, ``mounted`` (another repository of the registry had it) or ``pushed``.

        Raises:
            ContentError: the store does not have it.
            RegistryError: it was not taken.
        """
        if await self.exists(descriptor.digest):
            return "exists"
        found = self._store.info(descriptor.digest)
        if found is None or found.size != descriptor.size:
            raise ContentError(f"blob {descriptor.digest} is not in the store")
        return await self._http.retried(lambda: self._upload(descriptor, progress, mount_from))

    async def _upload(self, descriptor: Descriptor, progress: Progress | None, mount_from: str) -> str:
        push: tuple[str, ...] = (f"repository:{self._repository}:pull,push",)
        scopes, begin = push, f"{self._base}/blobs/uploads/"
        path = begin
        if mount_from and mount_from != self._repository:
            scopes += (f"repository:{mount_from}:pull",)
            path += f"?mount={descriptor.digest}&from={mount_from}"
        location, _ = await self._begin(Request("POST", path, scopes, metadata=True, accept=(201, 202)))
        if not location:
            return "mounted"
        try:
            await self._put(location, descriptor, push, progress)
        except RegistryError as error:
            if error.status != 413 or descriptor.size <= PIECE:
                raise
            again = Request("POST", begin, push, metadata=True, accept=(202,))
            location, smallest = await self._begin(again)
            await self._patch(location, descriptor, push, max(PIECE, smallest), progress)
        return "pushed"

    async def _begin(self, request: Request) -> tuple[str, int]:
        async with self._http.send(self._endpoint, request, self._ask) as response:
            if response.status == 201:
                return "", 0
            smallest = response.headers.get("OCI-Chunk-Min-Length", "0")
            known = smallest.isascii() and smallest.isdigit()
            return self._location(response), min(int(smallest), 1 << 30) if known else 0

    def _location(self, response: aiohttp.ClientResponse) -> str:
        where = response.headers.get("Location", "")
        if not where:
            raise RegistryError(f"{self._endpoint.host} does not say where to push", host=self._endpoint.host)
        parts = urlsplit(urljoin(str(response.url), where))
        if parts.netloc == self._endpoint.host:
            return urlunsplit(("", "", *parts[2:]))
        return urlunsplit(parts)

    async def _put(
        self, location: str, descriptor: Descriptor, scopes: tuple[str, ...], progress: Progress | None
    ) -> None:
        body = self._reader(descriptor, 0, descriptor.size, progress)
        path = _with_digest(location, descriptor.digest)
        request = Request("PUT", path, scopes, _BYTES, body, descriptor.size, accept=(201, 204))
        async with self._http.send(self._endpoint, request, self._ask):
            pass

    async def _patch(
        self,
        location: str,
        descriptor: Descriptor,
        scopes: tuple[str, ...],
        piece: int,
        progress: Progress | None,
    ) -> None:
        for start in range(0, descriptor.size, piece):
            length = min(piece, descriptor.size - start)
            headers = {**_BYTES, "Content-Range": f"{start}-{start + length - 1}"}
            body = self._reader(descriptor, start, length, progress)
            request = Request("PATCH", location, scopes, headers, body, length, accept=(202, 204))
            async with self._http.send(self._endpoint, request, self._ask) as response:
                location = self._location(response)
        path = _with_digest(location, descriptor.digest)
        last = Request("PUT", path, scopes, body=_nothing, accept=(201, 204))
        async with self._http.send(self._endpoint, last, self._ask):
            pass

    def _reader(
        self, descriptor: Descriptor, start: int, length: int, progress: Progress | None
    ) -> Callable[[], AsyncIterator[bytes]]:
        async def read() -> AsyncIterator[bytes]:
            blob = self._store.open(descriptor.digest)
            try:
                done = 0
                while done < length:
                    data = await in_thread(os.pread, blob, min(CHUNK, length - done), start + done)
                    if not data:
                        raise ContentError(f"blob {descriptor.digest} is shorter than its descriptor says")
                    done += len(data)
                    yield data
                    if progress is not None:
                        progress(descriptor.digest, start + done, descriptor.size)
            finally:
                os.close(blob)

        return read


class _Writing:
    """Chunks on their way to the disk: one is hashed and written by a thread while the next one arrives."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._thread: asyncio.Future[None] | None = None
        self.size = writer.offset

    async def add(self, part: bytes) -> None:
        self._gathered.append(part)
        self._waiting += len(part)
        self.size += len(part)
        if self._waiting >= CHUNK:
            await self._flush()

    async def finish(self) -> None:
        """Everything is in the file, or the error of writing it is raised."""
        await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        before, self._thread = self._thread, None
        if before is not None:
            try:
                await asyncio.shield(before)
            except asyncio.CancelledError:
                await asyncio.wait([before])
                raise
        if self._gathered:
            data, self._gathered, self._waiting = b"".join(self._gathered), [], 0
            self._thread = asyncio.ensure_future(asyncio.to_thread(self._writer.write, data))


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def _with_digest(location: str, digest: Digest) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"
