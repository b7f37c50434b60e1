"""Looking at a client's folder without copying anything: the walk of a build, told as entries that tests compare.

The walk is that of a build (`bknb.shim.walking`), on this side.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from bknb import errors
from bknb.errors import SourceError
from bknb.patterns import PatternError
from bknb.shim.server import Failure
from bknb.shim.sieve import Sieve
from bknb.shim.walking import Found, Known, Walk, order, signature


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
    try:
        sieve = Sieve(root, wanted.include, wanted.exclude, wanted.follow, wanted.withheld)
        found = Walk(root, sieve, Known(), lambda: None).run()
    except PatternError as error:
        raise SourceError(f"a pattern of the context {root} cannot be used: {error}") from None
    except Failure as failure:
        raise getattr(errors, failure.kind)(str(failure)) from None
    paths = [f"{path}/{name}" if path else name for path, names in found.changed.items() for name in names]
    entries = (_entry(root, path, found) for path in sorted(paths, key=order))
    return Scan([entry for entry in entries if entry is not None], found.withheld)


def _entry(root: str, path: str, found: Found) -> Entry | None:
    """What is there; None if it is gone since the walk."""
    try:
        info = os.lstat(f"{root}/{path}")
        linkname = os.readlink(f"{root}/{path}") if stat.S_ISLNK(info.st_mode) else found.links.get(path, "")
    except OSError:
        return None
    size = info.st_size if stat.S_ISREG(info.st_mode) and not linkname else 0
    device = info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0
    return Entry(path, info.st_mode, size, linkname, device, signature(info))
