"""How what is copied comes out: what of it is taken, and with which owner, mode, attributes and times."""

from __future__ import annotations

import errno
import os
import stat as modes
from typing import TYPE_CHECKING

from bknb.shim import filemode, owners

if TYPE_CHECKING:
    from bknb.patterns import PatternMatcher

_NO_XATTRS = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES, errno.EINVAL)

Owner = tuple[int, int] | None


class Rules:
    """How things are copied.

    Attributes:
        owner: (uid, gid) for everything, None for the source's own.
        mode: bits for everything, a text for `filemode.apply`, or None for the source's own.
        time: nanoseconds for everything, None for the source's own.
        include, exclude: matchers of paths below the source, or None.
        replace: what is in the way is removed, directories too.
        digests: sha256 of each file is wanted.
    """

    __slots__ = ("digests", "exclude", "include", "mode", "owner", "replace", "time")

    def __init__(self, owner: Owner, mode: int | str | None, time: int | None) -> None:
        self.owner = owner
        self.mode = mode
        self.time = time
        self.include: PatternMatcher | None = None
        self.exclude: PatternMatcher | None = None
        self.replace = False
        self.digests = False

    @property
    def plain(self) -> bool:
        """Everything of a folder that belongs to 0:0 is copied as it is."""
        described = self.owner in (None, (0, 0)) and self.mode is None and self.time is None
        return described and not (self.include or self.exclude or self.digests)


class Metadata:
    """Gives what is copied its owner, mode and times by some rules.

    Attributes:
        exact: the disk holds owners as they are.
    """

    def __init__(self, rules: Rules, held: owners.Owners) -> None:
        self.exact = isinstance(held, owners.OnDisk)
        self._rules = rules
        self._owners = held
        self._me = (os.geteuid(), os.getegid())

    def bits(self, mode: int) -> int:
        """The permission bits that something of a mode gets."""
        bits = self._rules.mode
        if isinstance(bits, str):
            return filemode.apply(bits, mode)
        return modes.S_IMODE(mode) if bits is None else bits & 0o7777

    def give(self, directory: int, name: str, truth: owners.State, *, fresh: bool) -> None:
        """Owner and mode; a `fresh` file belongs to us, and was created with its permission bits."""
        uid, gid = self._rules.owner or (truth.st_uid, truth.st_gid)
        ours = fresh and self.exact and (uid, gid) == self._me
        if not ours:
            self._owners.own(directory, name, uid, gid)
        if modes.S_ISLNK(truth.st_mode):
            return
        mode = self.bits(truth.st_mode)
        if not ours or mode & 0o7000:
            self._owners.set_mode(directory, name, mode)

    def set_time(self, fd: int, found: os.stat_result, name: str = "") -> None:
        """Times of an open file, or of a name in an open directory."""
        fixed = self._rules.time
        times = (found.st_atime_ns, found.st_mtime_ns) if fixed is None else (fixed, fixed)
        if name:
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
        else:
            os.utime(fd, ns=times)


def copy_xattrs(source: int, target: int) -> None:
    """Extended attributes; those that the target refuses are left out, as BuildKit does."""
    try:
        keys = os.listxattr(source)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return
        raise
    for key in keys:
        if key.startswith(owners.HIDDEN):
            continue
        try:
            os.setxattr(target, key, os.getxattr(source, key))
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
