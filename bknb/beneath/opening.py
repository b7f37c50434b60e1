"""Opening a path beneath a root, by the kernel or by a walk that stands in for it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat as modes
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # this process starts in no time because it imports next to nothing
    from typing import Any

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
MAX_LINKS = 40  # path_resolution(7)
_OPENAT2 = 437  # one number on every architecture
O_PATH = getattr(os, "O_PATH", 0)
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
        fd = os.open("/", O_PATH)
        try:
            os.close(_openat2(fd, ".", O_PATH, 0))
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
    return os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


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
    words = components(path)
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
            target = link_of(here, word)
            if target is not None and (words or directory or not flags & os.O_NOFOLLOW):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    while opened:
                        os.close(opened.pop())
                directory = directory or (not words and target.endswith("/"))
                words[:0] = components(target)
            elif words:
                step = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                opened.append(os.open(word, step, dir_fd=here))
            else:
                last = flags | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if directory else 0)
                return os.open(word, last, mode, dir_fd=here)
        return os.open(".", flags | os.O_CLOEXEC, mode, dir_fd=opened[-1] if opened else root)
    finally:
        for fd in opened:
            os.close(fd)


def link_of(directory: int, name: str) -> str | None:
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


def components(path: str) -> list[str]:
    """The names that a path is made of, without empty ones and dots.

    >>> components("/a//./b/..")
    ['a', 'b', '..']
    """
    return [name for name in path.split("/") if name not in ("", ".")]


def split(path: str) -> tuple[str, str]:
    """The directory of a path, and its last name; ("", "") for the root itself.

    >>> split("/a//b/"), split("/"), split("a/..")
    (('a', 'b'), ('', ''), ('a/..', ''))
    """
    words = components(path)
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
    return open(root, directory, O_PATH | os.O_DIRECTORY), name or "."


def open_file(root: int, path: str) -> int:
    """Open a regular file for reading. What is none is never opened: opening a device may do something.

    Raises:
        OSError: not there, or not a regular file (EINVAL).
    """
    handle = open(root, path, O_PATH)
    try:
        if not modes.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
