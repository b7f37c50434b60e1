"""Processes that the shim starts, waits for and buries."""

from __future__ import annotations

import _thread
import os
import resource
import select
from contextlib import contextmanager

from bknb.shim import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

STEP_UMASK = 0o022


class Before:
    """What a child does before it becomes another program, where posix_spawn does not do.

    Attributes:
        rlimits: (name, soft, hard) of each limit.
        who: the user that it becomes, as (uid, gid, groups), or None.
        moved: (directory, place): with another user, where a directory of ours is shown to it.
    """

    __slots__ = ("moved", "rlimits", "who")

    def __init__(
        self, rlimits: list[list[Any]], who: tuple[int, int, list[int]] | None, moved: tuple[str, str]
    ) -> None:
        self.rlimits = rlimits
        self.who = who
        self.moved = moved

    def __call__(self) -> None:
        """Do it, in the child."""
        for name, soft, hard in self.rlimits:
            resource.setrlimit(getattr(resource, name), (soft, hard))
        if self.who is not None:
            uid, gid, groups = self.who
            calls.unshare(calls.CLONE_NEWNS)
            calls.mount(*self.moved, None, calls.MS_BIND | calls.MS_REC)
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)


class Children:
    """The programs that some thread waits for: their pids are in `running`, which changes under a lock."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self.running: set[int] = set()

    def spawn(
        self, path: str, arguments: list[str], env: dict[str, str], fds: dict[int, int], before: Before | None
    ) -> int:
        """Start a program in a session of its own; `fds` maps its descriptors to ours. Returns its pid.

        By posix_spawn, unless there is something to do before.
        """
        high = max([*fds.values(), *fds]) + 1
        # Through high numbers first, so that no dup2 overwrites what a later one still needs.
        moves = [(ours, high + offset) for offset, ours in enumerate(fds.values())]
        moves += [(high + offset, theirs) for offset, theirs in enumerate(fds)]
        with self._lock:
            mask = os.umask(STEP_UMASK)  # of this thread, see _thread
            try:
                if before is not None:
                    pid = _fork(before, path, arguments, env, moves)
                else:
                    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, *move) for move in moves]
                    actions += [(os.POSIX_SPAWN_CLOSE, high + offset) for offset in range(len(fds))]
                    pid = os.posix_spawn(
                        path, arguments, env,
                        file_actions=actions, setsid=True, setsigmask=(), setsigdef=(calls.SIGPIPE,),
                    )  # fmt: skip
            finally:
                os.umask(mask)
            self.running.add(pid)
        return pid

    @contextmanager
    def held(self) -> Iterator[set[int]]:
        """`running`, while nobody buries or ends a child that is not in it yet."""
        with self._lock:
            yield self.running

    def wait(self, pid: int) -> tuple[int, resource.struct_rusage]:
        """Wait for a child; its exit code (negative for a signal) and what it and its children used."""
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        with self._lock:
            self.running.discard(pid)
        if code < 0:
            self.kill_orphans()
        self.reap()
        return code, usage

    def kill_orphans(self) -> None:
        """End what a killed runtime left behind: its container's init has become our child."""
        for _ in range(100):
            with self._lock:
                found = [pid for pid in children_of(os.getpid()) if pid not in self.running]
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, calls.SIGKILL)
                except ProcessLookupError:
                    continue
            self.reap()
            select.select([], [], [], 0.005)

    def reap(self) -> None:
        """Bury orphans that were given to us because we are PID 1."""
        while True:
            with self._lock:
                try:
                    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if found is None or found.si_pid in self.running:
                        return
                    os.waitpid(found.si_pid, os.WNOHANG)
                except ChildProcessError:
                    return


def _fork(
    before: Before, path: str, arguments: list[str], env: dict[str, str], moves: list[tuple[int, int]]
) -> int:
    """Start a program the old way; the child does little more than system calls, since other threads exist."""
    program = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user may not be able to reach its path
    pid = os.fork()
    if pid:
        os.close(program)
        return pid
    try:
        os.setsid()
        above = os.dup2(program, max(max(move) for move in moves) + 1, inheritable=False)
        for ours, theirs in moves:
            os.dup2(ours, theirs, inheritable=True)
        os.closerange(len(moves) // 2, above)
        before()
        import signal

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execve(above, arguments, env)
    except BaseException as error:
        os.write(2, f"cannot start {path}: {error}\n".encode())
    finally:
        os._exit(126)


def children_of(pid: int) -> list[int]:
    """The children of a process, of all its threads."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        pass
    return found
