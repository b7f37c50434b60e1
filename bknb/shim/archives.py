"""ADD of a local archive: a tar, plain or compressed, is unpacked instead of copied.

Its content decides whether a file is one, as in solver/llbsolver/file/unpack.go: it can be decompressed,
and what comes out begins with a tar header. Members go beneath the target; one whose name or link would leave
it is refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat as modes
import sys
import tarfile
from typing import IO, Any

from bknb import beneath
from bknb.shim.copying import CHUNK, Copier
from bknb.shim.owners import FORBIDDEN
from bknb.shim.rules import Owner, Rules
from bknb.shim.server import Context, Failure

_XATTR = "SCHILY.xattr."
_MAGIC = (
    (b"\x1f\x8b\x08", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_BROKEN = (tarfile.TarError, EOFError, lzma.LZMAError, ValueError, OverflowError, gzip.BadGzipFile)


class Archive:
    """An open archive; a context manager."""

    def __init__(self, file: IO[bytes], tar: tarfile.TarFile, first: tarfile.TarInfo, path: str) -> None:
        self._file = file
        self._tar = tar
        self._first = first
        self._path = path

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def unpack(self, context: Context, target: int, dest: str, rules: Rules, copier: Copier) -> None:
        """Write the members beneath a directory of a tree.

        Raises:
            Failure: PathError, the archive is broken or leads out of the directory.
        """
        root = beneath.open(target, dest, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _Unpacker(context, root, rules.owner, copier).run(self._tar, self._first)
        except _BROKEN as error:
            raise Failure("PathError", f"{self._path}: broken archive: {error}") from None
        finally:
            os.close(root)


def open_archive(root: int, path: str) -> Archive | None:
    """The archive that a file is; None if it is none."""
    try:
        file = os.fdopen(beneath.open_file(root, path), "rb")
    except OSError:
        return None
    found = _open(file)
    if found is None:
        file.close()
        return None
    return Archive(file, *found, path)


def _open(file: IO[bytes]) -> tuple[tarfile.TarFile, tarfile.TarInfo] | None:
    """The archive in a file and its first member, or None if there is none."""
    start = file.read(6)
    file.seek(0)
    stream: Any = file
    try:
        if start.startswith(_ZSTD):
            stream = _zstd(file)
        for magic, opener in _MAGIC:
            if start.startswith(magic):
                stream = opener(file, "rb")
        tar = tarfile.TarFile.open(fileobj=io.BufferedReader(stream, CHUNK), mode="r|", errorlevel=1)
        first = tar.next()
    except (*_BROKEN, OSError):
        return None
    return None if first is None else (tar, first)


def _zstd(file: IO[bytes]) -> Any:
    """A zstd stream.

    Raises:
        Failure: UnsupportedError, there is no library for it.
    """
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        if sys.argv[3:] and sys.argv[3] not in sys.path:
            sys.path.append(sys.argv[3])  # this process sees no site-packages, see executor/shim.py
        try:
            from backports import zstd  # type: ignore[no-redef,unused-ignore]
        except ImportError:
            raise Failure("UnsupportedError", "a zstd archive: pip install backports.zstd") from None
    return zstd.open(file, "rb")


class _Unpacker:
    """Writes the members of one archive beneath a directory (moby/go-archive, createTarFile)."""

    def __init__(self, context: Context, root: int, owner: Owner, copier: Copier) -> None:
        self._context = context
        self._root = root
        self._owner = owner
        self._copier = copier
        self._owners = context.server.owners
        self._times: list[tuple[str, int]] = []

    def run(self, archive: tarfile.TarFile, first: tarfile.TarInfo) -> None:
        """All members, then the times of directories."""
        member: tarfile.TarInfo | None = first
        while member is not None:
            self._context.check()
            self._member(archive, member)
            vars(archive)["members"] = []  # else a long archive is kept in memory, name by name
            member = archive.next()
        for path, time in reversed(self._times):
            try:
                fd = beneath.open(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # a later member took its place
            try:
                os.utime(fd, ns=(time, time))
            finally:
                os.close(fd)

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _inside(member.name)
        if path is None:
            raise Failure("PathError", f'"{member.name}" is outside of the destination')
        directory, name = beneath.split(path)
        if not name:
            return
        os.close(beneath.makedirs(self._root, directory, 0o755))
        fd = beneath.open(self._root, directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._make_room(fd, name, member)
            if member.islnk():
                self._link(member, fd, name)
            else:
                self._make(archive, member, fd, name, path)
        finally:
            os.close(fd)

    def _make_room(self, fd: int, name: str, member: tarfile.TarInfo) -> None:
        """A directory stays where a directory comes; everything else is replaced."""
        try:
            there = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not (modes.S_ISDIR(there.st_mode) and member.isdir()):
            beneath.remove_child(fd, name)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, fd: int, name: str, path: str) -> None:
        """A directory, file, link or device, and what belongs to it."""
        time = int(float(member.mtime) * 1e9)
        bits = member.mode & 0o7777
        if member.isdir():
            if not beneath.exists(fd, name):
                os.mkdir(name, 0o700, dir_fd=fd)
            self._times.append((path, time))
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=fd)
        elif member.isreg():
            self._file(archive, member, fd, name)
        elif (kind := _device_kind(member)) != 0:
            device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            self._owners.make_device(fd, name, kind | bits, device)
        else:
            raise Failure("PathError", f'"{member.name}": a member of unknown type {member.type!r}')
        self._owners.own(fd, name, *(self._owner or (member.uid, member.gid)))
        if not member.issym():
            self._owners.set_mode(fd, name, bits)
            _set_xattrs(member, fd, name)
        os.utime(name, ns=(time, time), dir_fd=fd, follow_symlinks=False)
        self._copier.files += 1

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, fd: int, name: str) -> None:
        reader = archive.extractfile(member)
        assert reader is not None
        with os.fdopen(beneath.child(fd, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            while data := reader.read(CHUNK):
                self._context.check()
                out.write(data)
        self._copier.bytes += member.size

    def _link(self, member: tarfile.TarInfo, fd: int, name: str) -> None:
        target = _inside(member.linkname)
        if target is None:
            raise Failure(
                "PathError", f'"{member.name}": links to "{member.linkname}", outside of the destination'
            )
        beneath.link(self._root, target, fd, name)
        self._copier.files += 1


def _device_kind(member: tarfile.TarInfo) -> int:
    """The type bits of a device or pipe, 0 for anything else."""
    if member.ischr():
        return modes.S_IFCHR
    if member.isblk():
        return modes.S_IFBLK
    return modes.S_IFIFO if member.isfifo() else 0


def _set_xattrs(member: tarfile.TarInfo, fd: int, name: str) -> None:
    """Attributes as far as they can be set (BestEffortXattrs)."""
    for key, value in member.pax_headers.items():
        attribute = key[len(_XATTR) :]
        if key.startswith(_XATTR) and not attribute.startswith(FORBIDDEN):
            try:
                data = value.encode("utf-8", "surrogateescape")
                os.setxattr(f"/proc/self/fd/{fd}/{name}", attribute, data, follow_symlinks=False)
            except OSError:
                continue


def _inside(name: str) -> str | None:
    """A member's name without dots, or None if it climbs out."""
    at: list[str] = []
    for word in name.split("/"):
        if word == "..":
            if not at:
                return None
            at.pop()
        elif word not in ("", "."):
            at.append(word)
    return "/".join(at)
