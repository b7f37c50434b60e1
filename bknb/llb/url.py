"""Addresses as Go's net/url cuts them and puts them together again."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2})")
_USER: Final = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:\]<>\"]|[^\x00-\x7f]|%[89A-Fa-f][0-9A-Fa-f])*")
_PORT: Final = re.compile(r"(?::[0-9]*)?")
_ESCAPED_PATH: Final = re.compile(r"[\w/$&+,:;=@!'()*~.%\[\]-]*", re.ASCII)
_PATH_SAFE: Final = "/$&+,:;=@"
_USER_SAFE: Final = "$&+,;="
_HOST_SAFE: Final = "!$&'()*+,;=:[]<>\""


@dataclass(frozen=True, slots=True)
class URL:
    """The parts of an address: path, host and fragment without escapes.

    Attributes:
        user: name and perhaps password, as written; None if there is no ``@``.
        raw_path: as written.
        query: as written.
        ends_in_query: nothing stands behind the question mark.
    """

    scheme: str
    user: str | None
    host: str
    path: str
    raw_path: str
    query: str
    fragment: str
    ends_in_query: bool = False

    @classmethod
    def parse(cls, text: str) -> URL:
        """Cut an address.

        Raises:
            ValueError: a control character, an escape that is none, or a host or port that cannot be.

        >>> URL.parse("https://github.com/a%20b.git?x#y").path
        '/a b.git'
        """
        rest, _, fragment = text.partition("#")
        if re.search("[\x00-\x1f\x7f]", rest):
            raise ValueError("invalid control character in URL")
        rest, mark, query = rest.partition("?")
        scheme, host, path = "", "", rest
        user: str | None = None
        if found := _SCHEME.match(rest):
            scheme, path = found[1].lower(), rest[found.end() :]
        if path.startswith("//"):
            authority, slash, tail = path[2:].partition("/")
            before, at, host = authority.rpartition("@")
            if not _USER.fullmatch(before) or _BAD_ESCAPE.search(before):
                raise ValueError("invalid user in URL")
            user, host, path = before if at else None, _host(scheme, host), slash + tail
        if _BAD_ESCAPE.search(path) or _BAD_ESCAPE.search(fragment):
            raise ValueError("invalid URL escape")
        empty = bool(mark) and not query
        return cls(scheme, user, host, _plain(path), path, query, _plain(fragment), empty)

    def without_options(self) -> str:
        """The address without query and fragment."""
        path = self.raw_path if _ESCAPED_PATH.fullmatch(self.raw_path) else _escaped(self.path, _PATH_SAFE)
        path += "?" if self.ends_in_query else ""
        if not (self.host or self.scheme):
            return path
        user = "" if self.user is None else f"{_escaped_user(self.user)}@"
        return f"{self.scheme}://{user}{_escaped(self.host, _HOST_SAFE)}{path}"


def _host(scheme: str, host: str) -> str:
    """A host with its port, without escapes."""
    if "[" in host:
        before, _, address = host.partition("[")
        address, closed, port = address.rpartition("]")
        if before or not closed or not _PORT.fullmatch(port):
            raise ValueError("invalid address in URL")
        ipaddress.IPv6Address(address.replace("%25", "%"))
        return _plain(host)
    if not _HOST.fullmatch(host):
        raise ValueError("invalid host in URL")
    colon = host.find(":") if scheme in ("http", "https") else host.rfind(":")
    if colon >= 0 and not _PORT.fullmatch(host, colon):
        raise ValueError("invalid port in URL")
    return _plain(host)


def _escaped_user(user: str) -> str:
    return ":".join(_escaped(_plain(part), _USER_SAFE) for part in user.split(":", 1))


def _plain(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _escaped(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="surrogateescape")


def parse_query(query: str) -> tuple[dict[str, list[str]], bool]:
    """The parameters of a query, in order, and whether all of it could be read.

    >>> parse_query("a=1&b;c&a=2")
    ({'a': ['1', '2']}, False)
    """
    found: dict[str, list[str]] = {}
    good = True
    for part in filter(None, query.split("&")):
        if ";" in part or _BAD_ESCAPE.search(part):
            good = False
            continue
        key, _, value = part.replace("+", " ").partition("=")
        found.setdefault(_plain(key), []).append(_plain(value))
    return found, good
