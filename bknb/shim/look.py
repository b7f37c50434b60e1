"""Ops that look at trees, through a mount of their own.

Trees are given as mounts, paths are resolved beneath their root. A file is a dict of ``path mode size uid gid
mtime_ns link device``; `mode` includes the type, `device` is [major, minor].
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat as modes
from collections.abc import Sequence
from typing import Any

from bknb import beneath
from bknb.shim.marks import DeviceMarks
from bknb.shim.mounts import Mounts, Tree, open_tree
from bknb.shim.owners import OWN, Owners
from bknb.shim.same import same
from bknb.shim.server import Context, Failure
from bknb.shim.stack import Level
from bknb.shim.tarsum import counts

_BLOCK = 1 << 20
_MISSING = (errno.ENOENT, errno.ENOTDIR)


def truth(context: Context) -> Owners:
    """How the disk of this machine keeps owners."""
    return context.server.owners


def stat(
    context: Context, fds: list[int], *, mounts: Mounts, path: str, follow: bool = False
) -> dict[str, Any] | None:
    """A file, None if it is not there. A link itself unless `follow`."""
    with open_tree(context, mounts) as tree:
        try:
            if follow:
                path = beneath.resolve(tree.fd, path)
            return _describe(truth(context), tree, path)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise Failure("PathError", f"{path}: {error.strerror}") from None


def _describe(owners: Owners, tree: Tree, path: str) -> dict[str, Any]:
    folder, name = beneath.split(path)
    directory = beneath.open(tree.fd, folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not name:
            return _file("/" + folder, owners.here(directory, os.fstat(directory)), "")
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return _entry(owners, directory, f"/{folder}/{name}".replace("//", "/"), name, found)
    finally:
        os.close(directory)


def _entry(owners: Owners, directory: int, path: str, name: str, found: os.stat_result) -> dict[str, Any]:
    link = os.readlink(name, dir_fd=directory) if modes.S_ISLNK(found.st_mode) else ""
    return _file(path, owners.state(directory, name, found), link)


def _file(path: str, state: Any, link: str) -> dict[str, Any]:
    return {
        "path": path, "mode": state.st_mode, "size": state.st_size, "uid": state.st_uid, "gid": state.st_gid,
        "mtime_ns": state.st_mtime_ns, "link": link,
        "device": [os.major(state.st_rdev), os.minor(state.st_rdev)],
    }  # fmt: skip


def list_(context: Context, fds: list[int], *, mounts: Mounts, path: str = "/") -> list[dict[str, Any]]:
    """The files of a directory, by name.

    Raises:
        Failure: PathError, there is no such directory.
    """
    owners = truth(context)
    with open_tree(context, mounts) as tree:
        try:
            directory = beneath.open(tree.fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Failure("PathError", f"{path}: {error.strerror}") from None
        try:
            at = "/" + path.strip("/") + "/" if path.strip("/") else "/"
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
                return [
                    _entry(owners, directory, at + entry.name, entry.name, entry.stat(follow_symlinks=False))
                    for entry in found
                ]
        finally:
            os.close(directory)


def read(
    context: Context, fds: list[int], *, mounts: Mounts, path: str, limit: int = 16 << 20
) -> str | None:
    """A regular file's bytes in base64; None if it is not there.

    Raises:
        Failure: PathError, it is none, or larger than `limit` bytes.
    """
    with open_tree(context, mounts) as tree:
        try:
            return base64.b64encode(beneath.read(tree.fd, path, limit)).decode()
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise Failure("PathError", f"{path}: {error.strerror}") from None


def scan(context: Context, fds: list[int], *, mounts: Mounts) -> list[list[Any]]:
    """Every path: [path, mode, uid, gid, size, link, {attribute: hex}], directories before what is in them.

    Attributes that a content hash does not count are left out.
    """
    owners, found = truth(context), []
    with open_tree(context, mounts) as tree:
        for path, directory, entries in beneath.walk(tree.fd):
            context.check()
            if path == "/":
                found.append(_scanned("/", owners.here(directory, os.fstat(directory)), "", directory))
            at = path if path.endswith("/") else path + "/"
            for entry in entries:
                lstat = entry.stat(follow_symlinks=False)
                link = os.readlink(entry.name, dir_fd=directory) if modes.S_ISLNK(lstat.st_mode) else ""
                state = owners.state(directory, entry.name, lstat)
                opened = -1
                if modes.S_ISREG(lstat.st_mode) or modes.S_ISDIR(lstat.st_mode):
                    opened = beneath.child(directory, entry.name, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    found.append(_scanned(at + entry.name, state, link, opened))
                finally:
                    if opened >= 0:
                        os.close(opened)
    return found


def _scanned(path: str, state: Any, link: str, opened: int) -> list[Any]:
    attributes = {}
    if opened >= 0:
        for key in os.listxattr(opened):
            if counts(key) and key not in OWN and not key.startswith(("trusted.overlay.", "user.overlay.")):
                attributes[key] = os.getxattr(opened, key).hex()
    return [path, state.st_mode, state.st_uid, state.st_gid, state.st_size, link, attributes]


def hash_(
    context: Context, fds: list[int], *, mounts: Mounts, files: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """The sha256 of each file's bytes behind a header of its own (base64): path -> digest."""
    found = {}
    with open_tree(context, mounts) as tree:
        for path, header in files:
            context.check()
            hasher = hashlib.sha256(base64.b64decode(header))
            fd = beneath.open(tree.fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                while chunk := os.read(fd, _BLOCK):
                    hasher.update(chunk)
            finally:
                os.close(fd)
            found[path] = "sha256:" + hasher.hexdigest()
    return found


def changes(context: Context, fds: list[int], *, lower: Mounts, upper: Mounts) -> list[list[Any]]:
    """What is different: [added, changed or removed; path; size before; size after], by path.

    What is in an added or removed directory is listed too. Sizes are of regular files, else None.
    """
    found: list[list[Any]] = []
    plain = DeviceMarks("trusted")
    with open_tree(context, lower) as below, open_tree(context, upper) as above:
        todo = [("", [below.fd], [above.fd])]
        while todo:
            context.check()
            path, olds, news = todo.pop()
            with Level(olds, path, plain) as left, Level(news, path, plain) as right:
                before, after = left.visible(), right.visible()
                for name in before.keys() | after.keys():
                    old, new, child = before.get(name), after.get(name), f"{path}/{name}"
                    states = [
                        os.stat(name, dir_fd=side.fd, follow_symlinks=False) if side is not None else None
                        for side in (old, new)
                    ]
                    kind = "changed" if old and new else "added" if new else "removed"
                    if not (old and new and states[0] and states[1]) or not same(
                        states[0], old.fd, states[1], new.fd, name
                    ):
                        found.append([kind, child, *map(_size, states)])
                    if (old and old.is_dir) or (new and new.is_dir):
                        todo.append((child, old.roots if old else [], new.roots if new else []))
    found.sort(key=lambda change: change[1])
    return found


def _size(state: os.stat_result | None) -> int | None:
    return state.st_size if state is not None and modes.S_ISREG(state.st_mode) else None


OPS: dict[str, Any] = {
    "stat": stat,
    "list": list_,
    "read": read,
    "scan": scan,
    "hash": hash_,
    "changes": changes,
}
