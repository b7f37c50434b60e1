"""What is in a tree of files: one entry for each path, and what else the tree keeps of it.

Paths are text with surrogate escapes for bytes that are not UTF-8, absolute, "" for the root. They are
sorted as BuildKit sorts them: as bytes, with a NUL for each slash, and a folder's header under its path
with a NUL behind. Those bytes are a path's key.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping

import msgspec

from bknb.shim.tarsum import header


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One path of a tree.

    Attributes:
        mode: st_mode, with the type.
        size: of a regular file, in bytes.
        linkname: where a symlink points; of anything else in a stream: the path that it is a hard link to.
        device: major and minor number; 0, 0 for trees on disk, whatever they are (see `tarsum.header`).
        xattrs: by name; those that do not count may be left out.
        digest: of header and bytes, "" where it is not known; computed where there are no bytes.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    linkname: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] | None = None
    digest: str = ""

    @property
    def header(self) -> bytes:
        """What its digest begins with."""
        return header(self.mode, self.uid, self.gid, self.size, self.linkname, self.device, self.xattrs)


class Record(msgspec.Struct, gc=False):
    """What the tree keeps of a path. A folder has two: of itself and, a NUL behind, of its header."""

    entry: Entry | None
    batch: int = 0
    digest: str = ""
    folder: bool = False

    @property
    def link(self) -> str | None:
        """Where a symlink points; None for anything else."""
        entry = self.entry
        return entry.linkname if entry is not None and stat.S_ISLNK(entry.mode) else None


def to_key(path: str) -> bytes:
    """A path as it is sorted: slashes are NULs."""
    return os.fsencode(path).replace(b"/", b"\0")


def to_path(key: bytes) -> str:
    """The path of a key."""
    return os.fsdecode(key.replace(b"\0", b"/"))


def clean(path: str) -> str:
    """Absolute, without trailing slash; "" for the root."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return "" if cleaned == "/" else cleaned
