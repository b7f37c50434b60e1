"""A registry in this process: the OCI distribution protocol over a content store.

Made for builds without a network and for tests, and no toy: pushes, mounts, ranges, deletions and referrers
follow distribution-spec 1.1, and the suite that it passes is passed by Debian's docker-registry too. It
binds to loopback only, and answers only to a loopback ``Host``, so that no web page reaches it.

    ROOT/repositories/NAME/_tags/TAG              the digest
    ROOT/repositories/NAME/_manifests/ALG-HEX     the media type
    ROOT/repositories/NAME/_blobs/ALG-HEX         empty: the repository has that blob
    ROOT/repositories/NAME/_referrers/ALG-HEX/... the descriptor of each manifest with that subject
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bknb.digest import Digest
from bknb.errors import BknbError, ContentError, RegistryError
from bknb.oci.types import MAX_DOCUMENT, OCI_INDEX, Index, parse_document
from bknb.protocols import BlobWriter, ContentStore
from bknb.registry.hosts import is_loopback
from bknb.registry.repositories import Repositories, Repository
from bknb.registry.threads import in_thread

if TYPE_CHECKING:
    from aiohttp import web

_NAME: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_ROUTE: Final = re.compile(
    rf"/v2/(?P<name>{_NAME})/(?:"
    r"manifests/(?P<manifest>[^/]+)|blobs/uploads/(?P<upload>[^/]*)|blobs/(?P<blob>[^/]+)|"
    r"tags/(?P<tags>list)|referrers/(?P<subject>[^/]+))\Z"
)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_RANGE: Final = re.compile(r"(?:bytes=)?(\d+)-(\d+)\Z")
_UPLOADS: Final = 64
_PAGE: Final = 1000


class Access(enum.Enum):
    """What clients may do."""

    PULL = "pull"
    PUSH = "push"
    """Pull, push and delete."""


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(slots=True)
class _Upload:
    name: str
    writer: BlobWriter
    lock: asyncio.Lock


class RegistryServer:
    """Serves one folder of repositories.

    Example::

        async with RegistryServer(root, store) as server:
            print(server.host)      # 127.0.0.1:37101

    Args:
        root: where tags and links are kept; made if missing.
        store: where the bytes are.
        access: what clients may do.
        port: 0 is any free one.
    """

    def __init__(
        self, root: str | Path, store: ContentStore, *, access: Access = Access.PUSH, port: int = 0
    ) -> None:
        self.repositories = Repositories(Path(root))
        self.host = ""
        self._store = store
        self._access = access
        self._port = port
        self._uploads: dict[str, _Upload] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> RegistryServer:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Begin to listen; `host` is then ``127.0.0.1:PORT``.

        Raises:
            RegistryError: the port is taken.
        """
        from aiohttp import web

        application = web.Application(client_max_size=MAX_DOCUMENT)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        except OSError as error:
            await self.aclose()
            raise RegistryError(f"cannot serve on 127.0.0.1:{self._port}: {error.strerror}") from None
        address = self._runner.addresses[0]
        self.host = f"{address[0]}:{address[1]}"

    async def aclose(self) -> None:
        """Stop listening, and forget unfinished uploads."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        for upload in self._uploads.values():
            upload.writer.__exit__(None, None, None)
        self._uploads.clear()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        try:
            response = await self._route(request)
        except (_Refused, BknbError, ValueError, OSError) as error:
            if isinstance(error, _Refused):
                refused = error
            elif isinstance(error, ValueError):
                refused = _Refused(400, "MANIFEST_INVALID", str(error))
            else:
                refused = _Refused(500, "UNKNOWN", str(error))
            body = {"errors": [{"code": refused.code, "message": refused.message}]}
            response = web.json_response(body, status=refused.status)
        response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        return response

    async def _route(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        if not is_loopback(request.host):
            raise _Refused(403, "DENIED", "this registry serves its own machine only")
        if self._access is Access.PULL and request.method not in ("GET", "HEAD"):
            raise _Refused(405, "UNSUPPORTED", "this registry is only read from")
        if request.path in ("/v2/", "/v2"):
            return web.json_response({})
        if request.path == "/v2/_catalog":
            return web.json_response({"repositories": self.repositories.names()})
        found = _ROUTE.match(request.path)
        if found is None or len(found["name"]) > 255:
            raise _Refused(404, "NAME_UNKNOWN", "no such place")
        repository = self.repositories.repository(found["name"])
        handlers: dict[tuple[str, str], Callable[..., Awaitable[web.StreamResponse]]] = {
            ("manifest", "GET"): self._get_manifest, ("manifest", "HEAD"): self._get_manifest,
            ("manifest", "PUT"): self._put_manifest, ("manifest", "DELETE"): self._delete_manifest,
            ("blob", "GET"): self._get_blob, ("blob", "HEAD"): self._get_blob,
            ("blob", "DELETE"): self._delete_blob, ("upload", "POST"): self._begin_upload,
            ("upload", "PATCH"): self._continue_upload, ("upload", "PUT"): self._finish_upload,
            ("upload", "GET"): self._upload_state, ("upload", "DELETE"): self._cancel_upload,
            ("tags", "GET"): self._list_tags, ("subject", "GET"): self._list_referrers,
        }  # fmt: skip
        kind = found.lastgroup or ""
        handler = handlers.get((kind, request.method))
        if handler is None:
            raise _Refused(405, "UNSUPPORTED", f"{request.method} is not for {kind}s")
        return await handler(request, repository, found[kind])

    # --- manifests

    def _named(self, repository: Repository, name: str) -> Digest:
        if ":" in name:
            return _digest(name)
        if not _TAG.match(name):
            raise _Refused(404, "MANIFEST_UNKNOWN", "not a tag")
        digest = repository.tag(name)
        if digest is None:
            raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return digest

    async def _get_manifest(
        self, request: web.Request, repository: Repository, name: str
    ) -> web.StreamResponse:
        from aiohttp import web

        digest = self._named(repository, name)
        kind = repository.manifest_type(digest)
        if kind is None or self._store.info(digest) is None:
            raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
        data = self._store.read(digest)
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        return web.Response(body=data, headers=headers)

    async def _put_manifest(
        self, request: web.Request, repository: Repository, name: str
    ) -> web.StreamResponse:
        from aiohttp import web

        if not (_TAG.match(name) or ":" in name):
            raise _Refused(400, "TAG_INVALID", "not a tag")
        try:
            data = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _Refused(413, "SIZE_INVALID", f"a manifest has at most {MAX_DOCUMENT} bytes") from None
        document = parse_document(data, request.headers.get("Content-Type", ""))
        wanted = _digest(name) if ":" in name else None
        missing = [
            blob.digest
            for blob in (() if isinstance(document, Index) else (document.config, *document.layers))
            if not blob.urls and not repository.has_blob(blob.digest)
        ]
        if isinstance(document, Index):
            missing = [e.digest for e in document.manifests if repository.manifest_type(e.digest) is None]
        if missing:
            code = "MANIFEST_UNKNOWN" if isinstance(document, Index) else "MANIFEST_BLOB_UNKNOWN"
            raise _Refused(
                404 if isinstance(document, Index) else 400, code, f"{missing[0]} was not pushed before"
            )
        digest = wanted or Digest.of(data)
        with self._store.write() as writer:
            writer.write(data)
            try:
                await in_thread(writer.commit, digest)
            except ContentError as error:
                raise _Refused(400, "DIGEST_INVALID", str(error)) from None
        repository.add_manifest(digest, document, len(data))
        if wanted is None:
            repository.set_tag(name, digest)
        headers = {"Location": f"/v2/{repository.name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if document.subject is not None:
            headers["OCI-Subject"] = document.subject.digest
        return web.Response(status=201, headers=headers)

    async def _delete_manifest(
        self, request: web.Request, repository: Repository, name: str
    ) -> web.StreamResponse:
        from aiohttp import web

        gone = repository.remove_manifest(_digest(name)) if ":" in name else repository.remove_tag(name)
        if not gone:
            raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return web.Response(status=202)

    async def _list_tags(self, request: web.Request, repository: Repository, _: str) -> web.StreamResponse:
        from aiohttp import web

        if not repository.exists:
            raise _Refused(404, "NAME_UNKNOWN", "repository name not known to registry")
        last, count = request.query.get("last", ""), request.query.get("n", str(_PAGE))
        if not (count.isascii() and count.isdigit()):
            raise _Refused(400, "PAGINATION_NUMBER_INVALID", "n is a number")
        tags = [tag for tag in repository.tags() if tag > last]
        shown, headers = tags[: int(count)], {}
        if shown and len(shown) < len(tags):
            headers["Link"] = f'</v2/{repository.name}/tags/list?last={shown[-1]}&n={count}>; rel="next"'
        return web.json_response({"name": repository.name, "tags": shown}, headers=headers)

    async def _list_referrers(
        self, request: web.Request, repository: Repository, subject: str
    ) -> web.StreamResponse:
        from aiohttp import web

        entries, headers = repository.referrers(_digest(subject)), {"Content-Type": OCI_INDEX}
        wanted = request.query.get("artifactType")
        if wanted:
            entries = [entry for entry in entries if entry.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return web.Response(body=json.dumps(body).encode(), headers=headers)

    # --- blobs

    async def _get_blob(self, request: web.Request, repository: Repository, name: str) -> web.StreamResponse:
        from aiohttp import web

        digest = _digest(name)
        if not repository.has_blob(digest) or self._store.info(digest) is None:
            raise _Refused(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return web.FileResponse(self._store.path(digest), headers=headers)

    async def _delete_blob(
        self, request: web.Request, repository: Repository, name: str
    ) -> web.StreamResponse:
        from aiohttp import web

        # The bytes stay: they belong to the content store and its garbage collection.
        if not repository.remove_blob(_digest(name)):
            raise _Refused(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return web.Response(status=202)

    async def _begin_upload(self, request: web.Request, repository: Repository, _: str) -> web.StreamResponse:
        from aiohttp import web

        mount, source = request.query.get("mount", ""), request.query.get("from", "")
        if mount and source and re.fullmatch(_NAME, source):
            digest = _digest(mount)
            if self.repositories.repository(source).has_blob(digest) and self._store.info(digest):
                return self._stored(repository, digest)
        self._make_room()
        upload = _Upload(repository.name, self._store.write(), asyncio.Lock())
        identity = secrets.token_hex(16)
        self._uploads[identity] = upload
        if "digest" in request.query:
            return await self._finish_upload(request, repository, identity)
        return web.Response(status=202, headers=self._progress(repository, identity, upload))

    def _make_room(self) -> None:
        """Of too many unfinished uploads the oldest that nobody is at are forgotten."""
        idle = [name for name, upload in self._uploads.items() if not upload.lock.locked()]
        for name in idle[: max(len(self._uploads) - _UPLOADS + 1, 0)]:
            self._uploads.pop(name).writer.__exit__(None, None, None)
        if len(self._uploads) >= _UPLOADS:
            raise _Refused(429, "TOOMANYREQUESTS", "too many unfinished uploads")

    def _progress(self, repository: Repository, identity: str, upload: _Upload) -> dict[str, str]:
        return {
            "Location": f"/v2/{repository.name}/blobs/uploads/{identity}",
            "Docker-Upload-UUID": identity,
            "Range": f"0-{max(upload.writer.offset - 1, 0)}",
        }

    def _upload(self, repository: Repository, identity: str) -> _Upload:
        upload = self._uploads.get(identity)
        if upload is None or upload.name != repository.name:
            raise _Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return upload

    async def _receive(self, request: web.Request, upload: _Upload) -> None:
        said = request.headers.get("Content-Range")
        if said is not None:
            found = _RANGE.match(said)
            if found is None or int(found[1]) != upload.writer.offset:
                raise _Refused(416, "BLOB_UPLOAD_INVALID", "the upload stands at another offset")
        gathered: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            gathered.append(part)
            size += len(part)
            if size >= 1 << 20:
                await in_thread(upload.writer.write, b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            await in_thread(upload.writer.write, b"".join(gathered))

    async def _continue_upload(
        self, request: web.Request, repository: Repository, identity: str
    ) -> web.StreamResponse:
        from aiohttp import web

        upload = self._upload(repository, identity)
        async with upload.lock:
            await self._receive(request, upload)
        return web.Response(status=202, headers=self._progress(repository, identity, upload))

    async def _finish_upload(
        self, request: web.Request, repository: Repository, identity: str
    ) -> web.StreamResponse:
        upload = self._upload(repository, identity)
        digest = _digest(request.query.get("digest", ""))
        async with upload.lock:
            await self._receive(request, upload)
            self._uploads.pop(identity, None)
            with upload.writer:
                try:
                    await in_thread(upload.writer.commit, digest)
                except ContentError as error:
                    raise _Refused(400, "DIGEST_INVALID", str(error)) from None
        return self._stored(repository, digest)

    def _stored(self, repository: Repository, digest: Digest) -> web.StreamResponse:
        from aiohttp import web

        repository.add_blob(digest)
        headers = {"Location": f"/v2/{repository.name}/blobs/{digest}", "Docker-Content-Digest": digest}
        return web.Response(status=201, headers=headers)

    async def _upload_state(self, request: web.Request, repository: Repository, identity: str) -> Any:
        from aiohttp import web

        upload = self._upload(repository, identity)
        return web.Response(status=204, headers=self._progress(repository, identity, upload))

    async def _cancel_upload(self, request: web.Request, repository: Repository, identity: str) -> Any:
        from aiohttp import web

        upload = self._upload(repository, identity)
        async with upload.lock:
            if self._uploads.pop(identity, None) is not None:
                with contextlib.suppress(ContentError):
                    upload.writer.__exit__(None, None, None)
        return web.Response(status=204)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise _Refused(400, "DIGEST_INVALID", str(error)) from None
