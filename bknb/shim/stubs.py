"""Places to mount on that a container did not have, taken away again (executor/stubs.go)."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from bknb import beneath

ALWAYS = ("/etc/resolv.conf", "/etc/hosts")


USUAL = ("dev", "etc", "proc", "sys")


def make_usual(root: int) -> None:
    """Make the directories that every runtime makes and leaves; each would choose a mode of its own."""
    for name in USUAL:
        try:
            os.mkdir(name, 0o755, dir_fd=root)
        except OSError:
            continue  # it is there, or nothing can be made; the runtime will say so if it matters


def missing(root: int, destinations: Sequence[str], *, recursive: bool) -> list[str]:
    """Which mount points are not there yet, deepest first; `recursive` includes what is missing above."""
    found: list[str] = []
    for destination in (*ALWAYS, *destinations):
        try:
            path = beneath.resolve(root, destination, strict=False)
            while path != "/" and not beneath.exists(root, path):
                found.append(path)
                path = path.rpartition("/")[0] or "/"
                if not recursive:
                    break
        except OSError:
            continue  # the runtime will say what is wrong with it
    return found


def remove(root: int, paths: Sequence[str]) -> None:
    """Remove those that are still empty, and give their directories the times back that they had."""
    for path in paths:
        try:
            above = path.rpartition("/")[0] or "/"
            if beneath.resolve(root, above) == above:
                _remove_one(root, path, above)
        except OSError:
            continue


def _remove_one(root: int, path: str, above: str) -> None:
    fd = beneath.open(root, above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        name = path.rpartition("/")[2]
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        times = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=fd)  # fails, as it should, unless it is empty
        elif found.st_size == 0:
            os.unlink(name, dir_fd=fd)
        else:
            return
        os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        os.close(fd)
