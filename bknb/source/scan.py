"""Walking a client's folder the way BuildKit's client sends one.

What is sent is decided by include patterns, exclude patterns (.dockerignore) and "follow paths", which are include
patterns whose symbolic links are followed to what they point at. Parents of what is included come along
(vendor/github.com/tonistiigi/fsutil, filter.go and followlinks.go). Owners are not part of a context: every
file belongs to 0:0 (client/solve.go).

One pass, no file is opened. An entry's signature is what decides whether a file is copied again: BuildKit
compares size, mode and mtime; the inode and its change time are compared too, so that an edit which restores
the mtime is seen.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bknb.errors import PathError, SourceError
from bknb.patterns import MatchInfo, PatternError, PatternMatcher

_WILDCARDS = frozenset("*?[")
_PATTERN_CHARACTERS = frozenset("*[]?^\\")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a context.

    Attributes:
        path: relative to the folder, ``/`` between its parts.
        mode: as in ``st_mode``, kind included.
        size: bytes; 0 for what is no regular file.
        linkname: what a symbolic link says, or the earlier path that a hard link repeats.
        device: ``st_rdev`` of a device.
        signature: changes when the file may have changed.
    """

    path: str
    mode: int
    size: int
    linkname: str
    device: int
    signature: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ContextFilter:
    """Which part of a folder is wanted; `withheld` is the session's own and never shows in the LLB."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


@dataclass(slots=True)
class Scan:
    """What a walk found, in the walk's order (names sorted within each folder)."""

    entries: list[Entry] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)


def scan(root: str, wanted: ContextFilter) -> Scan:
    """Walk a folder.

    Raises:
        PathError: the folder, or a file in it that is wanted, cannot be read.
        SourceError: a pattern is none.
    """
    include = list(wanted.include)
    if wanted.follow:
        followed = follow_links(root, wanted.follow)
        include = _without_nested(sorted({*include, *followed})) if followed is not None else include
    try:
        walk = _Walk(root, _matcher(include), _matcher(wanted.exclude), _matcher(wanted.withheld))
        walk.folder("", (None, None, None), [])
    except PatternError as error:
        raise SourceError(f"a pattern of the context {root} cannot be used: {error}") from None
    except OSError as error:
        name = os.path.relpath(error.filename, root) if error.filename else root
        raise PathError(
            f"cannot read {name} of the context {root} ({error.strerror}): make it readable, or put it in .dockerignore"
        ) from None
    return walk.found


def _matcher(patterns: Sequence[str]) -> PatternMatcher | None:
    return PatternMatcher.parse(patterns) if patterns else None


def follow_links(root: str, paths: Sequence[str]) -> list[str] | None:
    """The include patterns for some follow paths, links resolved; None when the whole folder is meant."""
    resolved: set[str] = set()
    for path in paths:
        _follow(root, path, resolved)
    if "." in resolved:
        return None
    return _without_nested(sorted(resolved))


def _follow(root: str, path: str, resolved: set[str]) -> None:
    rest = posixpath.normpath(posixpath.join("/", path)).lstrip("/") or "."
    current = ""
    while True:
        first, _, rest = rest.partition("/")
        current = posixpath.join(current, first)
        targets = _link_targets(root, current, wildcards=True)
        if (not rest or targets is not None) and current in resolved:
            return
        if targets is not None:
            resolved.add(current)
            for target in targets:
                _follow(root, posixpath.join(target, rest), resolved)
            return
        if not rest:
            resolved.add(current)
            return


def _link_targets(root: str, path: str, *, wildcards: bool) -> list[str] | None:
    folder, base = posixpath.split(path)
    if wildcards and _WILDCARDS & set(base.replace("\\*", "").replace("\\?", "").replace("\\[", "")):
        try:
            names = sorted(os.listdir(os.path.join(root, folder)))
        except OSError:
            return None
        found: list[str] = []
        for name in names:
            if fnmatch.fnmatchcase(name, base):
                found += _link_targets(root, posixpath.join(folder, name), wildcards=False) or []
        return found
    if path in ("", "."):
        return None
    try:
        link = os.readlink(os.path.join(root, path))
    except OSError:
        return None
    return [posixpath.normpath(posixpath.join("/", folder, link))]


def _without_nested(paths: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for path in paths:
        if not kept or not path.startswith(kept[-1] + "/"):
            kept.append(path)
    return kept


_Infos = tuple[MatchInfo | None, MatchInfo | None, MatchInfo | None]


class _Walk:
    """The state of one walk."""

    __slots__ = ("root", "include", "exclude", "withheld", "found", "inodes")

    def __init__(
        self,
        root: str,
        include: PatternMatcher | None,
        exclude: PatternMatcher | None,
        withheld: PatternMatcher | None,
    ) -> None:
        self.root = root
        self.include = include
        self.exclude = exclude
        self.withheld = withheld
        self.found = Scan()
        self.inodes: dict[tuple[int, int], str] = {}

    def folder(self, path: str, infos: _Infos, parents: list[tuple[str, os.stat_result]]) -> None:
        """Walk one folder. `parents` are those above that were not included themselves, and not added yet."""
        for name, is_dir in self._names(path):
            child = f"{path}/{name}" if path else name
            kept, below, enter = self._match(child, infos, is_dir)
            if not kept and not (is_dir and enter):
                continue
            try:
                info = os.lstat(os.path.join(self.root, child))
            except FileNotFoundError:
                continue
            if kept:
                for parent, parent_info in parents:
                    self._add(parent, parent_info)
                parents.clear()
                self._add(child, info)
            if is_dir and enter:
                own = parents if kept else [*parents, (child, info)]
                before = len(own)
                self.folder(child, below, own)
                if not kept and len(own) < before:
                    parents.clear()

    def _names(self, path: str) -> Iterator[tuple[str, bool]]:
        with os.scandir(os.path.join(self.root, path)) as names:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in names]
        found.sort()
        yield from found

    def _match(self, path: str, infos: _Infos, is_dir: bool) -> tuple[bool, _Infos, bool]:
        """Whether a path is kept, what its children need to know, and whether a folder is entered."""
        kept, enter = True, True
        include, exclude, withheld = infos
        if self.include is not None:
            matched, include = self.include.walk(path, include)
            if not matched:
                kept = False
                enter = is_dir and _may_hold(self.include, path, exceptions=False)
        if self.exclude is not None:
            matched, exclude = self.exclude.walk(path, exclude)
            if matched:
                kept = False
                enter = (
                    enter
                    and is_dir
                    and self.exclude.exclusions
                    and _may_hold(self.exclude, path, exceptions=True)
                )
        if self.withheld is not None and enter:
            matched, withheld = self.withheld.walk(path, withheld)
            if matched:
                if kept:
                    self.found.withheld.append(path)
                kept, enter = False, False
        return kept, (include, exclude, withheld), enter

    def _add(self, path: str, info: os.stat_result) -> None:
        mode, linkname, size, device = info.st_mode, "", 0, 0
        if stat.S_ISLNK(mode):
            linkname = os.readlink(os.path.join(self.root, path))
        elif stat.S_ISREG(mode):
            size = info.st_size
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            device = info.st_rdev
        if info.st_nlink > 1 and not stat.S_ISDIR(mode):
            first = self.inodes.setdefault((info.st_dev, info.st_ino), path)
            if first != path and not linkname:
                linkname, size = first, 0
        signature = (
            (mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
            if not stat.S_ISDIR(mode)
            else (mode,)
        )
        self.found.entries.append(Entry(path, mode, size, linkname, device, signature))


def _may_hold(matcher: PatternMatcher, path: str, *, exceptions: bool) -> bool:
    """Whether something below a folder can match a pattern (of the exceptions, or of the others)."""
    folder = path + "/"
    for pattern in matcher.patterns:
        if pattern.exclusion != exceptions:
            continue
        text = pattern.text.removesuffix("/**").removesuffix("/*")
        if _PATTERN_CHARACTERS & set(text) or (text + "/").startswith(folder):
            return True
    return False
