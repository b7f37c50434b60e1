"""What is beneath a root: the status of a path, what a file or a link says, all directories."""

from __future__ import annotations

import errno
import os

from bknb.beneath import opening
from bknb.beneath.opening import MAX_LINKS, O_PATH, child, components, open_file, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def stat(root: int, path: str, *, follow: bool = True) -> os.stat_result:
    """The status of a path beneath a root, or of a link itself."""
    fd = opening.open(root, path, O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def exists(root: int, path: str, *, follow: bool = False) -> bool:
    """Whether something is there; a link that points nowhere is something unless followed."""
    try:
        stat(root, path, follow=follow)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


def readlink(root: int, path: str) -> str:
    """What a link beneath a root says; OSError EINVAL if it is none."""
    fd, name = parent(root, path)
    try:
        return os.readlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def read(root: int, path: str, limit: int) -> bytes:
    """A small regular file, whole.

    Raises:
        OSError: not there, not a regular file (EINVAL), or larger than `limit` bytes (EFBIG).
    """
    fd = open_file(root, path)
    try:
        data = b""
        while chunk := os.read(fd, min(1 << 20, limit + 1 - len(data))):
            data += chunk
            if len(data) > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data
    finally:
        os.close(fd)


def resolve(root: int, path: str, *, strict: bool = True) -> str:
    """The path without links, as seen from the root ("/" itself for the root).

    Found by walking, not by asking /proc: a descriptor of a detached mount has no path there. What does
    not exist is kept as it is written, unless `strict`.
    """
    at: list[str] = []
    words = components(path)
    links = 0
    while words:
        word = words.pop(0)
        if word == "..":
            at = at[:-1]
            continue
        try:
            target = readlink(root, "/".join([*at, word]))
        except OSError as error:
            if error.errno != errno.EINVAL and (strict or error.errno not in (errno.ENOENT, errno.ENOTDIR)):
                raise
            at.append(word)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            at = []
        words[:0] = components(target)
    return "/" + "/".join(at)


def walk(root: int, path: str = "/") -> Iterator[tuple[str, int, list[os.DirEntry[str]]]]:
    """Every directory below a path, before what is in it: (path from the root, descriptor, entries by name).

    No link is followed below the start. The descriptor is open until the next step; entries may be removed
    from the list to keep the walk out of them.
    """
    at = "/" + path.strip("/") if path.strip("/") else ""
    stack: list[tuple[str, int, list[str]]] = []  # (path, descriptor, names below that are still to come)
    fd = opening.open(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            stack.append((at, fd, []))
            with os.scandir(fd) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            yield at or "/", fd, entries
            stack[-1][2].extend(e.name for e in reversed(entries) if e.is_dir(follow_symlinks=False))
            while stack and not stack[-1][2]:
                os.close(stack.pop()[1])
            if not stack:
                return
            above, directory, names = stack[-1]
            name = names.pop()
            at, fd = f"{above}/{name}", child(directory, name, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        for _, directory, _ in stack:
            os.close(directory)
