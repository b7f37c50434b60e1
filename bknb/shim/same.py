"""Whether two files are the same, by the rule of BuildKit's differ, and how metadata is carried over.

The rule (util/overlay/overlay_linux.go, sameDirent): mode, owner, device and capabilities equal; for what is
no directory also size and time. Where both times have no fraction of a second they may have been cut off by
an archive, and the content decides.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as modes

from bknb import beneath
from bknb.shim.marks import OVERLAY

_BLOCK = 1 << 20
_NO_XATTR = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)


def same(left: os.stat_result, left_dir: int, right: os.stat_result, right_dir: int, name: str) -> bool:
    """Compare the entry `name` of two directories, given what lstat says of each."""
    if (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino):
        return True
    if (left.st_mode, left.st_uid, left.st_gid, left.st_rdev) != (
        right.st_mode, right.st_uid, right.st_gid, right.st_rdev,
    ):  # fmt: skip
        return False
    kind = modes.S_IFMT(left.st_mode)
    if kind in (modes.S_IFREG, modes.S_IFDIR) and _noted(left_dir, name) != _noted(right_dir, name):
        return False
    if kind == modes.S_IFDIR:
        return True
    if left.st_size != right.st_size or left.st_mtime_ns != right.st_mtime_ns:
        return False
    if left.st_mtime_ns % 1_000_000_000:
        return True
    if kind == modes.S_IFLNK:
        return os.readlink(name, dir_fd=left_dir) == os.readlink(name, dir_fd=right_dir)
    return kind != modes.S_IFREG or left.st_size == 0 or _same_bytes(left_dir, right_dir, name)


def _noted(directory: int, name: str) -> tuple[bytes, bytes]:
    """A file's capabilities, and the owner that is kept beside it where the disk cannot hold one."""
    fd = beneath.child(directory, name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return xattr(fd, "security.capability"), xattr(fd, "user.bknb.stat")
    finally:
        os.close(fd)


def xattr(fd: int, key: str) -> bytes:
    """An extended attribute, or b"" if there is none."""
    try:
        return os.getxattr(fd, key)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return b""
        raise


def _same_bytes(left_dir: int, right_dir: int, name: str) -> bool:
    with (
        open(beneath.child(left_dir, name), "rb", buffering=0) as left,
        open(beneath.child(right_dir, name), "rb", buffering=0) as right,
    ):
        while True:
            ours, theirs = left.read(_BLOCK), right.read(_BLOCK)
            if ours != theirs:
                return False
            if not ours:
                return True


def copy_metadata(source: int, target: int, state: os.stat_result) -> None:
    """Give an open file or directory the owner, mode, attributes and times of another."""
    with contextlib.suppress(OSError):  # an id that this namespace does not have
        if (state.st_uid, state.st_gid) != (os.fstat(target).st_uid, os.fstat(target).st_gid):
            os.fchown(target, state.st_uid, state.st_gid)
    for key in os.listxattr(source):
        if key.startswith(OVERLAY):
            continue
        try:
            os.setxattr(target, key, os.getxattr(source, key))
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
    os.fchmod(target, modes.S_IMODE(state.st_mode))
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))


class Copier:
    """Copies files with everything that belongs to them; files that were one by hardlink stay one."""

    def __init__(self, target_root: int) -> None:
        self._root = target_root
        self._seen: dict[tuple[int, int], str] = {}

    def copy(self, source: int, name: str, target: int, path: str) -> None:
        """Copy `name` of an open directory into another; `path` is where it comes to lie below the root."""
        state = os.stat(name, dir_fd=source, follow_symlinks=False)
        if state.st_nlink > 1:
            key = (state.st_dev, state.st_ino)
            if (first := self._seen.get(key)) is not None:
                beneath.link(self._root, first, target, name)
                return
            self._seen[key] = path
        if modes.S_ISREG(state.st_mode):
            self._copy_file(source, name, target, state)
            return
        if modes.S_ISLNK(state.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, state.st_mode, state.st_rdev, dir_fd=target)
            os.chmod(name, modes.S_IMODE(state.st_mode), dir_fd=target)
        with contextlib.suppress(PermissionError):
            os.chown(name, state.st_uid, state.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(state.st_atime_ns, state.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _copy_file(self, source: int, name: str, target: int, state: os.stat_result) -> None:
        reading = beneath.child(source, name)
        try:
            writing = beneath.child(target, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                copy_bytes(reading, writing)
                copy_metadata(reading, writing, state)
            finally:
                os.close(writing)
        finally:
            os.close(reading)


def copy_bytes(reading: int, writing: int) -> None:
    """Copy an open file's bytes, in the kernel where it can; shares the blocks where the disk can."""
    try:
        while os.copy_file_range(reading, writing, 1 << 30):
            pass
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            raise
    while chunk := os.read(reading, _BLOCK):
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(writing, rest) :]
