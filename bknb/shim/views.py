"""Looking at trees: what frontends, content hashes and people ask of a result.

- ``list(mounts, path)``: the entries of a directory
- ``stat(mounts, path)``: one path, the last link not followed; null where there is nothing
- ``read(mounts, path, limit)``: a file, base64; null where there is nothing
- ``scan(mounts)``: every path, for content hashes
- ``hash(mounts, files)``: digests of headers and bytes
- ``changes(lower, upper)``: what one tree has over another
- ``layer(path, marks, limit)``: what a layer directory changes
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import stat as modes
from typing import Any

from bknb import beneath
from bknb.shim import mounts as trees
from bknb.shim.marks import marks_of
from bknb.shim.owners import HIDDEN, Owners
from bknb.shim.server import Context, Failure
from bknb.shim.tarsum import counts

CHUNK = 1 << 20
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def list_folder(context: Context, fds: list[int], *, mounts: trees.Mounts, path: str) -> list[dict[str, Any]]:
    """The entries of a directory, by name.

    Raises:
        Failure: PathError, it is no directory or not there.
    """
    with trees.open_tree(context, mounts) as tree:
        try:
            fd = beneath.open(tree.fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _failure(path, error) from None
        try:
            base = "/" + path.strip("/")
            return [
                _describe(context, fd, name, base.rstrip("/") + "/" + name) for name in sorted(os.listdir(fd))
            ]
        finally:
            os.close(fd)


def stat(context: Context, fds: list[int], *, mounts: trees.Mounts, path: str) -> dict[str, Any] | None:
    """One path."""
    with trees.open_tree(context, mounts) as tree:
        try:
            above, name = beneath.parent(tree.fd, path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise _failure(path, error) from None
        try:
            return _describe(context, above, name or ".", "/" + path.strip("/"))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise _failure(path, error) from None
        finally:
            os.close(above)


def read(context: Context, fds: list[int], *, mounts: trees.Mounts, path: str, limit: int) -> str | None:
    """A regular file's bytes.

    Raises:
        Failure: PathError, it is something else, or larger than `limit` bytes.
    """
    with trees.open_tree(context, mounts) as tree:
        try:
            return base64.b64encode(beneath.read(tree.fd, path, limit)).decode()
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            if error.errno == errno.EFBIG:
                raise Failure("PathError", f"{path} has more than {limit} bytes") from None
            raise _failure(path, error) from None


def scan(context: Context, fds: list[int], *, mounts: trees.Mounts) -> list[list[Any]]:
    """Every path, the root first: path, mode, uid, gid, size, link text, xattrs that count (name to hex)."""
    owners = context.server.owners
    found: list[list[Any]] = []
    with trees.open_tree(context, mounts) as tree:
        fd = beneath.open(tree.fd, "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            found.append(_entry(owners, fd, ".", "/"))
        finally:
            os.close(fd)
        for path, directory, entries in beneath.walk(tree.fd):
            context.check()
            above = path.rstrip("/")
            found.extend(_entry(owners, directory, entry.name, f"{above}/{entry.name}") for entry in entries)
    return found


def _entry(owners: Owners, directory: int, name: str, path: str) -> list[Any]:
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    truth = owners.state(directory, name, info) if name != "." else owners.here(directory, info)
    link = os.readlink(name, dir_fd=directory) if modes.S_ISLNK(truth.st_mode) else ""
    size = truth.st_size if modes.S_ISREG(truth.st_mode) else 0
    return [
        path,
        truth.st_mode,
        truth.st_uid,
        truth.st_gid,
        size,
        link,
        _xattrs(directory, name, truth.st_mode),
    ]


def _xattrs(directory: int, name: str, mode: int) -> dict[str, str]:
    if not (modes.S_ISREG(mode) or modes.S_ISDIR(mode)):
        return {}
    path = f"/proc/self/fd/{directory}/{name}"
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    found = {}
    for key in names:
        if counts(key) and not key.startswith(HIDDEN):
            with contextlib.suppress(OSError):
                found[key] = os.getxattr(path, key, follow_symlinks=False).hex()
    return found


def hash_files(
    context: Context, fds: list[int], *, mounts: trees.Mounts, files: list[list[str]]
) -> dict[str, str]:
    """sha256 of a header (base64) followed by the bytes, for each pair of path and header.

    Raises:
        Failure: PathError, a file is not there.
    """
    found: dict[str, str] = {}
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with trees.open_tree(context, mounts) as tree:
        for path, header in files:
            context.check()
            try:
                above, name = beneath.parent(tree.fd, path)
                try:
                    fd = beneath.child(above, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                finally:
                    os.close(above)
            except OSError as error:
                raise _failure(path, error) from None
            try:
                hasher = hashlib.sha256(base64.b64decode(header))
                while count := os.readv(fd, [buffer]):
                    hasher.update(view[:count])
            finally:
                os.close(fd)
            found[path] = "sha256:" + hasher.hexdigest()
    return found


def changes(context: Context, fds: list[int], *, lower: trees.Mounts, upper: trees.Mounts) -> list[list[Any]]:
    """What `upper` has over `lower`: kind (added, changed, removed), path, size before, size after.

    A directory is told when it is new or gone, or its own mode or owner changed; not what is below one that is new
    or gone in the second case.
    """
    before, after = _listing(context, lower), _listing(context, upper)
    found: list[list[Any]] = []
    for path in sorted(before.keys() | after.keys()):
        context.check()
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            found.append(["added", path, None, _size(new)])
        elif new is None and old is not None:
            found.append(["removed", path, _size(old), None])
        elif old != new and old is not None and new is not None:
            found.append(["changed", path, _size(old), _size(new)])
    return found


def layer(context: Context, fds: list[int], *, path: str, marks: str, limit: int) -> list[str]:
    """What a layer directory changes, one path a line.

    ``+ /path`` is what it has, ``- /path`` what it takes away; folders that only lead to others are left out. At
    most `limit` lines, and one that says how many more there are.
    """
    found: list[str] = []
    spelling = marks_of(marks)
    root = beneath.open_root(path)
    try:
        for at, directory, entries in beneath.walk(root):
            context.check()
            listing = spelling.listing(directory)
            above = at.rstrip("/")
            found += [f"- {above}/{name}" for name in sorted(listing.gone)]
            found += [
                f"+ {above}/{name}"
                for name, entry in sorted(listing.entries.items())
                if not entry.is_dir(follow_symlinks=False)
            ]
            if not listing.entries and not listing.gone and at != "/":
                found.append(f"+ {at}/")
            entries[:] = [entry for entry in entries if entry.name in listing.entries]
    finally:
        os.close(root)
    found.sort(key=lambda line: line[2:])
    return found if len(found) <= limit else [*found[:limit], f"and {len(found) - limit} more"]


def _listing(context: Context, mounts: trees.Mounts) -> dict[str, tuple[Any, ...]]:
    """Mode, owner, size, link, and for what is no directory the time of each path but the root."""
    owners = context.server.owners
    found: dict[str, tuple[Any, ...]] = {}
    with trees.open_tree(context, mounts) as tree:
        for path, directory, entries in beneath.walk(tree.fd):
            context.check()
            for entry in entries:
                info = owners.state(
                    directory, entry.name, os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
                )
                is_dir = modes.S_ISDIR(info.st_mode)
                link = os.readlink(entry.name, dir_fd=directory) if modes.S_ISLNK(info.st_mode) else ""
                size, time = (0, 0) if is_dir else (info.st_size, info.st_mtime_ns)
                found[f"{path.rstrip('/')}/{entry.name}"] = (
                    info.st_mode,
                    info.st_uid,
                    info.st_gid,
                    size,
                    link,
                    time,
                )
    return found


def _size(entry: tuple[Any, ...]) -> int | None:
    size: int = entry[3]
    return None if modes.S_ISDIR(entry[0]) else size


def _describe(context: Context, directory: int, name: str, path: str) -> dict[str, Any]:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    owners = context.server.owners
    info = owners.state(directory, name, found) if name != "." else owners.here(directory, found)
    link = os.readlink(name, dir_fd=directory) if modes.S_ISLNK(info.st_mode) else ""
    return {
        "path": path, "mode": info.st_mode, "uid": info.st_uid, "gid": info.st_gid,
        "size": info.st_size if not modes.S_ISDIR(info.st_mode) else 0, "link": link, "mtime": info.st_mtime_ns,
    }  # fmt: skip


def _failure(path: str, error: OSError) -> Failure:
    words = {errno.ENOENT: "not found", errno.EINVAL: "not a regular file", errno.ENOTDIR: "not a folder"}
    return Failure("PathError", f'"{path}": {words.get(error.errno or 0, error.strerror or str(error))}')


OPS: dict[str, Any] = {
    "list": list_folder,
    "stat": stat,
    "read": read,
    "scan": scan,
    "hash": hash_files,
    "changes": changes,
    "layer": layer,
}
