"""The watcher: starts the shim in its namespaces, stays outside, and clears what outlives a namespace.

Started as ``python -I -S`` with the socket to the kernel as descriptor 3; stdlib only, and few of those.
"""

from __future__ import annotations

import os
import select
import sys

from bknb.shim import calls, cgroups, namespaces

SOCKET = 3
DEADLINE = 0.5  # seconds that the shim gets to end by itself when the kernel is gone


def main(state_dir: str) -> None:
    """Run watcher and shim; returns in neither."""
    kernel = _pidfd(os.getppid())
    os.closerange(SOCKET + 1 if kernel is None else max(kernel, SOCKET) + 1, 65536)
    entered = namespaces.enter()
    group = cgroups.name(os.getpid())
    alive, keep = os.pipe()
    shim = os.fork()
    if shim == 0:
        os.close(keep)
        if kernel is not None:
            os.close(kernel)
        code = 1
        try:
            from bknb.shim import server

            server.serve(SOCKET, alive, state_dir, group, entered)
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(SOCKET)
    os.close(alive)
    try:
        cgroups.remove_stale()
        _watch(kernel, shim)
    finally:
        cgroups.remove_everywhere(group)
        place = os.path.join(state_dir, f"shim-{os.getpid()}")
        if entered.tier == "none" and os.path.isdir(place):
            from bknb.shim import mounts

            mounts.remove(place)
        os._exit(0)


def _pidfd(pid: int) -> int | None:
    """A descriptor that is readable once a process has ended; None before Linux 5.3."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def _watch(kernel: int | None, shim: int) -> None:
    """Wait for the shim's end, or bring it about once the kernel has ended."""
    parent = os.getppid()
    own = _pidfd(shim)
    if kernel is None or own is None:
        while os.getppid() == parent:  # no pidfds: ask twice a second
            if os.waitpid(shim, os.WNOHANG)[0]:
                return
            select.select([], [], [], DEADLINE)
    else:
        select.select([kernel, own], [], [])
        select.select([own], [], [], DEADLINE)
    try:
        os.kill(shim, calls.SIGKILL)
        os.waitpid(shim, 0)
    except (ProcessLookupError, ChildProcessError):
        return
