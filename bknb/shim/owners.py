"""Owner, mode and device of files, also where the disk cannot hold them.

As root the disk holds all of it: `OnDisk`. A user with a single id can give files to nobody else and make no
devices; there `Beside` keeps the truth in an extended attribute of the file, ``user.bknb.stat``, which
overlayfs copies up, and hardlinks and renames carry along, without anybody's help. A device is an empty file
with such a note. A symlink can have no attribute: notes of links are in ``user.bknb.links`` of their
directory. In a user namespace with a range of ids the disk holds the owners of that range, and `Ranged` notes
the rest: devices, and ids beyond it.

The note also says which mode the disk had when it was written: if a step has changed that since, the
step's mode is the true one.

Whatever reads or writes a tree asks here, never os.lstat alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as modes
from collections.abc import Iterator
from typing import Protocol

from bknb import beneath
from bknb.shim.marks import OVERLAY
from bknb.shim.same import xattr

NOTE = "user.bknb.stat"
LINKS = "user.bknb.links"
OWN = (NOTE, LINKS)
HIDDEN = (*OVERLAY, *OWN)
"""How attributes begin that are bookkeeping and not shown or copied as a file's own."""
FORBIDDEN = (*OVERLAY, "user.bknb.")
"""How attributes begin by which an archive could meddle with that bookkeeping."""


class State(Protocol):
    """The part of os.stat_result that both give."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_rdev(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...


class Owners(Protocol):
    """One of the three. `directory` is an open directory (O_PATH will do), `name` a name in it."""

    def state(self, directory: int, name: str, found: os.stat_result) -> State:
        """What a file truly is, given what lstat says."""

    def here(self, directory: int, found: os.stat_result) -> State:
        """The same of an open directory itself."""

    def own(self, directory: int, name: str, uid: int, gid: int) -> None:
        """Give a file to somebody; a link itself, never its target."""

    def set_mode(self, directory: int, name: str, mode: int) -> None:
        """Set the permission bits of what is no link."""

    def make_device(self, directory: int, name: str, mode: int, device: int) -> None:
        """Make a device node; `mode` includes its type."""


class OnDisk:
    """The disk holds everything."""

    def state(self, directory: int, name: str, found: os.stat_result) -> State:
        return found

    def here(self, directory: int, found: os.stat_result) -> State:
        return found

    def own(self, directory: int, name: str, uid: int, gid: int) -> None:
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

    def set_mode(self, directory: int, name: str, mode: int) -> None:
        os.chmod(name, mode, dir_fd=directory)

    def make_device(self, directory: int, name: str, mode: int, device: int) -> None:
        os.mknod(name, mode, device, dir_fd=directory)
        os.chmod(name, modes.S_IMODE(mode), dir_fd=directory)


class Noted:
    """A file whose owner, mode or device is in its note."""

    __slots__ = (
        "st_gid", "st_ino", "st_mode", "st_mtime_ns", "st_nlink", "st_rdev", "st_size", "st_uid"
    )  # fmt: skip

    def __init__(self, found: os.stat_result, mode: int, uid: int, gid: int, device: int) -> None:
        self.st_mode = mode
        self.st_uid = uid
        self.st_gid = gid
        self.st_rdev = device
        self.st_size = found.st_size
        self.st_mtime_ns = found.st_mtime_ns
        self.st_ino = found.st_ino
        self.st_nlink = found.st_nlink


class Beside:
    """The disk holds one owner: `uid` and `gid` on disk stand for root."""

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def state(self, directory: int, name: str, found: os.stat_result) -> State:
        if modes.S_ISREG(found.st_mode) or modes.S_ISDIR(found.st_mode):
            return self._noted(found, self._note(directory, name))
        state = self._noted(found, None)
        if modes.S_ISLNK(found.st_mode):
            state.st_uid, state.st_gid = _links(directory).get(name, (state.st_uid, state.st_gid))
        return state

    def here(self, directory: int, found: os.stat_result) -> State:
        with _readable(directory) as fd:
            return self._noted(found, _parse(xattr(fd, NOTE)))

    def _noted(self, found: os.stat_result, note: tuple[int, int, int, int, int] | None) -> Noted:
        if note is None:
            uid = 0 if found.st_uid == self._uid else found.st_uid
            gid = 0 if found.st_gid == self._gid else found.st_gid
            return Noted(found, found.st_mode, uid, gid, found.st_rdev)
        uid, gid, mode, device, disk = note
        if disk != found.st_mode:
            mode = modes.S_IFMT(mode) | modes.S_IMODE(found.st_mode)
        return Noted(found, mode, uid, gid, device)

    def _note(self, directory: int, name: str) -> tuple[int, int, int, int, int] | None:
        fd = _open(directory, name)
        try:
            return _parse(xattr(fd, NOTE))
        finally:
            os.close(fd)

    def own(self, directory: int, name: str, uid: int, gid: int) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if modes.S_ISLNK(found.st_mode):
            links = _links(directory)
            if links.get(name, (0, 0)) != (uid, gid):
                links[name] = (uid, gid)
                with _readable(directory) as fd:
                    os.setxattr(fd, LINKS, _links_text(links))
        elif modes.S_ISREG(found.st_mode) or modes.S_ISDIR(found.st_mode):
            true = self.state(directory, name, found)
            if (true.st_uid, true.st_gid) != (uid, gid):
                self._write(directory, name, uid, gid, true.st_mode, true.st_rdev)

    def set_mode(self, directory: int, name: str, mode: int) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        true = self.state(directory, name, found)
        # The owner must be able to read and enter what a layer is made of.
        need = 0o700 if modes.S_ISDIR(found.st_mode) else 0o600
        os.chmod(name, mode | need, dir_fd=directory)
        if mode | need != mode or self._has_note(directory, name, found):
            whole = modes.S_IFMT(true.st_mode) | modes.S_IMODE(mode)
            self._write(directory, name, true.st_uid, true.st_gid, whole, true.st_rdev)

    def _has_note(self, directory: int, name: str, found: os.stat_result) -> bool:
        kind = found.st_mode
        return (modes.S_ISREG(kind) or modes.S_ISDIR(kind)) and self._note(directory, name) is not None

    def _write(self, directory: int, name: str, uid: int, gid: int, mode: int, device: int) -> None:
        fd = _open(directory, name)
        try:
            disk = os.fstat(fd).st_mode
            os.setxattr(fd, NOTE, b"%d %d %o %d %o" % (uid, gid, mode, device, disk))
        finally:
            os.close(fd)

    def make_device(self, directory: int, name: str, mode: int, device: int) -> None:
        os.close(beneath.child(directory, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._write(directory, name, 0, 0, mode, device)


class Ranged(Beside):
    """The disk holds the ids of a range; what has a note and belongs to root on disk is as the note says."""

    def __init__(self) -> None:
        super().__init__(0, 0)

    def state(self, directory: int, name: str, found: os.stat_result) -> State:
        if modes.S_ISLNK(found.st_mode) and (found.st_uid, found.st_gid) != (0, 0):
            return found
        return super().state(directory, name, found)

    def _noted(self, found: os.stat_result, note: tuple[int, int, int, int, int] | None) -> Noted:
        state = super()._noted(found, note)
        if (found.st_uid, found.st_gid) != (0, 0):
            state.st_uid, state.st_gid = found.st_uid, found.st_gid
        return state

    def own(self, directory: int, name: str, uid: int, gid: int) -> None:
        try:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EOVERFLOW):
                raise
            os.chown(name, 0, 0, dir_fd=directory, follow_symlinks=False)
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        true = self.state(directory, name, found)
        if (true.st_uid, true.st_gid) != (uid, gid):  # beyond the range, or what was there left a note
            super().own(directory, name, uid, gid)

    def set_mode(self, directory: int, name: str, mode: int) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if self._has_note(directory, name, found):
            super().set_mode(directory, name, mode)
        else:
            os.chmod(name, mode, dir_fd=directory)

    def make_device(self, directory: int, name: str, mode: int, device: int) -> None:
        try:
            os.mknod(name, mode, device, dir_fd=directory)
        except PermissionError:
            super().make_device(directory, name, mode, device)
        else:
            os.chmod(name, modes.S_IMODE(mode), dir_fd=directory)


def _open(directory: int, name: str) -> int:
    """Open a file to get at its attributes, whatever its mode."""
    try:
        return beneath.child(directory, name, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        os.chmod(name, modes.S_IMODE(found.st_mode) | 0o400, dir_fd=directory)
        try:
            return beneath.child(directory, name, os.O_RDONLY | os.O_NONBLOCK)
        finally:
            os.chmod(name, modes.S_IMODE(found.st_mode), dir_fd=directory)


@contextlib.contextmanager
def _readable(directory: int) -> Iterator[int]:
    """The directory opened again, since attributes are not to be had through O_PATH."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _parse(note: bytes) -> tuple[int, int, int, int, int] | None:
    """What a note says; None for none, and for one that somebody else wrote."""
    words = note.split()
    with contextlib.suppress(ValueError):
        if len(words) == 5:
            uid, gid, mode, device, disk = words
            return int(uid), int(gid), int(mode, 8), int(device), int(disk, 8)
    return None


def _links(directory: int) -> dict[str, tuple[int, int]]:
    """Owners of the links of a directory that are not root's."""
    found: dict[str, tuple[int, int]] = {}
    with _readable(directory) as fd:
        groups = xattr(fd, LINKS).split(b"\0")
    for group in groups:
        owner, _, names = group.partition(b"/")
        with contextlib.suppress(ValueError):
            uid, gid = (int(word) for word in owner.split(b":"))
            found.update((os.fsdecode(name), (uid, gid)) for name in names.split(b"/"))
    return found


def _links_text(links: dict[str, tuple[int, int]]) -> bytes:
    """Grouped by owner, so that a folder full of links fits into the one block that attributes have."""
    groups: dict[tuple[int, int], list[bytes]] = {}
    for name, owner in links.items():
        groups.setdefault(owner, []).append(os.fsencode(name))
    return b"\0".join(b"%d:%d/%s" % (*owner, b"/".join(names)) for owner, names in groups.items())


def owners_of(tier: str, id_range: int) -> Owners:
    """The way in which owners are kept on a tier, as `namespaces.Entered` says it."""
    if (tier == "none" and os.geteuid() != 0) or (tier == "user" and id_range <= 1):
        return Beside(os.geteuid(), os.getegid())
    return Ranged() if tier == "user" else OnDisk()
