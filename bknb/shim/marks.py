"""How a layer directory says that something below it is gone.

A layer directory holds what one step added and changed, as overlayfs keeps it: a name that was deleted is a
whiteout, and a directory that hides the one below is opaque. There are two spellings. `DeviceMarks` is that
of overlayfs: a character device 0/0 and an extended attribute, ``trusted.overlay.opaque``, or
``user.overlay.opaque`` where the mount says ``userxattr`` because it belongs to a user namespace
(Documentation/filesystems/overlayfs.rst). `NameMarks` is that of layer archives (OCI layer.md, "Whiteouts"):
empty files ``.wh.NAME`` and ``.wh..wh..opq``, for file systems that refuse the first.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from typing import Protocol

WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
OVERLAY = ("trusted.overlay.", "user.overlay.")
"""How attributes begin that overlayfs keeps for itself: they are a layer's, and no file's."""


class Listing:
    """One directory of one layer: entries by name, names that are gone, and whether it hides what is below.

    The entries' own methods work as long as the directory's descriptor is open.
    """

    __slots__ = ("entries", "gone", "opaque")

    def __init__(self, *, opaque: bool = False) -> None:
        self.entries: dict[str, os.DirEntry[str]] = {}
        self.gone: set[str] = set()
        self.opaque = opaque


class Marks(Protocol):
    """One spelling. All take a readable descriptor of the directory."""

    name: str

    def listing(self, fd: int) -> Listing: ...

    def hide(self, fd: int, name: str) -> None:
        """Mark a name as gone; nothing of that name may be there."""

    def is_opaque(self, fd: int) -> bool: ...

    def make_opaque(self, fd: int) -> None: ...

    def clear_opaque(self, fd: int) -> None: ...

    def own_xattr(self, key: str) -> bool:
        """Whether an attribute belongs to the bookkeeping, not to the file."""


class DeviceMarks:
    """As overlayfs spells it; `name` is ``trusted`` or ``user``, the attributes' namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._opaque = f"{name}.overlay.opaque"

    def listing(self, fd: int) -> Listing:
        found = Listing(opaque=self.is_opaque(fd))
        with os.scandir(fd) as entries:
            for entry in entries:
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    state = entry.stat(follow_symlinks=False)
                    if modes.S_ISCHR(state.st_mode) and state.st_rdev == 0:
                        found.gone.add(entry.name)
                        continue
                found.entries[entry.name] = entry
        return found

    def is_opaque(self, fd: int) -> bool:
        try:
            return os.getxattr(fd, self._opaque) == b"y"
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                return False
            raise

    def hide(self, fd: int, name: str) -> None:
        os.mknod(name, modes.S_IFCHR, 0, dir_fd=fd)

    def make_opaque(self, fd: int) -> None:
        os.setxattr(fd, self._opaque, b"y")

    def clear_opaque(self, fd: int) -> None:
        os.removexattr(fd, self._opaque)

    def own_xattr(self, key: str) -> bool:
        return key.startswith(OVERLAY)


class NameMarks:
    """As layer archives spell it."""

    name = "names"

    def listing(self, fd: int) -> Listing:
        found = Listing()
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.name == OPAQUE_NAME:
                    found.opaque = True
                elif entry.name.startswith(WHITEOUT_PREFIX):
                    found.gone.add(entry.name[len(WHITEOUT_PREFIX) :])
                else:
                    found.entries[entry.name] = entry
        return found

    def is_opaque(self, fd: int) -> bool:
        try:
            os.stat(OPAQUE_NAME, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def hide(self, fd: int, name: str) -> None:
        os.mknod(WHITEOUT_PREFIX + name, modes.S_IFREG | 0o600, dir_fd=fd)

    def make_opaque(self, fd: int) -> None:
        os.mknod(OPAQUE_NAME, modes.S_IFREG | 0o600, dir_fd=fd)

    def clear_opaque(self, fd: int) -> None:
        os.unlink(OPAQUE_NAME, dir_fd=fd)

    def own_xattr(self, key: str) -> bool:
        return False


def marks_of(name: str) -> Marks:
    """The spelling of a name: ``trusted``, ``user`` or ``names``."""
    return NameMarks() if name == "names" else DeviceMarks(name)
