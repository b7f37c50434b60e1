"""Authorization, redirects, retries and hostile answers, against small servers made for the case."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.errors import RegistryError
from bknb.oci.types import OCI_MANIFEST, Descriptor
from bknb.protocols import Credentials
from bknb.reference import Reference
from bknb.registry.auth import parse_challenges
from bknb.registry.client import RegistryClient
from bknb.registry.http import TemporaryError, one_line
from bknb.registry.server import RegistryServer
from bknb.settings import HostSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MANIFEST = b'{"schemaVersion":2,"mediaType":"%s","config":{"digest":"%s","size":2},"layers":[]}' % (
    OCI_MANIFEST.encode(),
    Digest.of(b"{}").encode(),
)


@asynccontextmanager
async def serving(handler: Handler):  # type: ignore[no-untyped-def]
    """A server on loopback that answers everything with one handler; gives host and the requests seen."""
    seen: list[web.Request] = []

    async def record(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await handler(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", record)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "{}:{}".format(*runner.addresses[0]), seen
    finally:
        await runner.cleanup()


def manifest_response() -> web.Response:
    """The manifest, as a registry answers."""
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": Digest.of(MANIFEST)}
    return web.Response(body=MANIFEST, headers=headers)


@pytest.fixture
def store(tmp_path: Path) -> DiskContentStore:
    """The client's content store, empty."""
    return DiskContentStore(tmp_path / "content")


def client(store: DiskContentStore, **settings: HostSettings) -> RegistryClient:
    """A client that does not wait between retries."""
    return RegistryClient(store, settings, backoff=(0, 0))


async def login(host: str) -> Credentials | None:
    """The user's password."""
    return Credentials("me", "secret")


async def test_basic_login(store: DiskContentStore) -> None:
    """A registry that asks for Basic gets the user's login; without one, a line that says so."""
    expected = "Basic " + base64.b64encode(b"me:secret").decode()

    async def handler(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != expected:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return manifest_response()

    async with serving(handler) as (host, _), client(store) as asking:
        name = Reference.parse(f"{host}/x")
        assert (await asking.resolve(name, login)).descriptor.digest == Digest.of(MANIFEST)
        with pytest.raises(RegistryError, match="log in") as caught:
            await asking.resolve(name)
        assert caught.value.status == 401


async def test_bearer_token_is_asked_once(store: DiskContentStore) -> None:
    """One token serves many requests at once, is asked for the scope, and again when it is refused."""
    good = ["first"]

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/token":
            assert request.headers["Authorization"].startswith("Basic ")
            assert request.query.getall("scope") == ["repository:x:pull"]
            return web.json_response({"token": good[0], "expires_in": 300})
        if request.headers.get("Authorization") != f"Bearer {good[0]}":
            realm = f'Bearer realm="http://{request.host}/token",service="s",scope="repository:x:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return manifest_response()

    import asyncio

    async with serving(handler) as (host, seen), client(store) as asking:
        name = Reference.parse(f"{host}/x")
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(asking.resolve(name, login))
        assert sum(request.path == "/token" for request in seen) == 1
        good[0] = "second"
        await asking.resolve(name, login)
        assert sum(request.path == "/token" for request in seen) == 2


async def test_identity_token_is_exchanged(store: DiskContentStore) -> None:
    """An identity token goes to the token service as a refresh token, by POST."""

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/token":
            form = await request.post()
            assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "identity")
            return web.json_response({"access_token": "t"})
        if request.headers.get("Authorization") != "Bearer t":
            realm = f'Bearer realm="http://{request.host}/token",service="s"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return manifest_response()

    async def identity(host: str) -> Credentials | None:
        return Credentials(token="identity")

    async with serving(handler) as (host, _), client(store) as asking:
        await asking.resolve(Reference.parse(f"{host}/x"), identity)


async def test_login_is_not_sent_in_the_clear(store: DiskContentStore) -> None:
    """A token service elsewhere without TLS does not get the login."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="http://evil.example/t"'})

    async with serving(handler) as (host, _), client(store) as asking:
        with pytest.raises(RegistryError, match="without TLS: refused"):
            await asking.resolve(Reference.parse(f"{host}/x"), login)


async def test_redirect_drops_authorization(store: DiskContentStore) -> None:
    """A blob that lies on another host is fetched there without the login."""
    data = b"blob" * 1000

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(body=data)

    async with serving(elsewhere) as (other, seen_there):

        async def handler(request: web.Request) -> web.Response:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
            return web.Response(status=307, headers={"Location": f"http://{other}/cdn?sig=a%2Fb"})

        async with serving(handler) as (host, _), client(store) as asking:
            blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
            await asking.fetch(Reference.parse(f"{host}/x"), blob, ask=login)
        assert store.read(blob.digest) == data
        assert ["Authorization" in request.headers for request in seen_there] == [False]
        assert seen_there[0].raw_path == "/cdn?sig=a%2Fb"


@pytest.mark.parametrize("ranges", [True, False])
async def test_download_resumes(store: DiskContentStore, ranges: bool) -> None:
    """A connection that breaks is taken up where it broke; with and without Range support."""
    data = bytes(range(256)) * 20_000
    served: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range", "")
        served.append(wanted)
        start = int(wanted[6:-1]) if wanted and ranges else 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        if len(served) < 3:
            await response.write(data[start : start + 2_000_000])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[start:])
        return response

    async with serving(handler) as (host, _), client(store) as asking:
        blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
        await asking.fetch(Reference.parse(f"{host}/x"), blob)
    assert store.info(blob.digest) is not None
    assert served[0] == ""
    assert all(text.startswith("bytes=") for text in served[1:])


async def test_retries_then_gives_up(store: DiskContentStore) -> None:
    """500 is tried again, and is one line in the end; 403 is not tried again."""
    status = [500]

    async def handler(request: web.Request) -> web.Response:
        body = {"errors": [{"code": "X", "message": "no\nluck \x1b[31m"}]}
        return web.json_response(body, status=status[0])

    async with serving(handler) as (host, seen), client(store) as asking:
        name = Reference.parse(f"{host}/x")
        with pytest.raises(RegistryError, match="answered 500"):
            await asking.resolve(name)
        assert len(seen) == 3
        status[0] = 403
        with pytest.raises(RegistryError, match="denies access"):
            await asking.resolve(name)
        assert len(seen) == 4
        with pytest.raises(RegistryError, match=r"\(no luck \[31m\)"):
            await asking.tags(name)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"schemaVersion":1}',
        b'{"manifests":[{"digest":"x","size":1}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_hostile_manifests(store: DiskContentStore, body: bytes) -> None:
    """What is no manifest is one line, never a traceback, and is not kept."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/html")

    async with serving(handler) as (host, _), client(store) as asking:
        with pytest.raises(RegistryError) as caught:
            await asking.resolve(Reference.parse(f"{host}/x"))
        assert "\n" not in str(caught.value)


async def test_endless_manifest(store: DiskContentStore) -> None:
    """A manifest that does not end is cut off at 4 MiB."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.method == "HEAD":
            return response
        await response.prepare(request)
        for _ in range(64):
            await response.write(b" " * (1 << 20))
        return response

    async with serving(handler) as (host, _), client(store) as asking:
        with pytest.raises(RegistryError, match="sends more than 4194304 bytes"):
            await asking.resolve(Reference.parse(f"{host}/x"))


async def test_wrong_digest_is_refused(store: DiskContentStore) -> None:
    """A manifest with other bytes than its name promises is not taken."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=MANIFEST, headers={"Content-Type": OCI_MANIFEST})

    async with serving(handler) as (host, _), client(store) as asking:
        with pytest.raises(RegistryError, match="other bytes"):
            name = Reference.parse(f"{host}/x@{Digest.of(b'other')}")
            await asking.fetch_document(name, (await asking.resolve(name)).descriptor)
    assert list(store.walk()) == []


async def test_metadata_has_its_own_connection(store: DiskContentStore) -> None:
    """While blobs take every connection, a look-up still gets through."""
    import asyncio

    release, busy, most = asyncio.Event(), 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal busy, most
        if "/blobs/" in request.path:
            busy, most = busy + 1, max(most, busy + 1)
            await release.wait()
            busy -= 1
            return web.Response(body=request.path[-1].encode())
        return manifest_response()

    async with serving(handler) as (host, _), client(store) as asking:
        name = Reference.parse(f"{host}/x")
        async with asyncio.TaskGroup() as group:
            for number in range(9):
                blob = Descriptor("application/octet-stream", Digest.of(b"%d" % number), 1)
                group.create_task(_ignore(asking.fetch(name, blob)))
            while busy < 4:
                await asyncio.sleep(0)
            await asking.resolve(name)
            release.set()
    assert most == 4


async def _ignore(fetching: Awaitable[None]) -> None:
    with contextlib.suppress(RegistryError):
        await fetching


async def test_insecure_falls_back_to_http(store: DiskContentStore) -> None:
    """`insecure` tries TLS first and plain HTTP where there is none."""

    async def handler(request: web.Request) -> web.Response:
        return manifest_response()

    async with serving(handler) as (host, _):
        settings = {host: HostSettings(insecure=True)}
        async with RegistryClient(store, settings, backoff=()) as asking:
            await asking.resolve(Reference.parse(f"{host}/x"))


async def test_missing_ca_file(store: DiskContentStore) -> None:
    """A CA file that is not there is one line with its name."""
    settings = {"127.0.0.1:1": HostSettings(http=False, ca=("/nowhere/ca.pem",))}
    async with RegistryClient(store, settings, backoff=()) as asking:
        with pytest.raises(RegistryError, match=r"cannot use the CA file /nowhere/ca.pem"):
            await asking.resolve(Reference.parse("127.0.0.1:1/x"))


async def test_server_refuses_foreign_hosts(tmp_path: Path) -> None:
    """A web page that points its own name at loopback gets nothing."""
    import aiohttp

    async with (
        RegistryServer(tmp_path, DiskContentStore(tmp_path / "c")) as server,
        aiohttp.ClientSession() as http,
        http.get(f"http://{server.host}/v2/", headers={"Host": "evil.example"}) as response,
    ):
        assert response.status == 403
        assert json.loads(await response.text())["errors"][0]["code"] == "DENIED"


def test_challenges() -> None:
    """Challenges are read as far as they go, whatever comes."""
    both = parse_challenges('Basic realm="a \\"b\\"", Bearer realm="r",scope="x:y:pull,push"')
    assert [c.scheme for c in both] == ["basic", "bearer"]
    assert both[0].parameters == {"realm": 'a "b"'}
    assert both[1].parameters == {"realm": "r", "scope": "x:y:pull,push"}
    for text in ("", "Negotiate", 'Bearer realm="', "\x00,,,=", "a=b" * 9999):
        parse_challenges(text)


def test_one_line() -> None:
    """Foreign text is one short printable line."""
    assert one_line("a\r\n\tb\x00" + "c" * 999).startswith("a b c")
    assert issubclass(TemporaryError, RegistryError)


async def test_cancelling_waits_for_the_thread() -> None:
    """Who is cancelled goes on only when the thread is done with what will be closed."""
    import asyncio
    import threading

    from bknb.registry.threads import in_thread

    started, release, done = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait()
        done.append(True)

    running = asyncio.ensure_future(in_thread(work))
    await started.wait()
    running.cancel()
    loop.call_soon(release.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert done == [True]


async def test_cancelled_download(store: DiskContentStore, tmp_path: Path) -> None:
    """Who is cancelled in the middle leaves nothing; another one who wants the same blob gets it."""
    import asyncio

    data, begun, go_on = b"x" * 3_000_000, asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:2_000_000])
        begun.set()
        await go_on.wait()
        await response.write(data[2_000_000:])
        return response

    async with serving(handler) as (host, seen), client(store) as asking:
        blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
        name = Reference.parse(f"{host}/x")
        first, second = (asyncio.ensure_future(asking.fetch(name, blob)) for _ in range(2))
        await begun.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        await second
        assert store.read(blob.digest) == data
        assert len(seen) == 2
    assert list((tmp_path / "content" / "ingest").iterdir()) == []


async def test_scopes_of_a_mirror(store: DiskContentStore) -> None:
    """Where the registry names another scope than the repository's, both are asked for, each repository's own."""
    asked: list[list[str]] = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/token":
            asked.append(request.query.getall("scope"))
            return web.json_response({"token": " ".join(asked[-1]).replace(" ", "+")})
        repository = request.path.split("/")[3]
        if f"hub/{repository}:pull" not in request.headers.get("Authorization", ""):
            realm = f'Bearer realm="http://{request.host}/token",scope="repository:hub/{repository}:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return manifest_response()

    async with serving(handler) as (host, _):
        mirrored = {"docker.io": HostSettings(mirrors=(f"{host}/hub",), exclusive=True)}
        async with RegistryClient(store, mirrored, backoff=()) as asking:
            for name in ("a/x", "b/x", "a/x"):
                await asking.resolve(Reference.parse(f"docker.io/{name}"))
    both = [
        ["repository:a/x:pull", "repository:hub/a:pull"],
        ["repository:b/x:pull", "repository:hub/b:pull"],
    ]
    assert [scopes for scopes in asked if len(scopes) == 2] == both
