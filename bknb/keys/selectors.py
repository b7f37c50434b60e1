"""Which parts of an input a step reads: the paths whose content keys it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentSelector:
    """One path of an input whose content is hashed.

    Attributes:
        path: in the input; "" and "/" are the whole of it.
        follow_links: the last component may be a symlink that is followed.
        wildcard: `path` is a pattern.
        include: patterns below `path`; empty is all.
        exclude: patterns that are left out.
        required: paths that have to be there.
    """

    path: str = ""
    follow_links: bool = False
    wildcard: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    @property
    def filtered(self) -> bool:
        """Whether it has a wildcard or filters, which cannot be merged with another path's."""
        return self.wildcard or bool(self.include) or bool(self.exclude)


def absolute(path: str) -> str:
    """Go's ``path.Join("/", path)``.

    >>> absolute("a/../b/"), absolute("//x"), absolute("")
    ('/b', '/x', '/')
    """
    return posixpath.normpath("/" + path.lstrip("/"))


def base_name(path: str) -> str:
    """Go's ``path.Base``: the last element, ``/`` for roots, ``.`` for nothing.

    >>> base_name("/a/b/"), base_name("/"), base_name("")
    ('b', '/', '.')
    """
    if not path:
        return "."
    stripped = path.rstrip("/")
    return stripped.rpartition("/")[2] if stripped else "/"


def has_wildcards(path: str) -> bool:
    r"""Whether a path has an unescaped ``*``, ``?`` or ``[``.

    >>> has_wildcards("/a/*.c"), has_wildcards(r"/a/\*")
    (True, False)
    """
    skip = False
    for char in path:
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif char in "*?[":
            return True
    return False


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths that do not lie below another of them, sorted (dedupePaths of ops/exec.go).

    >>> outermost(["/a/b", "/a", "/ab"])
    ['/a', '/ab']
    """
    unique = list(paths)
    if len(unique) <= 1:
        return unique
    every = set(unique)
    kept = [
        path
        for path in every
        if not any(
            other != path and path.startswith(other if other.endswith("/") else other + "/")
            for other in every
        )
    ]
    return sorted(kept, key=lambda path: path.encode())


def merged(selectors: Iterable[ContentSelector]) -> tuple[ContentSelector, ...]:
    """Selectors without repetition, sorted by path (dedupeSelectors of ops/file.go)."""
    every = list(selectors)
    plain = [s.path for s in every if not s.filtered and not s.follow_links]
    followed = [s.path for s in every if not s.filtered and s.follow_links]
    found = [ContentSelector(path) for path in outermost(plain)]
    found += [ContentSelector(path, follow_links=True) for path in outermost(followed)]
    found += [s for s in every if s.filtered]
    return tuple(sorted(found, key=lambda s: s.path.encode()))
