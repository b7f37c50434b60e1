"""What a content key was taken of: the files, so that it can be said later which of them changed.

A listing is kept beside the digest. It says of each path what the digest covers and never what is in it: of a
file's bytes there is a part of their hash, of an extended attribute its name and a part of its value's.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from bknb.cache.contenthash import Entry

MAX_FILES: Final = 10_000
"""Paths of one listing; of a larger tree the first ones in order are kept."""
_DIGITS: Final = 12


class ListedFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One path.

    Attributes:
        mode: st_mode, with the type.
        link: where a symlink points.
        xattrs: name -> the first digits of the value's hash.
        digest: the first digits of the hash of header and bytes; "" for what has none.
    """

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    link: str = ""
    xattrs: dict[str, str] = {}
    digest: str = ""

    @property
    def kind(self) -> str:
        """``file``, ``folder``, ``link`` or ``device``."""
        if stat.S_ISREG(self.mode):
            return "file"
        return "folder" if stat.S_ISDIR(self.mode) else "link" if stat.S_ISLNK(self.mode) else "device"


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """The files that a content key was taken of, in order of their paths; `cut` where there were more."""

    files: tuple[ListedFile, ...] = ()
    cut: bool = False

    @classmethod
    def of(cls, found: Mapping[str, tuple[Entry, str]]) -> Listing:
        """Of paths with what is known of them and the digests of header and bytes."""
        return cls(tuple(_listed(found, sorted(found)[:MAX_FILES])), len(found) > MAX_FILES)

    def to_text(self) -> str:
        """As JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> Listing | None:
        """The listing that `to_text` wrote; None if it is none."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError:
            return None


def _listed(found: Mapping[str, tuple[Entry, str]], paths: Iterable[str]) -> Iterable[ListedFile]:
    for path in paths:
        entry, digest = found[path]
        folder = stat.S_ISDIR(entry.mode)
        yield ListedFile(
            _text(path), entry.mode, entry.uid, entry.gid, 0 if folder else entry.size,
            _text(entry.linkname) if stat.S_ISLNK(entry.mode) else "",
            {_text(name): hashlib.sha256(value).hexdigest()[:_DIGITS] for name, value in (entry.xattrs or {}).items()},
            "" if folder else digest.partition(":")[2][:_DIGITS],
        )  # fmt: skip


def _text(name: str) -> str:
    """A name that is text, whatever its bytes were."""
    return name if name.isascii() else name.encode(errors="surrogateescape").decode(errors="backslashreplace")
