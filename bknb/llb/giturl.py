"""Addresses of git repositories, as BuildKit reads them (util/gitutil/git_url.go)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from bknb.llb.values import join

_SCHEMES: Final = ("http", "https", "ssh", "git")
_SCHEME: Final = re.compile(r"([a-zA-Z0-9]+)://")
_SCP: Final = re.compile(r"([a-zA-Z0-9-_]+)@([a-zA-Z0-9-.]+):(.*?)(?:\?(.*?))?(?:#(.*))?\Z", re.ASCII)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2})")
_USER: Final = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_HOST: Final = re.compile(r"(?:[^\x00-\x20\x7f%/?#@\\^`{|}:\[\]]|\[[^\]]*\]|:(?=[^:]*:))*(?::[0-9]*)?")
_PATH_SAFE: Final = "/$&+,:;=@!'()*~"


@dataclass(frozen=True, slots=True)
class URL:
    """The parts of an address, as Go's net/url has them: path and fragment without escapes."""

    scheme: str
    user: str
    host: str
    path: str
    raw_path: str
    query: str
    fragment: str

    @classmethod
    def parse(cls, text: str) -> URL:
        """Cut an address.

        Raises:
            ValueError: a control character, an escape that is none, or a host or port that cannot be.
        """
        if re.search("[\x00-\x20\x7f]", text.partition("#")[0]):
            raise ValueError("invalid character in URL")
        rest, _, fragment = text.partition("#")
        rest, _, query = rest.partition("?")
        scheme = user = host = ""
        path = rest
        if found := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", rest):
            scheme, path = found[1].lower(), rest[found.end() :]
        if path.startswith("//"):
            authority, slash, tail = path[2:].partition("/")
            user, _, host = authority.rpartition("@")
            if not _USER.fullmatch(user) or not _HOST.fullmatch(host):
                raise ValueError("invalid host in URL")
            path = slash + tail
        if _BAD_ESCAPE.search(path) or _BAD_ESCAPE.search(fragment):
            raise ValueError("invalid URL escape")
        return cls(scheme, user, host, unquote(path), path, query, unquote(fragment))

    def without_options(self) -> str:
        """The address without query and fragment."""
        path = self.raw_path if re.fullmatch(r"[\w/$&+,:;=@!'()*~.%\[\]-]*", self.raw_path, re.ASCII) else ""
        path = path or quote(self.path, safe=_PATH_SAFE)
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{self.host}{path}" if self.host or self.scheme else path


def parse_query(query: str) -> dict[str, list[str]]:
    """The parameters of a query, in order.

    Raises:
        ValueError: an escape that is none, or a semicolon.
    """
    found: dict[str, list[str]] = {}
    for part in query.split("&"):
        if ";" in part or _BAD_ESCAPE.search(part):
            raise ValueError("invalid query")
        key, _, value = part.replace("+", " ").partition("=")
        if part:
            found.setdefault(unquote(key), []).append(unquote(value))
    return found


@dataclass(frozen=True, slots=True)
class GitURL:
    """A repository.

    >>> url = GitURL.parse("git@github.com:moby/buildkit.git#v1:docs")
    >>> url.scheme, url.host, url.path, url.ref, url.subdir
    ('ssh', 'github.com', 'moby/buildkit.git', 'v1', 'docs')

    Attributes:
        scheme: ``http``, ``https``, ``ssh`` or ``git``.
        host: with the port.
        path: on the host.
        remote: what git is told: without query and fragment.
        ref: from the fragment.
        subdir: from the fragment, relative.
        query: the query's parameters.
    """

    scheme: str
    host: str
    path: str
    remote: str
    ref: str = ""
    subdir: str = ""
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> GitURL | None:
        """Read an address; None if it is none that git takes."""
        if found := _SCHEME.match(text):
            if found[1].lower() not in _SCHEMES:
                return None
            try:
                return cls.from_url(URL.parse(text))
            except ValueError:
                return None
        found = _SCP.match(text)
        if found is None:
            return None
        user, host, path, query, fragment = found.groups()
        try:
            parameters = parse_query(query or "")
        except ValueError:
            return None
        ref, subdir = _fragment(fragment or "")
        return cls("ssh", host, path, f"{user}@{host}:{path}", ref, subdir, parameters)

    @classmethod
    def from_url(cls, url: URL) -> GitURL:
        """The repository at an address that is cut already."""
        ref, subdir = _fragment(url.fragment)
        try:
            query = parse_query(url.query)
        except ValueError:
            query = {}
        return cls(url.scheme, url.host, url.path, url.without_options(), ref, subdir, query)


def _fragment(fragment: str) -> tuple[str, str]:
    ref, _, subdir = fragment.partition(":")
    return ref, join("/", subdir).removeprefix("/")
