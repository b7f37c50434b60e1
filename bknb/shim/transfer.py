"""Copying what changed of a client's folder into a tree, and saying what was copied.

Folder by folder, each opened once on either side. What is told of a file is of the bytes that were copied: its digest is
that of the bytes, and its signature was taken of the open file before the first of them was read. So an edit
at any later instant gives the file another signature, if the clock that files are stamped with has moved on since the
last change: it moves in steps of milliseconds. Files that were changed within the step in which they were
read are read once more when the step is over (`settle`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat as modes
import time

from bknb import beneath
from bknb.shim import tarsum
from bknb.shim.owners import OnDisk, Owners
from bknb.shim.server import Failure
from bknb.shim.walking import order, signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from bknb.shim.walking import Found, Signature

    Row = tuple[str, int, int, str, int, Signature, str, dict[str, bytes] | None]
    """Path, mode, size, linkname, device, signature, content hash of a regular file, extended attributes if any."""

CHUNK = 1 << 20
PATIENCE = 0.05  # seconds; on a file system of another machine, whose clock is another
_IGNORED_XATTRS = ("com.apple.", "security.selinux", "system.", "user.bknb.")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY


_REALTIME_COARSE = 5  # linux/time.h


def stamp() -> int:
    """The clock that files are stamped with, in nanoseconds."""
    return time.clock_gettime_ns(_REALTIME_COARSE)


class Transfer:
    """Copies from below one root to below another.

    Args:
        source: descriptor of the client's folder.
        target: descriptor of the tree, which is ours alone.
        owners: how owners and modes are kept.
        check: called for each folder; raises when nobody wants the answer.
    """

    def __init__(self, source: int, target: int, owners: Owners, check: Callable[[], None]) -> None:
        self._source = source
        self._target = target
        self._owners = owners
        self._exact = isinstance(owners, OnDisk)
        self._us = (os.geteuid(), os.getegid()) == (0, 0)
        self._check = check
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)
        self._young: list[Row] = []
        self._links: list[str] = []
        self.rows: list[Row] = []

    def folder(self, path: str, names: Sequence[str], found: Found) -> None:
        """Copy names of a folder, those above it having been copied; hard links are left for `link`.

        Raises:
            Failure: PathError, a file cannot be read.
        """
        self._check()
        if any(f"{path}/".startswith(f"{link}/") for link in self._links):
            return  # it was a folder when it was looked at
        with contextlib.ExitStack() as stack:
            try:
                source = beneath.open(self._source, path, _LIST)
                stack.callback(os.close, source)
                target = beneath.open(self._target, path, _LIST)
                stack.callback(os.close, target)
            except (FileNotFoundError, NotADirectoryError):
                return  # gone since it was looked at
            links, special = found.links, found.special
            for name in names:
                whole = f"{path}/{name}" if path else name
                if whole in special:
                    self._special(source, target, name, whole)
                elif whole not in links:
                    self._copy(source, target, name, whole)

    def _copy(self, source: int, target: int, name: str, path: str) -> None:
        try:
            fd = os.open(name, _READ, dir_fd=source)
        except FileNotFoundError:
            return  # gone since it was looked at
        except PermissionError:
            raise Failure(
                "PathError", f"cannot read {path} of the context: make it readable, or put it in .dockerignore"
            ) from None
        except OSError:  # it has become a link or a socket
            self._special(source, target, name, path)
            return
        try:
            now = stamp()
            info = os.fstat(fd)
            if modes.S_ISREG(info.st_mode):
                row = self._file(fd, info, target, name, path)
                if info.st_ctime_ns >= now:
                    self._young.append(row)
                self.rows.append(row)
            elif modes.S_ISDIR(info.st_mode):
                self._folder(fd, info, target, name, path)
            else:  # it has become a device or a pipe
                self._special(source, target, name, path)
        finally:
            os.close(fd)

    def _file(self, fd: int, info: os.stat_result, target: int, name: str, path: str) -> Row:
        """A regular file, in one pass: read, hashed, written."""
        mode = info.st_mode
        out = self._create(target, name, mode & 0o777 if self._exact else 0o600)
        try:
            xattrs = _copy_xattrs(fd, out)
            digest = hashlib.sha256(tarsum.regular(mode, info.st_size, xattrs))
            size = 0
            while count := os.readv(fd, [self._buffer]):
                part = self._view[:count]
                digest.update(part)
                size += count
                while part:
                    part = part[os.write(out, part) :]
                if size == info.st_size and count < CHUNK:
                    break
            if size != info.st_size:  # it was written to meanwhile: its header has another size
                digest = self._hash(out, tarsum.regular(mode, size, xattrs))
            if self._exact:
                if not self._us:
                    os.fchown(out, 0, 0)
                if mode & 0o7000 or not self._us:
                    os.fchmod(out, modes.S_IMODE(mode))
            else:
                self._describe(target, name, mode)
            os.utime(out, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(out)
        return path, mode, size, "", 0, signature(info), "sha256:" + digest.hexdigest(), xattrs or None

    def _create(self, target: int, name: str, bits: int) -> int:
        try:
            return os.open(name, _WRITE, bits, dir_fd=target)
        except FileExistsError:
            beneath.remove_child(target, name)
            return os.open(name, _WRITE, bits, dir_fd=target)

    def _hash(self, fd: int, header: bytes) -> Any:
        os.lseek(fd, 0, os.SEEK_SET)
        digest = hashlib.sha256(header)
        while count := os.readv(fd, [self._buffer]):
            digest.update(self._view[:count])
        return digest

    def _folder(self, fd: int, info: os.stat_result, target: int, name: str, path: str) -> None:
        """A folder without what is in it; its time is set when that has been written."""
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            there = os.stat(name, dir_fd=target, follow_symlinks=False)
            if not modes.S_ISDIR(there.st_mode):
                beneath.remove_child(target, name)
                os.mkdir(name, 0o700, dir_fd=target)
        own = beneath.child(target, name, _LIST)
        try:
            xattrs = _copy_xattrs(fd, own)
        finally:
            os.close(own)
        self._describe(target, name, info.st_mode)
        self.rows.append((path, info.st_mode, 0, "", 0, signature(info), "", xattrs or None))

    def _special(self, source: int, target: int, name: str, path: str) -> None:
        """A link, device, fifo or socket; of a socket an empty file is made, as BuildKit does."""
        try:
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            linkname = os.readlink(name, dir_fd=source) if modes.S_ISLNK(info.st_mode) else ""
        except FileNotFoundError:
            return
        device = info.st_rdev if modes.S_ISCHR(info.st_mode) or modes.S_ISBLK(info.st_mode) else 0
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=target, follow_symlinks=False)
            beneath.remove_child(target, name)
        if linkname:
            os.symlink(linkname, name, dir_fd=target)
            self._links.append(path)
        elif modes.S_ISSOCK(info.st_mode):
            os.mknod(name, modes.S_IFREG | 0o600, dir_fd=target)
        elif modes.S_ISREG(info.st_mode) or modes.S_ISDIR(info.st_mode):
            raise Failure("SourceError", f"cannot copy {path} of the context: it cannot be opened")
        else:
            self._owners.make_device(target, name, info.st_mode, device)
        self._describe(target, name, info.st_mode)
        times = (info.st_mtime_ns, info.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
        self.rows.append((path, info.st_mode, 0, linkname, device, signature(info), "", None))

    def _describe(self, target: int, name: str, mode: int) -> None:
        self._owners.own(target, name, 0, 0)
        if not modes.S_ISLNK(mode):
            self._owners.set_mode(target, name, modes.S_IMODE(mode))

    def link(self, links: dict[str, str]) -> None:
        """Make the hard links: path -> the path that it is one of."""
        for path, earlier in sorted(links.items()):
            try:
                info = beneath.stat(self._source, path, follow=False)
                old, old_name = beneath.parent(self._target, earlier)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                new, new_name = beneath.parent(self._target, path)
                try:
                    with contextlib.suppress(FileNotFoundError):
                        beneath.remove_child(new, new_name)
                    os.link(old_name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                finally:
                    os.close(new)
            finally:
                os.close(old)
            self.rows.append((path, info.st_mode, 0, earlier, 0, signature(info), "", None))

    def settle(self) -> None:
        """Read files again that were changed as late as they were read; what differs has no signature."""
        if not self._young:
            return
        end = time.monotonic() + PATIENCE
        last = max(row[5][3] for row in self._young)
        while stamp() <= last and time.monotonic() < end:
            time.sleep(0.001)
        again = {row[0]: self._as_it_was(row) for row in self._young}
        self.rows = [
            row if row[0] not in again else (*row[:5], again[row[0]], *row[6:]) for row in self.rows
        ]
        self._young.clear()

    def _as_it_was(self, row: Row) -> Signature:
        """The signature of a file that certainly still has the bytes that were copied, or ()."""
        path, mode, size, _, _, before, digest, xattrs = row
        try:
            fd = beneath.open(self._source, path, _READ)
        except OSError:
            return ()
        try:
            now = stamp()
            info = os.fstat(fd)
            if signature(info) != before or info.st_ctime_ns >= now:
                return ()
            found = self._hash(fd, tarsum.regular(mode, size, xattrs or {})).hexdigest()
            return before if digest == f"sha256:{found}" else ()
        finally:
            os.close(fd)

    def times(self, folders: Iterable[str]) -> None:
        """Give folders the times of the originals: writing into them has changed them."""
        for path in sorted(folders, key=order, reverse=True):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                info = beneath.stat(self._source, path, follow=False)
                fd = beneath.open(self._target, path, _LIST)
                try:
                    os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
                finally:
                    os.close(fd)


def _copy_xattrs(source: int, target: int) -> dict[str, bytes]:
    """Extended attributes that belong to a context; those that the target refuses are no part of it."""
    try:
        names = os.listxattr(source)
    except OSError:
        return {}
    found: dict[str, bytes] = {}
    for name in names:
        if name.startswith(_IGNORED_XATTRS):
            continue
        with contextlib.suppress(OSError):
            value = os.getxattr(source, name)
            os.setxattr(target, name, value)
            found[name] = value
    return found
