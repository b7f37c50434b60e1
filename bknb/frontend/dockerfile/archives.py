"""Archives as contexts: whether a file is one, and how old its files are."""

from __future__ import annotations

import io
import tarfile
from typing import Final

_MAGIC: Final = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")


def is_archive(header: bytes) -> bool:
    """Whether a file begins as an archive that a context may be."""
    if header.startswith(_MAGIC):
        return True
    try:
        tarfile.TarInfo.frombuf(header[:512].ljust(512, b"\0"), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def newest_file(data: bytes) -> int | None:
    """The time (unix seconds) of an archive's newest regular file; None if there is none, or no archive."""
    newest: int | None = None
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                if member.isreg() and (newest is None or member.mtime > newest):
                    newest = int(member.mtime)
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return None
    return newest
