"""Into namespaces of our own: as root directly, as an ordinary user by way of a user namespace.

An ordinary user gets the ids of /etc/subuid where newuidmap and newgidmap (Debian's ``uidmap``) are
installed, else one id: then files belong to nobody else, and owners are kept beside them (`owners`).
"""

from __future__ import annotations

import errno
import os

from bknb.shim import calls

TYPE_CHECKING = False
if TYPE_CHECKING:  # this process starts in no time because it imports next to nothing
    from collections.abc import Callable

SEARCH = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin", "/usr/local/sbin")
ALL_IDS = 1 << 32


class Entered:
    """What `enter` got: `tier` as in `protocols.Isolation`, how many ids, and why it is not more."""

    __slots__ = ("id_range", "notes", "tier")

    def __init__(self, tier: str, id_range: int, notes: list[str]) -> None:
        self.tier = tier
        self.id_range = id_range
        self.notes = notes


def enter() -> Entered:
    """Unshare what this process may, so that the next fork is PID 1 of a PID namespace.

    The caller has one thread. Mounts are left to `enter_mounts`, which the child calls.
    """
    if os.geteuid() == 0 and _try_out(lambda: None):
        calls.unshare(calls.CLONE_NEWPID)
        ids = _mapped_ids()
        notes = [] if ids >= ALL_IDS - 1 else ["root of a user namespace: no raw devices"]
        return Entered("root" if ids >= ALL_IDS - 1 else "user", ids, notes)
    if _try_out(lambda: _new_user_namespace([])):
        notes = []
        _new_user_namespace(notes)
        calls.unshare(calls.CLONE_NEWPID)
        return Entered("user", _mapped_ids(), notes)
    return Entered("none", _mapped_ids(), [_why_none()])


def enter_mounts() -> None:
    """A mount namespace of our own, out of which nothing leaks; with a /proc of our own PID namespace."""
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_SLAVE)
    calls.mount("proc", "/proc", "proc", calls.MS_NOSUID | calls.MS_NODEV | calls.MS_NOEXEC)


def _try_out(before: Callable[[], None]) -> bool:
    """Whether a child process can do all of it: sandboxes often allow the first call and refuse the last."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before()
            calls.unshare(calls.CLONE_NEWPID)
            inner = os.fork()
            if inner == 0:
                enter_mounts()
                code = 0
            else:
                code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        except OSError:
            pass
        finally:
            os._exit(code & 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _new_user_namespace(notes: list[str]) -> None:
    """Move into a user namespace in which we are root; adds a note when it has one id only."""
    uid, gid, own = os.geteuid(), os.getegid(), os.getpid()
    ready, go = os.pipe()
    helper = os.fork()
    if helper == 0:  # stays outside, where the setuid helpers may work
        code = 1
        try:
            os.close(go)
            os.read(ready, 1)
            code = 0 if _map_ranges(own, uid, gid) else 1
        finally:
            os._exit(code)
    os.close(ready)
    try:
        calls.unshare(calls.CLONE_NEWUSER)
    finally:
        os.close(go)
        ranges = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) == 0
    if not ranges:
        notes.append(_why_one_id())
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if ranges:
        os.setgroups([])


def _map_ranges(pid: int, uid: int, gid: int) -> bool:
    """Ask newuidmap and newgidmap for the ranges of /etc/subuid and /etc/subgid."""
    names = {str(uid)}
    try:
        import pwd

        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass
    for program, file, own in (("newgidmap", "/etc/subgid", gid), ("newuidmap", "/etc/subuid", uid)):
        path, ranges = find(program), _ranges(file, names)
        if path is None or not ranges:
            return False
        arguments = [path, str(pid), "0", str(own), "1"]
        first = 1
        for start, count in ranges:
            arguments += [str(first), str(start), str(count)]
            first += count
        quiet = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
        child = os.posix_spawn(path, arguments, dict(os.environ), file_actions=quiet)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            return False
    return True


def _ranges(file: str, names: set[str]) -> list[tuple[int, int]]:
    """The (start, count) pairs that a subid file gives to a user."""
    found = []
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.strip().split(":")
                if len(words) == 3 and words[0] in names and words[1].isdigit() and words[2].isdigit():
                    found.append((int(words[1]), int(words[2])))
    except OSError:
        return []
    return found


def _mapped_ids() -> int:
    """How many uids exist in this user namespace."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as lines:
            return sum(int(line.split()[2]) for line in lines)
    except (OSError, ValueError, IndexError):
        return 1


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        if not (path.endswith("setgroups") and error.errno == errno.ENOENT):
            raise
    finally:
        os.close(fd)


def find(program: str) -> str | None:
    """A program on PATH, or in the places where system programs are."""
    for directory in (*os.environ.get("PATH", "").split(":"), *SEARCH):
        path = f"{directory}/{program}"
        if directory.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _why_one_id() -> str:
    if find("newuidmap") is None:
        return "files can have one owner only in a RUN: apt install uidmap, and a line in /etc/subuid"
    return "files can have one owner only in a RUN: no usable line in /etc/subuid and /etc/subgid"


def _why_none() -> str:
    for file, off, remedy in (
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        try:
            with open(file, encoding="ascii") as lines:
                if lines.read().strip() == off:
                    return f"no namespaces: RUN is not isolated ({remedy})"
        except OSError:
            continue
    return "no namespaces here (a container or sandbox forbids them): RUN is not isolated"
