"""Unpacks a layer's tar over a tree.

The rules are those of containerd's applier (pkg/archive/tar.go): ``.wh.NAME`` deletes, ``.wh..wh..opq``
deletes what the layer itself did not bring, a name that is there already is replaced unless both are
directories, and the times of directories are set last. Every path is opened beneath the root of the tree, so
that no archive reaches out of it, whatever its names and links say.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable

from bknb import beneath
from bknb.shim.marks import OPAQUE_NAME, WHITEOUT_PREFIX
from bknb.shim.owners import FORBIDDEN, OnDisk, Owners
from bknb.shim.tarread import Entry, Reader, TarError

_XATTR = "SCHILY.xattr."


class Unpacker:
    """Puts entries below `root`, an open directory."""

    def __init__(self, root: int, owners: Owners, check: Callable[[], None]) -> None:
        self._root = root
        self._owners = owners
        self._plain = isinstance(owners, OnDisk)
        self._check = check
        self._parent: tuple[str, int, int] | None = None  # (path, descriptor, mode)
        self._brought: set[str] = set()
        self._times: list[tuple[str, int]] = []
        self.files = 0

    def run(self, stream: int) -> None:
        """All entries of a stream, then the times of directories.

        Raises:
            TarError: the archive is damaged, or holds what a layer cannot.
        """
        reader = Reader(stream)
        try:
            while (entry := reader.next()) is not None:
                self._check()
                self._entry(entry, reader)
                self.files += 1
            reader.drain()
            self._set_times()
        finally:
            self._forget_parent()

    def _set_times(self) -> None:
        for path, mtime in reversed(self._times):
            try:
                fd = beneath.open(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # replaced by a later entry
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def _entry(self, entry: Entry, reader: Reader) -> None:
        if entry.kind == b"g":
            return
        path = _clean(entry.name)
        if not path:
            return  # the root itself, which is not the layer's to change
        folder, _, name = path.rpartition("/")
        directory = self._enter(folder)
        if name.startswith(WHITEOUT_PREFIX):
            self._delete(directory, folder, name)
            return
        if entry.kind == b"3" and entry.device == 0:
            return  # overlayfs's own whiteout: there is no such device
        self._bring(path)
        try:
            self._create(directory, name, path, entry, reader)
        except FileExistsError:
            self._replace(directory, name)
            self._create(self._enter(folder), name, path, entry, reader)

    def _bring(self, path: str) -> None:
        """Note a path, and those above it, as the layer's own."""
        while path and path not in self._brought:
            self._brought.add(path)
            path = path.rpartition("/")[0]

    # --- where ---

    def _enter(self, folder: str) -> int:
        """The directory of a path, made if it is not there; open until another one is entered."""
        if self._parent is not None and self._parent[0] == folder:
            return self._parent[1]
        self._forget_parent()
        try:
            handle = beneath.makedirs(self._root, folder, 0o755)
            os.close(handle)
            fd = beneath.open(self._root, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
                raise TarError(f"{folder[:200]!r} in a layer is no directory") from None
            raise
        self._parent = (folder, fd, os.fstat(fd).st_mode)
        return fd

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _delete(self, directory: int, folder: str, name: str) -> None:
        """A whiteout."""
        if name == OPAQUE_NAME:
            self._clear(folder)
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in ("", ".", ".."):
            raise TarError(f"a whiteout of {hidden!r}")
        try:
            beneath.remove_child(directory, hidden)
        except (FileNotFoundError, NotADirectoryError):
            return
        self._forget_parent()

    def _clear(self, folder: str) -> None:
        """Delete what is in a directory and was not brought by this layer."""
        self._forget_parent()
        for path, fd, entries in beneath.walk(self._root, folder):
            at = path.strip("/")
            for entry in list(entries):
                if f"{at}/{entry.name}".lstrip("/") not in self._brought:
                    beneath.remove_child(fd, entry.name)
                    entries.remove(entry)

    def _replace(self, directory: int, name: str) -> None:
        beneath.remove_child(directory, name)
        self._forget_parent()  # what was removed may have led to it

    # --- what ---

    def _create(self, directory: int, name: str, path: str, entry: Entry, reader: Reader) -> None:
        """Make one entry; FileExistsError if something else of that name is in the way."""
        kind = entry.kind
        if kind in (b"0", b"\0", b"7"):
            self._file(directory, name, entry, reader)
            return
        if kind == b"5":
            self._directory(directory, name, entry)
            self._times.append((path, entry.mtime_ns))
            return
        if kind == b"1":
            self._link(directory, name, entry)
            return
        if kind == b"2":
            os.symlink(entry.link, name, dir_fd=directory)
        elif kind == b"6":
            os.mkfifo(name, 0o600, dir_fd=directory)
        elif kind in (b"3", b"4"):
            type = modes.S_IFCHR if kind == b"3" else modes.S_IFBLK
            self._owners.make_device(directory, name, type | entry.mode, entry.device)
        else:
            raise TarError(f"{path[:200]!r} is of a kind {kind!r} that layers do not have")
        self._owners.own(directory, name, entry.uid, entry.gid)
        if kind != b"2":
            self._owners.set_mode(directory, name, entry.mode)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)

    def _file(self, directory: int, name: str, entry: Entry, reader: Reader) -> None:
        mode = entry.mode if self._plain else 0o600
        fd = beneath.child(directory, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            reader.copy_to(fd)
            assert self._parent is not None
            if not self._plain:
                self._give(directory, name, entry)
            elif entry.uid or entry.gid or self._parent[2] & modes.S_ISGID:
                os.fchown(fd, entry.uid, entry.gid)
                if entry.mode & 0o7000:
                    os.fchmod(fd, entry.mode)
            self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, directory: int, name: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            if not modes.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise
        self._give(directory, name, entry)
        if entry.records:
            fd = beneath.child(directory, name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._attributes(fd, entry)
            finally:
                os.close(fd)

    def _give(self, directory: int, name: str, entry: Entry) -> None:
        self._owners.own(directory, name, entry.uid, entry.gid)
        self._owners.set_mode(directory, name, entry.mode)

    def _link(self, directory: int, name: str, entry: Entry) -> None:
        folder, _, last = _clean(entry.link).rpartition("/")
        if not last:
            raise TarError(f"a hard link to {entry.link[:200]!r}")
        if (folder, last) == (_clean(entry.name).rpartition("/")[0], name):
            return  # to itself
        try:
            source = beneath.open(self._root, folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.link(last, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
            finally:
                os.close(source)
        except (FileNotFoundError, NotADirectoryError):
            raise TarError(f"a hard link to {entry.link[:200]!r}, which is not there") from None

    def _attributes(self, fd: int, entry: Entry) -> None:
        for key, value in entry.records.items():
            if not key.startswith(_XATTR):
                continue
            name = key[len(_XATTR) :]
            if name.startswith(FORBIDDEN):
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                # What the disk or the namespace cannot hold is left out, as containerd does.
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL):
                    raise


def _clean(name: str) -> str:
    """A path relative to the root, without `.`, and `..` taken from the root at most."""
    words: list[str] = []
    for word in name.split("/"):
        if word == "..":
            del words[-1:]
        elif word not in ("", "."):
            words.append(word)
    if "\0" in name:
        raise TarError("a name with a zero byte")
    return "/".join(words)
