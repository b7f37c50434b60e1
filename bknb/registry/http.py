"""Requests to registries: connections, redirects, authorization, retries.

Nothing else in this package speaks HTTP to others, and retries live nowhere else. A host has `concurrency`
connections for blobs and one more that only manifests and configs may use, so that a long pull never holds up
a look-up (util/resolver/limited/group.go).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from bknb import __version__
from bknb.errors import RegistryError
from bknb.registry.auth import AskCredentials, Authorizer
from bknb.registry.hosts import Endpoint, is_loopback, tls

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

BACKOFF: Final = (1.0, 2.0, 4.0)
"""Seconds before each retry (util/resolver/retryhandler)."""
_WITHOUT: Final = {
    "registry-1.docker.io": "; without a network say %config Bknb.offline = True in a notebook, BKNB_OFFLINE=1 in a terminal"
}
"""What else can be done where a host is not there: docker.io is served from this machine, if that is asked for."""
_REDIRECTS: Final = 5
_LONGEST: Final = 60
_MAX_ERROR: Final = 64 << 10
_AGAIN: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


class TemporaryError(RegistryError):
    """What may go better the next time; `after` is how many seconds the host wants to be left alone."""

    def __init__(self, message: str, *, status: int = 0, host: str = "", after: float = 0.0) -> None:
        super().__init__(message, status=status, host=host)
        self.after = after


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a registry; `path` follows the endpoint's own, or is a whole URL.

    `body` is called for each attempt and gives the bytes; `length` is said beforehand.
    `metadata` requests use the extra connection.
    """

    method: str
    path: str
    scopes: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], AsyncIterator[bytes]] | None = None
    length: int = 0
    metadata: bool = False
    accept: tuple[int, ...] = (200,)


@dataclass(slots=True)
class _Host:
    total: asyncio.Semaphore
    blobs: asyncio.Semaphore
    authorizer: Authorizer
    tls: ssl.SSLContext | None = None
    scheme: str = ""


class Http:
    """All connections of one client. Made and used in one event loop."""

    def __init__(self, *, concurrency: int = 4, backoff: Sequence[float] = BACKOFF) -> None:
        self._concurrency = concurrency
        self._backoff = tuple(backoff)
        self._hosts: dict[tuple[Endpoint, str], _Host] = {}
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do something, again after a while where that may help.

        Raises:
            RegistryError: the last failure.
        """
        for pause in self._backoff:
            try:
                return await attempt()
            except TemporaryError as error:
                await asyncio.sleep(max(pause, error.after))
        return await attempt()

    @contextlib.asynccontextmanager
    async def send(
        self, endpoint: Endpoint, request: Request, ask: AskCredentials | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, authorized; its response is open inside of the context.

        Raises:
            TemporaryError, RegistryError: no connection, or a status that `request` does not accept.
        """
        host = self._host(endpoint)
        async with contextlib.AsyncExitStack() as stack:
            if not request.metadata:
                await stack.enter_async_context(host.blobs)
            await stack.enter_async_context(host.total)
            with mapped(endpoint.host):
                response = await self._authorized(stack, endpoint, host, request, ask)
                if response.status not in request.accept:
                    raise await _refusal(response, endpoint)
            # Errors of the body are mapped too, those of the caller's own doing are not of these kinds.
            with mapped(endpoint.host):
                yield response

    async def _authorized(
        self,
        stack: contextlib.AsyncExitStack,
        endpoint: Endpoint,
        host: _Host,
        request: Request,
        ask: AskCredentials | None,
    ) -> aiohttp.ClientResponse:
        for last in (False, False, True):
            sent = await host.authorizer.header(request.scopes, ask)
            response = await self._any_scheme(endpoint, host, request, sent)
            if response.status == 401 and not last:
                challenge = ", ".join(response.headers.getall("WWW-Authenticate", []))
                if host.authorizer.answered(challenge, sent, request.scopes):
                    response.release()
                    continue
            break
        stack.push_async_callback(_finish, response)
        return response

    async def _any_scheme(
        self, endpoint: Endpoint, host: _Host, request: Request, sent: str
    ) -> aiohttp.ClientResponse:
        import aiohttp

        schemes = (host.scheme,) if host.scheme else endpoint.schemes
        for scheme in schemes:
            try:
                response = await self._redirected(
                    endpoint, host, request, f"{scheme}://{endpoint.host}", sent
                )
            except (aiohttp.ClientConnectionError, ssl.SSLError):
                if scheme == schemes[-1]:
                    raise
            else:
                host.scheme = scheme
                return response
        raise AssertionError("an endpoint has a scheme")

    async def _redirected(
        self, endpoint: Endpoint, host: _Host, request: Request, base: str, sent: str
    ) -> aiohttp.ClientResponse:
        url = urljoin(base, request.path) if "://" in request.path else base + request.path
        for _ in range(_REDIRECTS):
            headers = {**request.headers}
            # Invariant: what the user told one host is never sent to another one.
            if sent and urlsplit(url)[:2] == urlsplit(base)[:2]:
                headers["Authorization"] = sent
            response = await self._once(endpoint, host, request, url, headers)
            where = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not where or request.body is not None:
                return response
            if request.method not in ("GET", "HEAD"):
                return response
            response.release()
            following = urljoin(url, where)
            parts, secure = urlsplit(following), urlsplit(url).scheme == "https"
            downgrade = secure and parts.scheme == "http" and not endpoint.settings.insecure
            if parts.scheme not in ("http", "https") or not parts.netloc or downgrade:
                text = f"{endpoint.host} redirects to {following[:200]!r}: refused"
                raise RegistryError(text, host=endpoint.host)
            url = following
        raise RegistryError(f"{endpoint.host} redirects more than {_REDIRECTS} times", host=endpoint.host)

    async def _once(
        self, endpoint: Endpoint, host: _Host, request: Request, url: str, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        from yarl import URL

        data = None
        if request.body is not None:
            data = request.body()
            headers["Content-Length"] = str(request.length)
        if host.tls is None and url.startswith("https:"):
            host.tls = tls(endpoint.settings, endpoint.host)
        known = urlsplit(url).netloc == endpoint.host
        return await self._open().request(
            request.method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False,
            ssl=host.tls if host.tls is not None and known else True, proxy=proxy_for(url),
        )  # fmt: skip

    async def small(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Sequence[tuple[str, str]] = (),
        data: Mapping[str, Any] | None = None,
    ) -> tuple[int, bytes]:
        """A request to a token service: no redirects, no authorization, no more than 1 MiB back."""
        known = urlsplit(url).netloc == endpoint.host
        context = tls(endpoint.settings, endpoint.host) if known and url.startswith("https:") else True
        with mapped(urlsplit(url).netloc):
            async with self._open().request(
                method, url, headers=headers, params=params or None, data=data, allow_redirects=False,
                proxy=proxy_for(url), ssl=context,
            ) as response:  # fmt: skip
                if response.status in _AGAIN:
                    text = f"{urlsplit(url).netloc} answered {response.status}"
                    raise TemporaryError(text, status=response.status)
                return response.status, await bounded(response, 1 << 20)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60),
                headers={"User-Agent": f"bknb/{__version__}", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=1 << 18,
            )
        return self._session

    def _host(self, endpoint: Endpoint) -> _Host:
        key = (endpoint, endpoint.mirror)
        if key not in self._hosts:
            asked = "docker.io" if endpoint.host == "registry-1.docker.io" else endpoint.host

            async def fetch(method: str, url: str, **rest: Any) -> tuple[int, bytes]:
                return await self.small(endpoint, method, url, **rest)

            self._hosts[key] = _Host(
                asyncio.Semaphore(self._concurrency + 1),
                asyncio.Semaphore(self._concurrency),
                Authorizer(endpoint.host, asked, fetch),
            )
        return self._hosts[key]


@contextlib.contextmanager
def mapped(host: str) -> Iterator[None]:
    """Turns the HTTP library's errors into ours."""
    import aiohttp

    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", "") or "not valid"
        hint = "set ca or insecure for this host"
        raise RegistryError(
            f"the certificate of {host} is not trusted ({reason}): {hint}", host=host
        ) from None
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or str(error.os_error)
        said = f"cannot reach {host}: {one_line(reason)}{_WITHOUT.get(host, '')}"
        raise RegistryError(said, host=host) from None
    except (TimeoutError, aiohttp.ServerTimeoutError):
        raise TemporaryError(f"{host} does not answer", host=host) from None
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
        why = one_line(str(error)) or type(error).__name__
        raise TemporaryError(f"the connection to {host} broke: {why}", host=host) from None
    except (ValueError, UnicodeError) as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(f"{host} sends what cannot be read: {one_line(str(error))}", host=host) from None


async def bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """A whole body of at most `limit` bytes.

    Raises:
        RegistryError: there is more.
    """
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise RegistryError(f"{response.url.host} sends more than {limit} bytes where it may not")
        parts.append(part)
    return b"".join(parts)


def one_line(text: str, limit: int = 200) -> str:
    r"""Foreign text, made fit for a message.

    >>> one_line("a\n\x1b[31mb")
    'a [31mb'
    """
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()[:limit]


def proxy_for(url: str) -> str | None:
    """The HTTP proxy that the environment names for a URL; never one for loopback."""
    parts = urlsplit(url)
    if is_loopback(parts.netloc) or proxy_bypass(parts.netloc):
        return None
    proxy = getproxies().get(parts.scheme)
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class _Error(msgspec.Struct):
    code: str = ""
    message: str | None = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


async def _refusal(response: aiohttp.ClientResponse, endpoint: Endpoint) -> RegistryError:
    said = ""
    if response.method != "HEAD":
        with contextlib.suppress(RegistryError, msgspec.DecodeError, UnicodeDecodeError):
            read = msgspec.json.decode(await bounded(response, _MAX_ERROR), type=_Errors).errors
            said = one_line("; ".join(error.message or error.code for error in read[:3]))
    what = f"answered {response.status}"
    if response.status in (401, 403):
        what = "denies access: log in (docker login), or ask for the right to it"
    elif response.status == 404:
        what = "does not have it"
    elif response.status == 429:
        what = "answered 429: too many requests"
    text = f"{endpoint.host} {what}" + (f" ({said})" if said else "")
    if response.status not in _AGAIN:
        return RegistryError(text, status=response.status, host=endpoint.host)
    after = response.headers.get("Retry-After", "")
    seconds = min(int(after[:6]), _LONGEST) if after.isascii() and after.isdigit() else 0
    return TemporaryError(text, status=response.status, host=endpoint.host, after=seconds)


async def _finish(response: aiohttp.ClientResponse) -> None:
    # A body that was not read to its end cannot be left on a connection that is used again.
    if response.content.at_eof():
        response.release()
    else:
        response.close()
