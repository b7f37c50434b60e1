"""What a registry wants to be told before it answers: Basic, or a Bearer token for the scopes asked.

The rules are distribution's token specification and OAuth2's refresh. A token is asked for once, however many
requests wait for it; credentials are only told to the host that the user logged in to, and to the realm that
this host names, over TLS or loopback.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bknb.errors import RegistryError
from bknb.protocols import Credentials
from bknb.registry.hosts import is_loopback

AskCredentials = Callable[[str], Awaitable[Credentials | None]]
"""Given a registry's host, as the user names it."""

Fetch = Callable[..., Awaitable[tuple[int, bytes]]]
"""``fetch(method, url, headers=, params=, data=)``: a small request, without authorization of its own."""

_CLIENT_ID: Final = "bknb"
_PARAMETER: Final = re.compile(r'([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))\s*,?\s*')
_SCHEME: Final = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)(?:\s+|$)")
_REMEMBERED: Final = 1024
_EARLY: Final = 10.0


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a 401 names; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a ``WWW-Authenticate`` header, as far as they can be read.

    >>> parse_challenges('Bearer realm="https://a/t",service="a"')[0].parameters["realm"]
    'https://a/t'
    """
    found, position, header = [], 0, header[:8192]
    while position < len(header) and (scheme := _SCHEME.match(header, position)):
        position, parameters = scheme.end(), {}
        while pair := _PARAMETER.match(header, position):
            value = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
            parameters[pair[1].lower()] = value
            position = pair.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)


def basic(credentials: Credentials) -> str:
    """The header of a user name and a password."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float = 60


@dataclass(slots=True)
class _Cached:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    header: str = ""
    until: float = 0.0


class Authorizer:
    """What one registry host is told, remembered for each user and scope.

    Args:
        host: where requests go.
        asked: the name that credentials are kept under.
        fetch: makes the request for a token.
        clock: seconds that only grow.
    """

    def __init__(
        self, host: str, asked: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = host
        self._asked = asked
        self._fetch = fetch
        self._clock = clock
        # By the scopes that were asked for when it came: another repository has another one.
        self._challenges: dict[tuple[str, ...], Challenge] = {}
        self._latest: Challenge | None = None
        self._cache: dict[tuple[str, ...], _Cached] = {}

    async def header(self, scopes: tuple[str, ...], ask: AskCredentials | None) -> str:
        """What to send with a request; "" as long as the host has not asked."""
        challenge = self._challenges.get(scopes)
        if challenge is None:
            if self._latest is None:
                return ""
            common = {key: text for key, text in self._latest.parameters.items() if key != "scope"}
            challenge = Challenge(self._latest.scheme, common)
        credentials = await ask(self._asked) if ask else None
        if challenge.scheme == "basic":
            return basic(credentials) if credentials and credentials.username else ""
        return await self._bearer(challenge, scopes, credentials)

    def answered(self, header: str, sent: str, scopes: tuple[str, ...]) -> bool:
        """Take in the ``WWW-Authenticate`` of a 401; whether trying again may help."""
        known = {challenge.scheme: challenge for challenge in parse_challenges(header)}
        challenge = known.get("bearer") or known.get("basic")
        if challenge is None:
            return False
        if sent.startswith("Basic "):
            return False
        for key, cached in self._cache.items():
            if sent and cached.header == sent and key[: len(scopes)] == scopes:
                cached.header, cached.until = "", 0.0
        if len(self._challenges) >= _REMEMBERED:
            self._challenges.clear()
            self._cache.clear()
        self._challenges[scopes] = self._latest = challenge
        # A token may have run out, and another request may have renewed it meanwhile.
        return True

    async def _bearer(
        self, challenge: Challenge, scopes: tuple[str, ...], credentials: Credentials | None
    ) -> str:
        who = (credentials.username, credentials.password, credentials.token) if credentials else ()
        service = challenge.parameters.get("service", "")
        said = tuple(challenge.parameters.get("scope", "").split())
        wanted = tuple(dict.fromkeys((*scopes, *(scope for scope in said if scope not in scopes))))
        cached = self._cache.setdefault((*scopes, "", service, *said, "", *who), _Cached())
        async with cached.lock:
            if not cached.header or cached.until < self._clock():
                token, lasts = await self._token(challenge, service, wanted, credentials)
                cached.header, cached.until = f"Bearer {token}", self._clock() + max(lasts - _EARLY, 0)
            return cached.header

    async def _token(
        self, challenge: Challenge, service: str, scopes: tuple[str, ...], credentials: Credentials | None
    ) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("https", "http") or not parts.netloc:
            raise self._error(f"asks for a token from {realm[:200]!r}, which is not an address")
        if credentials and parts.scheme == "http" and not is_loopback(parts.netloc):
            raise self._error(f"wants the login sent to {parts.netloc} without TLS: refused")
        status, body = await self._request(realm, service, scopes, credentials)
        if status in (401, 403):
            hint = "the login was refused" if credentials else "log in first (docker login)"
            raise self._error(f"access denied: {hint}", status)
        if status != 200:
            raise self._error(f"its token service {parts.netloc} answered {status}", status)
        try:
            read = msgspec.json.decode(body, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            read = _Token()
        token = read.token or read.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise self._error(f"its token service {parts.netloc} gave no token")
        return token, read.expires_in

    async def _request(
        self, realm: str, service: str, scopes: tuple[str, ...], credentials: Credentials | None
    ) -> tuple[int, bytes]:
        parameters: list[tuple[str, str]] = [("service", service)] if service else []
        if credentials and credentials.token:
            form: dict[str, Any] = {"grant_type": "refresh_token", "refresh_token": credentials.token}
            form |= {"service": service, "client_id": _CLIENT_ID, "scope": " ".join(scopes)}
            return await self._fetch("POST", realm, data=form)
        parameters += [("scope", scope) for scope in scopes]
        headers = {}
        if credentials and credentials.username:
            headers["Authorization"] = basic(credentials)
            parameters.append(("account", credentials.username))
        return await self._fetch("GET", realm, params=parameters, headers=headers)

    def _error(self, what: str, status: int = 0) -> RegistryError:
        return RegistryError(f"{self._asked}: {what}", status=status, host=self._host)
