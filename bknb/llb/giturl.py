"""Addresses of git repositories, as BuildKit reads them (util/gitutil/git_url.go)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bknb.llb.url import URL, parse_query
from bknb.llb.values import join

_SCHEMES: Final = ("http", "https", "ssh", "git")
_SCHEME: Final = re.compile(r"([a-zA-Z0-9]+)://")
_SCP: Final = re.compile(r"([a-zA-Z0-9-_]+)@([a-zA-Z0-9-.]+):(.*?)(?:\?(.*?))?(?:#(.*))?\Z", re.ASCII)


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
        parameters, good = parse_query(query or "")
        if not good:
            return None
        ref, subdir = _fragment(fragment or "")
        return cls("ssh", host, path, f"{user}@{host}:{path}", ref, subdir, parameters)

    @classmethod
    def from_url(cls, url: URL) -> GitURL:
        """The repository at an address that is cut already."""
        ref, subdir = _fragment(url.fragment)
        query, _ = parse_query(url.query)  # what cannot be read is left out
        return cls(url.scheme, url.host, url.path, url.without_options(), ref, subdir, query)


def _fragment(fragment: str) -> tuple[str, str]:
    ref, _, subdir = fragment.partition(":")
    return ref, join("/", subdir).removeprefix("/")
