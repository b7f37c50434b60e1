"""System calls that Python 3.11 lacks: mounts, namespaces, attributes of mounts."""

from __future__ import annotations

import ctypes
import os

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
OPEN_TREE_CLONE = 1
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_RDONLY = 1

PR_SET_CHILD_SUBREAPER = 36

SIGKILL, SIGPIPE = 9, 13  # the module signal makes enums of them, which takes the shim 3 ms

# Numbers from 424 on are the same on every architecture (Linux's unified table).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, *about: str) -> int:
    """The result of a call, or its OSError."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *about[:1])
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def unshare(flags: int) -> None:
    """Leave namespaces that are shared."""
    _check(_libc.unshare(flags))


def prctl(option: int, value: int | bytes) -> None:
    """Set one attribute of this process."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    _check(_libc.prctl(option, argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def mount(source: str, target: str, type: str | None, flags: int, data: str | None = None) -> None:
    """The old mount call; `data` holds less than a page."""
    _check(_libc.mount(_text(source), _text(target), _text(type), ctypes.c_ulong(flags), _text(data)), target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount; lazily unless told otherwise."""
    _check(_libc.umount2(_text(target), flags), target)


def fsopen(type: str) -> int:
    """A file system that is being configured (Linux 5.2)."""
    return _check(_libc.syscall(_FSOPEN, _text(type), ctypes.c_uint(1)), type)


def fsconfig(fd: int, key: str, value: str | None = None) -> None:
    """Set one option of it; None sets a flag."""
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    _check(_libc.syscall(_FSCONFIG, fd, command, _text(key), _text(value), 0), key)


def fsmount(fd: int, attributes: int = 0) -> int:
    """Create it; returns the descriptor of a mount that is attached nowhere, and gone when that is closed."""
    _check(_libc.syscall(_FSCONFIG, fd, FSCONFIG_CMD_CREATE, None, None, 0))
    return _check(_libc.syscall(_FSMOUNT, fd, ctypes.c_uint(1), ctypes.c_uint(attributes)))


def open_tree(fd: int, *, recursive: bool) -> int:
    """A detached copy (as by bind) of the mount at a descriptor, from there down."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return _check(_libc.syscall(_OPEN_TREE, fd, b"", ctypes.c_uint(flags)))


def move_mount(fd: int, target: int) -> None:
    """Attach a detached mount at what a descriptor names."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _check(_libc.syscall(_MOVE_MOUNT, fd, b"", target, b"", ctypes.c_uint(flags)))


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def make_readonly(fd: int) -> None:
    """Make a detached mount and all in it read-only (Linux 5.12)."""
    attributes = _MountAttributes(set=MOUNT_ATTR_RDONLY)
    flags = ctypes.c_uint(AT_EMPTY_PATH | AT_RECURSIVE)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(_libc.syscall(_MOUNT_SETATTR, fd, b"", flags, ctypes.byref(attributes), size))
