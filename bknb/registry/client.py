"""A client of the OCI distribution protocol (distribution-spec 1.1), over a content store.

Documents and blobs land in the store under the digest that was asked for, or not at all. Mirrors are asked
first, in their order, then the registry itself; who served is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bknb.digest import Digest
from bknb.errors import ContentError, RegistryError
from bknb.oci.types import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)
from bknb.protocols import ContentStore, Progress
from bknb.reference import Reference
from bknb.registry.auth import AskCredentials
from bknb.registry.hosts import Endpoint, endpoints
from bknb.registry.http import BACKOFF, Http, Request, bounded
from bknb.registry.transfer import Transfer
from bknb.settings import HostSettings

T = TypeVar("T")

_ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES)) + ", */*"
_NONDISTRIBUTABLE = ("nondistributable", "foreign")
_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name means now: the descriptor of a manifest or index, and which mirror said so ("" none)."""

    reference: Reference
    descriptor: Descriptor
    note: str = ""


@dataclass(slots=True)
class _Flight:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holders: int = 0


class RegistryClient:
    """Reads and writes registries. One event loop; closed with `aclose` or as a context.

    Args:
        store: where everything lands and comes from.
        registries: settings by host.
        concurrency: connections to a host; one more is kept for metadata.
        backoff: seconds before each retry.
    """

    def __init__(
        self,
        store: ContentStore,
        registries: Mapping[str, HostSettings] | None = None,
        *,
        concurrency: int = 4,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._store = store
        self._registries = registries or {}
        self._http = Http(concurrency=concurrency, backoff=backoff)
        self._flights: dict[tuple[str, Digest], _Flight] = {}
        self._seen: dict[tuple[str, Digest], str] = {}

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def settings(self, domain: str) -> HostSettings:
        """How a registry is reached."""
        return self._registries.get(domain, HostSettings())

    # --- reading

    async def resolve(self, reference: Reference, ask: AskCredentials | None = None) -> Resolved:
        """What a name means now; a digest in the name is what counts.

        Raises:
            RegistryError: nobody knows it, or nobody answers.
        """

        async def at(endpoint: Endpoint) -> Resolved:
            return await self._http.retried(lambda: self._resolve(endpoint, reference, ask))

        return await self._first(reference, at)

    async def _resolve(
        self, endpoint: Endpoint, reference: Reference, ask: AskCredentials | None
    ) -> Resolved:
        path = f"{endpoint.path}/{reference.path}/manifests/{reference.object}{_namespace(endpoint)}"
        scopes = (f"repository:{reference.path}:pull",)
        request = Request(
            "HEAD", path, scopes, {"Accept": _ACCEPT}, metadata=True, accept=(200, 400, 405, 501)
        )
        async with self._http.send(endpoint, request, ask) as response:
            headers, status = response.headers, response.status
        kind = headers.get("Content-Type", "").partition(";")[0].strip()
        said, length = headers.get("Docker-Content-Digest", ""), headers.get("Content-Length", "")
        if reference.digest and said and said != reference.digest:
            text = f"{endpoint.host} answers {said[:80]!r} for {reference.digest}"
            raise RegistryError(text, host=endpoint.host)
        known = kind in MANIFEST_TYPES | INDEX_TYPES and length.isascii() and length.isdigit()
        with contextlib.suppress(ValueError):
            if status == 200 and known and (said or reference.digest):
                digest = Digest.parse(said or str(reference.digest))
                if 0 < int(length) <= MAX_DOCUMENT:
                    return Resolved(reference, Descriptor(kind, digest, int(length)), endpoint.note)
        data, kind = await self._document(endpoint, reference, reference.object, ask)
        digest = self._keep(data, reference.digest)
        return Resolved(reference, Descriptor(kind, digest, len(data)), endpoint.note)

    async def fetch_document(
        self, reference: Reference, descriptor: Descriptor, ask: AskCredentials | None = None
    ) -> bytes:
        """A manifest or index by its digest, from the store if it is there.

        Raises:
            RegistryError, ContentError: it cannot be had, or has other bytes.
        """
        if self._store.info(descriptor.digest) is not None:
            return self._store.read(descriptor.digest)

        async def at(endpoint: Endpoint) -> bytes:
            data, _ = await self._http.retried(
                lambda: self._document(endpoint, reference, descriptor.digest, ask)
            )
            self._keep(data, descriptor.digest)
            return data

        return await self._first(reference, at)

    async def _document(
        self, endpoint: Endpoint, reference: Reference, name: str, ask: AskCredentials | None
    ) -> tuple[bytes, str]:
        path = f"{endpoint.path}/{reference.path}/manifests/{name}{_namespace(endpoint)}"
        scopes = (f"repository:{reference.path}:pull",)
        request = Request("GET", path, scopes, {"Accept": _ACCEPT}, metadata=True)
        async with self._http.send(endpoint, request, ask) as response:
            data = await bounded(response, MAX_DOCUMENT)
            said = response.headers.get("Content-Type", "")
        try:
            return data, parse_document(data, said).media_type
        except ValueError as error:
            raise RegistryError(f"{endpoint.host} sends {error}", host=endpoint.host) from None

    def _keep(self, data: bytes, expected: Digest | None) -> Digest:
        with self._store.write() as writer:
            writer.write(data)
            return writer.commit(expected)

    async def fetch(
        self,
        reference: Reference,
        descriptor: Descriptor,
        progress: Progress | None = None,
        ask: AskCredentials | None = None,
    ) -> None:
        """Bring a blob of an image into the store, once however many ask for it.

        Raises:
            RegistryError, ContentError: it cannot be had, or has other bytes than promised.
        """
        async with self._flight("", descriptor.digest):
            if self._store.info(descriptor.digest) is not None:
                return

            async def at(endpoint: Endpoint) -> None:
                transfer = Transfer(self._http, self._store, endpoint, reference.path, ask)
                await transfer.download(descriptor, progress)

            await self._first(reference, at)
            self._remember(reference, descriptor.digest)

    async def tags(self, reference: Reference, ask: AskCredentials | None = None) -> tuple[str, ...]:
        """The tags of a repository (those of the registry's first page).

        Raises:
            RegistryError: it cannot be asked.
        """
        import msgspec

        async def at(endpoint: Endpoint) -> tuple[str, ...]:
            scopes = (f"repository:{reference.path}:pull",)
            request = Request("GET", f"{endpoint.path}/{reference.path}/tags/list", scopes, metadata=True)
            async with self._http.send(endpoint, request, ask) as response:
                data = await bounded(response, MAX_DOCUMENT)
            try:
                found = msgspec.json.decode(data, type=dict[str, str | list[str] | None]).get("tags")
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise RegistryError(f"{endpoint.host} sends a list of tags that is none") from None
            return tuple(found) if isinstance(found, list) else ()

        return await self._first(reference, at)

    async def _first(self, reference: Reference, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        failures: list[str] = []
        found = endpoints(reference.domain, self._registries)
        for endpoint in found:
            try:
                return await ask(endpoint)
            except (RegistryError, ContentError) as error:
                failures.append(f"{error}")
                if endpoint is found[-1]:
                    status = error.status if isinstance(error, RegistryError) else 0
                    if status == 404:
                        failures[-1] = f"not found: {failures[-1]}"
                    # The last one is the registry itself, save where only mirrors may be asked.
                    text = f"{reference.familiar}: " + "; ".join(reversed(failures))
                    raise RegistryError(text, status=status, host=endpoint.host) from None
        raise AssertionError("a name has an endpoint")

    # --- writing

    async def push(
        self,
        reference: Reference,
        descriptor: Descriptor,
        *,
        progress: Progress | None = None,
        ask: AskCredentials | None = None,
        by_digest: str = "",
        settings: HostSettings | None = None,
    ) -> None:
        """Push a manifest or index of the store with all that it names, the named one last.

        Args:
            reference: under which name; without a tag, or where `by_digest` is set, only by digest.
            descriptor: what.
            progress: told of blobs.
            ask: where credentials come from.
            by_digest: why no tag is written; any text.
            settings: how this registry is reached, where that is not what the client was told.

        Raises:
            ContentError: something of it is not in the store.
            RegistryError: it was not taken.
        """
        known = {**self._registries, reference.domain: settings} if settings else self._registries
        (endpoint,) = endpoints(reference.domain, known, push=True)
        tag = "" if by_digest else reference.tag
        try:
            await self._push(endpoint, reference, descriptor, tag or descriptor.digest, progress, ask)
        except RegistryError as error:
            text = f"failed to push {reference.familiar}: {error}"
            raise RegistryError(text, status=error.status, host=error.host) from None

    async def _push(
        self,
        endpoint: Endpoint,
        reference: Reference,
        descriptor: Descriptor,
        name: str,
        progress: Progress | None,
        ask: AskCredentials | None,
    ) -> None:
        data = self._store.read(descriptor.digest)
        try:
            document = parse_document(data, descriptor.media_type)
        except ValueError as error:
            raise ContentError(f"{descriptor.digest} cannot be pushed: {error}") from None
        if isinstance(document, Index):
            for entry in document.manifests:
                await self._push(endpoint, reference, entry, entry.digest, progress, ask)
        else:
            await self._push_blobs(endpoint, reference, document, progress, ask)
        path = f"{endpoint.path}/{reference.path}/manifests/{name}"

        async def body() -> AsyncIterator[bytes]:
            yield data

        request = Request(
            "PUT", path, (f"repository:{reference.path}:pull,push",), {"Content-Type": document.media_type},
            body, len(data), metadata=True, accept=(201, 202),
        )  # fmt: skip

        async def once() -> None:
            async with self._http.send(endpoint, request, ask) as response:
                said = response.headers.get("Docker-Content-Digest", descriptor.digest)
            if said != descriptor.digest:
                raise RegistryError(f"{endpoint.host} stored {said[:80]!r} instead of {descriptor.digest}")

        await self._http.retried(once)

    async def _push_blobs(
        self,
        endpoint: Endpoint,
        reference: Reference,
        manifest: Manifest,
        progress: Progress | None,
        ask: AskCredentials | None,
    ) -> None:
        transfer = Transfer(self._http, self._store, endpoint, reference.path, ask)

        async def one(blob: Descriptor) -> None:
            async with self._flight(f"{endpoint.host}/{reference.path}", blob.digest):
                await transfer.upload(blob, progress, self._seen.get((reference.domain, blob.digest), ""))
            self._remember(reference, blob.digest)

        wanted = {blob.digest: blob for blob in (manifest.config, *manifest.layers) if not _is_foreign(blob)}
        try:
            async with asyncio.TaskGroup() as group:
                for blob in wanted.values():
                    group.create_task(one(blob))
        except BaseExceptionGroup as errors:
            # One failure says enough: the others were cancelled, or say the same. (What is raised inside of
            # `except*` becomes a group in some versions of Python 3.11 and not in others.)
            failure: BaseException = errors
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            raise failure from None

    def _remember(self, reference: Reference, digest: Digest) -> None:
        if len(self._seen) >= _REMEMBERED:
            self._seen.pop(next(iter(self._seen)))
        self._seen[reference.domain, digest] = reference.path

    @contextlib.asynccontextmanager
    async def _flight(self, place: str, digest: Digest) -> AsyncIterator[None]:
        flight = self._flights.setdefault((place, digest), _Flight())
        flight.holders += 1
        try:
            async with flight.lock:
                yield
        finally:
            flight.holders -= 1
            if not flight.holders:
                del self._flights[place, digest]


def _is_foreign(descriptor: Descriptor) -> bool:
    return any(word in descriptor.media_type for word in _NONDISTRIBUTABLE) and bool(descriptor.urls)


def _namespace(endpoint: Endpoint) -> str:
    # containerd tells a mirror whom it stands for.
    return f"?ns={endpoint.mirror}" if endpoint.mirror else ""
