"""The only way in which a path inside of a root is opened.

A root is the tree of a snapshot, context, archive or container, and what is in it was written by others:
every symlink may point at ``/etc/shadow`` of the host. So a path is never joined to the root's own path; it
is resolved by the kernel, beneath an open descriptor of the root, where ``/`` and ``..`` mean the root
(``openat2`` with ``RESOLVE_IN_ROOT``, Linux 5.6). Where that call does not exist, or a sandbox forbids it,
the same walk is made here, one component at a time, with ``O_NOFOLLOW``.

Whoever walks a whole tree opens each directory from its parent's descriptor with `child`: one name, never
followed. All functions take descriptors and raise OSError; standard library only, for the shim imports this.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as modes
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # this process starts in no time because it imports next to nothing
    from collections.abc import Callable, Iterator
    from typing import Any

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
MAX_LINKS = 40  # path_resolution(7)
_OPENAT2 = 437  # one number on every architecture
_O_PATH = getattr(os, "O_PATH", 0)
_RETRIES = 64  # a rename elsewhere makes the kernel give up with EAGAIN (openat2(2))


class _How(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _openat2(root: int, path: str, flags: int, mode: int) -> int:
    """One openat2 call; raises OSError, ENOSYS where there is none."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    how = _How(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    for _ in range(_RETRIES):
        fd: int = _libc.syscall(
            _OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return fd
        if (code := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), path)


def _probe() -> bool:
    """True if openat2 works here; old kernels and some sandboxes have none."""
    try:
        fd = os.open("/", _O_PATH)
        try:
            os.close(_openat2(fd, ".", _O_PATH, 0))
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None
HAS_OPENAT2 = _probe()


def open_root(path: str) -> int:
    """A descriptor of a host directory that is to be a root; the caller closes it.

    The path itself is the host's and is followed like any other.
    """
    return os.open(path, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open a path beneath a root; links are followed inside of it, the last one too unless O_NOFOLLOW.

    Returns:
        A descriptor; the caller closes it.

    Raises:
        OSError: as open(2); ELOOP after 40 links.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path holds a zero byte", path)
    relative = path.lstrip("/") or "."
    if HAS_OPENAT2:
        return _openat2(root, relative, flags, mode)
    return walk_open(root, relative, flags, mode)


def walk_open(root: int, path: str, flags: int, mode: int = 0) -> int:
    """`open` for kernels without openat2: one component at a time, no link ever followed by the kernel.

    Slower, and a directory that is renamed out of the root meanwhile is not noticed; `..` goes back to the
    descriptor that was opened on the way down, so it never climbs above the root.
    """
    opened: list[int] = []  # directories from the root down; ".." pops
    words = [word for word in path.split("/") if word not in ("", ".")]
    directory = path.endswith(("/", "/."))
    links = 0
    try:
        while words:
            word = words.pop(0)
            here = opened[-1] if opened else root
            if word == "..":
                if opened:
                    os.close(opened.pop())
                continue
            target = _link_of(here, word)
            if target is not None and (words or directory or not flags & os.O_NOFOLLOW):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    while opened:
                        os.close(opened.pop())
                directory = directory or (not words and target.endswith("/"))
                words[:0] = [part for part in target.split("/") if part not in ("", ".")]
            elif words:
                step = _O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                opened.append(os.open(word, step, dir_fd=here))
            else:
                last = flags | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if directory else 0)
                return os.open(word, last, mode, dir_fd=here)
        return os.open(".", flags | os.O_CLOEXEC, mode, dir_fd=opened[-1] if opened else root)
    finally:
        for fd in opened:
            os.close(fd)


def _link_of(directory: int, name: str) -> str | None:
    """What a name links to, None if it is no link or not there."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def child(directory: int, name: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open one name of an open directory, never following a link.

    Raises:
        OSError: as open(2); ELOOP for a link.
        ValueError: the name is a path.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"not a file's name: {name!r}")
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)


def split(path: str) -> tuple[str, str]:
    """The directory of a path, and its last name; ("", "") for the root itself.

    >>> split("/a//b/"), split("/"), split("a/..")
    (('a', 'b'), ('', ''), ('a/..', ''))
    """
    words = [word for word in path.split("/") if word not in ("", ".")]
    if not words:
        return "", ""
    if words[-1] == "..":
        return "/".join(words), ""
    return "/".join(words[:-1]), words[-1]


def parent(root: int, path: str) -> tuple[int, str]:
    """The directory that holds a path, as a descriptor (O_PATH), and the name in it ("." for itself).

    The caller closes it. Links are followed on the way, not in the name.
    """
    directory, name = split(path)
    return open(root, directory, _O_PATH | os.O_DIRECTORY), name or "."


def stat(root: int, path: str, *, follow: bool = True) -> os.stat_result:
    """The status of a path beneath a root, or of a link itself."""
    fd = open(root, path, _O_PATH | (0 if follow else os.O_NOFOLLOW))
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


def open_file(root: int, path: str) -> int:
    """Open a regular file for reading. What is none is never opened: opening a device may do something.

    Raises:
        OSError: not there, or not a regular file (EINVAL).
    """
    handle = open(root, path, _O_PATH)
    try:
        if not modes.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def mkdir(root: int, path: str, mode: int = 0o755) -> None:
    """Make a directory beneath a root; the mode is subject to the umask."""
    fd, name = parent(root, path)
    try:
        os.mkdir(name, mode, dir_fd=fd)
    finally:
        os.close(fd)


def makedirs(root: int, path: str, mode: int = 0o755, made: Callable[[int, str], None] | None = None) -> int:
    """Make a directory and what is missing above it; returns its descriptor (O_PATH), the caller closes it.

    `made` is called with (descriptor, path) of each directory that was not there, outermost first. Links to
    directories are followed inside of the root; one that points nowhere has its target made.
    """
    here, at = os.dup(root), ""
    words = [word for word in path.split("/") if word not in ("", ".")]
    links = 0
    try:
        while words:
            word = words.pop(0)
            whole = f"{at}/{word}"
            try:
                following = open(root, whole, _O_PATH | os.O_DIRECTORY)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                target = _link_of(here, word)
                if target is not None:
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                    above = "" if target.startswith("/") else at
                    words[:0] = [part for part in f"{above}/{target}".split("/") if part not in ("", ".")]
                    os.close(here)
                    here, at = os.dup(root), ""
                    continue
                os.mkdir(word, mode, dir_fd=here)
                following = child(here, word, _O_PATH | os.O_DIRECTORY)
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


def symlink(root: int, target: str, path: str) -> None:
    """Make a link beneath a root; what it says is not looked at."""
    fd, name = parent(root, path)
    try:
        os.symlink(target, name, dir_fd=fd)
    finally:
        os.close(fd)


def unlink(root: int, path: str) -> None:
    """Remove a file or link beneath a root."""
    fd, name = parent(root, path)
    try:
        os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


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
        handle = child(above, name, _O_PATH | os.O_DIRECTORY)
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


def resolve(root: int, path: str, *, strict: bool = True) -> str:
    """The path without links, as seen from the root ("/" itself for the root).

    Found by walking, not by asking /proc: a descriptor of a detached mount has no path there. What does
    not exist is kept as it is written, unless `strict`.
    """
    at: list[str] = []
    words = [word for word in path.split("/") if word not in ("", ".")]
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
        words[:0] = [part for part in target.split("/") if part not in ("", ".")]
    return "/" + "/".join(at)


def chown(fd: int, uid: int, gid: int) -> None:
    """Give what a descriptor names (O_PATH will do) to an owner."""
    os.chown(f"/proc/self/fd/{fd}", uid, gid)


def walk(root: int, path: str = "/") -> Iterator[tuple[str, int, list[os.DirEntry[str]]]]:
    """Every directory below a path, before what is in it: (path from the root, descriptor, entries by name).

    No link is followed below the start. The descriptor is open until the next step; entries may be removed
    from the list to keep the walk out of them.
    """
    at = "/" + path.strip("/") if path.strip("/") else ""
    stack: list[tuple[str, int, list[str]]] = []  # (path, descriptor, names below that are still to come)
    fd = open(root, path, os.O_RDONLY | os.O_DIRECTORY)
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
