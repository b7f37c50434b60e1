"""Bringing a copy of a client's folder up to date.

The kernel has walked the folder and says which paths changed (`bknb.source.local`). Each is copied from below
the folder to below the tree, owned by 0:0 as in BuildKit's contexts, and what is told back is of the bytes that
were copied: the signature is that of the open file before its first byte is read, the digest that of the bytes.
A file that vanished meanwhile is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat as modes
from typing import Any

from bknb import beneath
from bknb.shim import mounts as trees
from bknb.shim import tarsum
from bknb.shim.owners import OnDisk, Owners
from bknb.shim.server import Context, Failure

CHUNK = 1 << 20
_IGNORED_XATTRS = ("com.apple.", "security.selinux", "system.", "user.bknb.")


def sync(
    context: Context,
    fds: list[int],
    source: str,
    target: trees.Mounts,
    remove: list[str],
    copy: list[list[str]],
) -> list[Any]:
    """Remove paths, then copy paths, parents first.

    Args:
        context: of the request.
        fds: none.
        source: the client's folder.
        target: the tree that is written.
        remove: paths that are gone; a folder goes with all that is in it.
        copy: pairs of a path and the earlier path that it is a hard link of ("" for none).

    Returns:
        For each copied path: path, mode, size, linkname, device, signature, the content hash of a regular file
        (of header and bytes, see `tarsum`; "" for others), xattrs (name to hex).
    """
    done: list[Any] = []
    owners = context.server.owners
    root = beneath.open_root(source)
    try:
        with trees.open_tree(context, target) as tree:
            for path in remove:
                context.check()
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    beneath.remove(tree.fd, path)
            buffer = bytearray(CHUNK)
            for path, link in copy:
                context.check()
                try:
                    entry = _link(root, tree.fd, path, link) if link else _copy(root, tree.fd, path, buffer, owners)
                except FileNotFoundError as error:
                    if beneath.exists(root, path):
                        raise Failure(
                            "SourceError", f"cannot copy {path} of the context: {error.strerror}"
                        ) from None
                    continue
                except PermissionError:
                    raise Failure(
                        "PathError",
                        f"cannot read {path} of the context {source}: make it readable, or put it in .dockerignore",
                    ) from None
                done.append(entry)
            _restore_times(root, tree.fd, [entry[0] for entry in done if modes.S_ISDIR(entry[1])])
    finally:
        os.close(root)
    return done


def _copy(root: int, target: int, path: str, buffer: bytearray, owners: Owners) -> list[Any]:
    above, name = beneath.parent(root, path)
    try:
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
        _clear(target, path, info.st_mode)
        if modes.S_ISREG(info.st_mode):
            return _copy_file(above, name, target, path, buffer, owners)
        linkname, device, size = "", 0, 0
        if modes.S_ISDIR(info.st_mode):
            if not beneath.exists(target, path):
                beneath.mkdir(target, path, 0o700)
        elif modes.S_ISLNK(info.st_mode):
            linkname = os.readlink(name, dir_fd=above)
            beneath.symlink(target, linkname, path)
        elif modes.S_ISSOCK(info.st_mode):
            beneath.mknod(target, path, modes.S_IFREG | 0o600)
        else:
            device = info.st_rdev if not modes.S_ISFIFO(info.st_mode) else 0
            holder, word = _parent(target, path)
            try:
                owners.make_device(holder, word, info.st_mode, device)
            finally:
                os.close(holder)
        _finish(owners, target, path, info)
        return [path, info.st_mode, size, linkname, device, _signature(info), "", {}]
    finally:
        os.close(above)


def _copy_file(
    above: int, name: str, target: int, path: str, buffer: bytearray, owners: Owners
) -> list[Any]:
    fd = beneath.child(above, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(fd)
        out = beneath.open(target, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            xattrs = _copy_xattrs(fd, out)
            size, digest = _copy_bytes(fd, out, buffer, _header(info, info.st_size, xattrs))
            if size != info.st_size:  # it was written to meanwhile: its header has another size
                digest = _hash_again(out, buffer, _header(info, size, xattrs))
            if isinstance(owners, OnDisk):
                os.fchown(out, 0, 0)
                os.fchmod(out, modes.S_IMODE(info.st_mode))
                os.utime(out, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(out)
        if not isinstance(owners, OnDisk):
            _finish(owners, target, path, info)
        return [path, info.st_mode, size, "", 0, _signature(info), digest, xattrs]
    finally:
        os.close(fd)


def _header(info: os.stat_result, size: int, xattrs: dict[str, str]) -> bytes:
    return tarsum.header(
        info.st_mode, size=size, xattrs={key: bytes.fromhex(value) for key, value in xattrs.items()}
    )


def _copy_bytes(fd: int, out: int, buffer: bytearray, header: bytes) -> tuple[int, str]:
    hasher = hashlib.sha256(header)
    view = memoryview(buffer)
    size = 0
    while count := os.readv(fd, [buffer]):
        hasher.update(view[:count])
        size += count
        part = view[:count]
        while part:
            part = part[os.write(out, part) :]
    return size, "sha256:" + hasher.hexdigest()


def _hash_again(out: int, buffer: bytearray, header: bytes) -> str:
    os.lseek(out, 0, os.SEEK_SET)
    hasher = hashlib.sha256(header)
    while count := os.readv(out, [buffer]):
        hasher.update(memoryview(buffer)[:count])
    return "sha256:" + hasher.hexdigest()


def _copy_xattrs(source: int, target: int) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        names = os.listxattr(source)
    except OSError:
        return found
    for name in names:
        if name.startswith(_IGNORED_XATTRS):
            continue
        with contextlib.suppress(OSError):
            value = os.getxattr(source, name)
            os.setxattr(target, name, value)
            found[name] = value.hex()
    return found


def _link(root: int, target: int, path: str, earlier: str) -> list[Any]:
    info = beneath.stat(root, path, follow=False)
    _clear(target, path, info.st_mode)
    old, old_name = beneath.parent(target, earlier)
    try:
        new, new_name = beneath.parent(target, path)
        try:
            os.link(old_name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
        finally:
            os.close(new)
    finally:
        os.close(old)
    return [path, info.st_mode, 0, earlier, 0, _signature(info), "", {}]


def _clear(target: int, path: str, mode: int) -> None:
    """Make room for a file; a folder stays where a folder comes."""
    try:
        there = beneath.stat(target, path, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (modes.S_ISDIR(there.st_mode) and modes.S_ISDIR(mode)):
        beneath.remove(target, path)


def _parent(target: int, path: str) -> tuple[int, str]:
    """The directory that holds a path, readable, as `Owners` wants it, and the name in it ("." for the root)."""
    directory, name = beneath.split(path)
    return beneath.open(target, directory, os.O_RDONLY | os.O_DIRECTORY), name or "."


def _finish(owners: Owners, target: int, path: str, info: os.stat_result) -> None:
    above, name = _parent(target, path)
    try:
        owners.own(above, name, 0, 0)
        if not modes.S_ISLNK(info.st_mode):
            owners.set_mode(above, name, modes.S_IMODE(info.st_mode))
        os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)


def _restore_times(root: int, target: int, folders: list[str]) -> None:
    """Folders get their times last: writing into them has changed them."""
    for path in reversed(folders):
        with contextlib.suppress(FileNotFoundError):
            info = beneath.stat(root, path, follow=False)
            above, name = beneath.parent(target, path)
            try:
                os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=above, follow_symlinks=False)
            finally:
                os.close(above)


def _signature(info: os.stat_result) -> list[int]:
    """As `bknb.source.scan` makes it."""
    if modes.S_ISDIR(info.st_mode):
        return [info.st_mode]
    return [info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]


OPS = {"sync": sync}
