"""One cgroup for all containers of a shim, so that it can be found and removed whatever happened."""

from __future__ import annotations

import errno
import os
import time

from bknb.shim import calls

ROOT = "/sys/fs/cgroup"
PREFIX = "bknb-"


def name(watcher: int) -> str:
    """A name that says which process it belongs to, with that process's start time against reused ids."""
    return f"{PREFIX}{watcher}-{_started(watcher)}"


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def hierarchies() -> list[str]:
    """Where cgroups can be made: the one tree of v2, or each controller's of v1."""
    if os.path.exists(f"{ROOT}/cgroup.controllers"):
        return [ROOT]
    try:
        places = [f"{ROOT}/{entry}" for entry in sorted(os.listdir(ROOT))]
    except OSError:
        return []
    return [
        place for place in places if not os.path.islink(place) and os.path.exists(f"{place}/cgroup.procs")
    ]


def mode() -> str:
    """``v2``, ``v1``, ``hybrid`` (both mounted) or "" for none."""
    if os.path.exists(f"{ROOT}/cgroup.controllers"):
        return "v2"
    if os.path.exists(f"{ROOT}/unified/cgroup.procs"):
        return "hybrid"
    return "v1" if os.path.isdir(f"{ROOT}/memory") or os.path.isdir(f"{ROOT}/pids") else ""


def hide_unified() -> None:
    """Cover the v2 tree of a hybrid host in this mount namespace: crun 1.8 refuses to run beside it.

    By a tmpfs that can be written, since crun makes plain directories there, and leaves them behind.
    """
    calls.mount("none", f"{ROOT}/unified", "tmpfs", calls.MS_NOSUID | calls.MS_NODEV, "size=4m,mode=0755")


def make(group: str) -> bool:
    """Make our cgroup where containers will be; False where that is not allowed."""
    places = hierarchies()
    try:
        for place in places:
            os.makedirs(f"{place}/{group}", exist_ok=True)
    except OSError:
        remove(group)
        return False
    return bool(places)


def remove(group: str, *, patience: float = 1.0) -> None:
    """Kill what is in a cgroup and remove it, in every hierarchy; gives up after `patience` seconds."""
    until = time.monotonic() + patience
    for place in hierarchies():
        top = f"{place}/{group}"
        while os.path.isdir(top):
            _kill(top)
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOENT, errno.ENOTEMPTY):
                        return
            if os.path.isdir(top):
                if time.monotonic() > until:
                    return
                time.sleep(0.005)


def remove_everywhere(group: str) -> None:
    """Remove the cgroups of this name wherever they are: a step may have asked for a parent of its own."""
    for place in hierarchies():
        for top, directories, _ in os.walk(place):
            if group in directories:
                directories.remove(group)
                remove(os.path.relpath(f"{top}/{group}", place))


def _kill(top: str) -> None:
    """SIGKILL everything in a cgroup and below."""
    try:
        with open(f"{top}/cgroup.kill", "w", encoding="ascii") as file:
            file.write("1")
        return
    except OSError:
        pass  # before Linux 5.14, or v1
    for directory, _, _ in os.walk(top):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                pids = [int(line) for line in file]
        except (OSError, ValueError):
            continue
        for pid in pids:
            if pid > 0:
                try:
                    os.kill(pid, calls.SIGKILL)
                except OSError:
                    continue


def remove_stale() -> None:
    """Remove the empty cgroups of shims whose watcher was killed together with them. For the watcher."""
    for place in hierarchies():
        try:
            found = [entry for entry in os.listdir(place) if entry.startswith(PREFIX)]
        except OSError:
            continue
        for entry in found:
            pid = entry[len(PREFIX) :].partition("-")[0]
            if pid.isdigit() and name(int(pid)) != entry:
                for directory, _, _ in os.walk(f"{place}/{entry}", topdown=False):
                    try:
                        os.rmdir(directory)
                    except OSError:
                        break  # in use after all: a process of another PID namespace has this id
