"""Making and removing what is beneath a root."""

from __future__ import annotations

import errno
import os

from bknb.beneath import opening
from bknb.beneath.opening import MAX_LINKS, O_PATH, child, components, link_of, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def makedirs(root: int, path: str, mode: int = 0o755, made: Callable[[int, str], None] | None = None) -> int:
    """Make a directory and what is missing above it; returns its descriptor (O_PATH), the caller closes it.

    `made` is called with (descriptor, path) of each directory that was not there, outermost first. Links to
    directories are followed inside of the root; one that points nowhere has its target made.
    """
    here, at = os.dup(root), ""
    words = components(path)
    links = 0
    try:
        while words:
            word = words.pop(0)
            whole = f"{at}/{word}"
            try:
                following = opening.open(root, whole, O_PATH | os.O_DIRECTORY)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                target = link_of(here, word)
                if target is not None:
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                    above = "" if target.startswith("/") else at
                    words[:0] = components(f"{above}/{target}")
                    os.close(here)
                    here, at = os.dup(root), ""
                    continue
                os.mkdir(word, mode, dir_fd=here)
                following = child(here, word, O_PATH | os.O_DIRECTORY)
                if made is not None:
                    made(following, whole)
            os.close(here)
            here, at = following, whole
        return here
    except BaseException:
        os.close(here)
        raise


def mknod(root: int, path: str, mode: int, device: int = 0) -> None:
    """Make a special file beneath a root."""
    fd, name = parent(root, path)
    try:
        os.mknod(name, mode, device, dir_fd=fd)
    finally:
        os.close(fd)


def link(root: int, path: str, directory: int, name: str) -> None:
    """Make a name in an open directory another name of a file beneath a root, or of a link itself."""
    above, last = parent(root, path)
    try:
        os.link(last, name, src_dir_fd=above, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(above)


def chown(fd: int, uid: int, gid: int) -> None:
    """Give what a descriptor names (O_PATH will do) to an owner."""
    os.chown(f"/proc/self/fd/{fd}", uid, gid)


def rmdir(root: int, path: str) -> None:
    """Remove an empty directory beneath a root."""
    fd, name = parent(root, path)
    try:
        os.rmdir(name, dir_fd=fd)
    finally:
        os.close(fd)


def remove(root: int, path: str) -> None:
    """Remove a path and all below it; a link is removed, not what it points to. OSError ENOENT if missing."""
    fd, name = parent(root, path)
    try:
        remove_child(fd, name)
    finally:
        os.close(fd)


def remove_child(directory: int, name: str) -> None:
    """Remove one name of an open directory, and all below it, without recursion of Python's own stack.

    Going down opens a child of the directory above; going up uses the descriptor kept from the way down.
    """
    try:
        os.unlink(name, dir_fd=directory)
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    stack: list[tuple[int, str]] = []  # (descriptor of the parent, name in it)
    try:
        stack.append((os.dup(directory), name))
        while stack:
            above, last = stack[-1]
            here = _enter(above, last)
            deeper = _empty(here)
            if deeper is not None:
                stack.append((here, deeper))
                continue
            os.close(here)
            os.rmdir(last, dir_fd=above)
            os.close(stack.pop()[0])
    finally:
        for fd, _ in stack:
            os.close(fd)


def _enter(above: int, name: str) -> int:
    """Open a directory that is to be emptied, giving its owner the right to do so where it is missing."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        fd = child(above, name, flags)
        if os.fstat(fd).st_mode & 0o300 != 0o300:
            os.fchmod(fd, 0o700)
        return fd
    except PermissionError:
        handle = child(above, name, O_PATH | os.O_DIRECTORY)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        return child(above, name, flags)


def _empty(directory: int) -> str | None:
    """Unlink all files of a directory; the name of the first subdirectory that is not empty, or None."""
    found = None
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            found = found or name
    return found
