"""What runs: mounts as data, containers, and the one process that deals with both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bknb.llb.ops import HostIP, Meta, NetMode, SecurityMode
from bknb.llb.vertex import LinuxResources


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount as data, in the words of mount(2). Only the shim mounts.

    Attributes:
        type: ``overlay``, ``bind`` or ``tmpfs``.
        source: a directory of the host for ``bind``; "" otherwise.
        options: ``ro``, ``rbind``, ``size=N``...; for ``overlay`` the shim reads ``lower=PATH`` (repeated,
            topmost first), ``upper=PATH`` and ``work=PATH``, each a single path, so that no separator needs
            escaping and a chain may be longer than a page of mount options.
    """

    type: str
    source: str = ""
    options: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the shim reads it."""
        return {"type": self.type, "source": self.source, "options": list(self.options)}


Mounts = tuple[Mount, ...]
"""What makes one directory tree: mounted in order, one on the other."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What this machine lets us do; found out once, said by ``doctor``.

    Attributes:
        tier: ``root``, ``user`` (a user namespace), ``none`` (no namespaces) or ``foreign`` (no Linux).
        runtime: name of what runs a step: ``crun``, ``runc``, ``bubblewrap``, ``proot`` or "".
        runtime_path: where it is.
        overlay: overlayfs can be mounted on the state folder.
        cgroups: a cgroup can be made for a step.
        id_range: how many uids there are in the namespace (1 without newuidmap, 2**32-1 as root).
        notes: one line each: what is missing, and the package or command that brings it.
    """

    tier: str
    runtime: str = ""
    runtime_path: str = ""
    runtime_version: str = ""
    overlay: bool = False
    cgroups: bool = False
    id_range: int = 1
    notes: tuple[str, ...] = ()


class Shim(Protocol):
    """The kernel's end of the shim process (`bknb.executor.shim`); its ops are listed in `bknb/shim/`."""

    @property
    def isolation(self) -> Isolation: ...

    async def call(self, op: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Have one op done. Arguments and result are JSON values; `fds` are handed over, not closed here.

        Cancelling the call cancels the op, and returns when it has ended.

        Raises:
            PathError, SnapshotError, ExecutorError, UnsupportedError: as the op's docstring says.
        """


@dataclass(frozen=True, slots=True)
class ProcessMount:
    """A tree inside of a container. `selector` is a path in the tree, resolved beneath its root.

    `stub` mounts need a place to be mounted on; what was made for it is removed again afterwards.
    `owner_mode`: for secrets: (uid, gid, mode) of the file; its bytes are in `data` and live on a tmpfs.
    """

    dest: str
    mounts: Mounts = ()
    selector: str = ""
    readonly: bool = False
    data: bytes | None = None
    owner_mode: tuple[int, int, int] = (0, 0, 0)
    socket: str = ""
    """Path of an agent's socket on the host, for ssh mounts."""


@dataclass(frozen=True, slots=True)
class Process:
    """One container: what runs, over what, seeing what.

    Attributes:
        id: unique name of the container.
        meta: arguments, env, cwd, user (a name is looked up inside of the root), hosts, hostname, ulimits.
        root: the tree that is "/".
        mounts: further trees, in the order in which they are mounted.
        env: added to meta.env: proxies and secrets.
        nameservers: text of /etc/resolv.conf, None for the host's.
        shm_size: bytes of /dev/shm.
    """

    id: str
    meta: Meta
    root: Mounts
    root_readonly: bool = False
    mounts: tuple[ProcessMount, ...] = ()
    env: tuple[str, ...] = ()
    network: NetMode = NetMode.UNSET
    security: SecurityMode = SecurityMode.SANDBOX
    resources: LinuxResources | None = None
    extra_hosts: tuple[HostIP, ...] = ()
    resolv_conf: str | None = None
    shm_size: int = 64 << 20
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: code, CPU seconds (user + system), peak memory in bytes, killed for memory."""

    code: int
    cpu: float = 0.0
    peak_memory: int = 0
    oom: bool = False


Output = Callable[[int, bytes], None]
"""Takes (stream, data) as a process writes it: 1 is stdout, 2 is stderr."""


class Executor(Protocol):
    """Runs processes in containers."""

    async def probe(self) -> Isolation:
        """What this machine lets us do, with the runtime that was found to work."""

    async def run(self, process: Process, output: Output, *, stdin: bytes = b"") -> ExitStatus:
        """Run to the end. Cancelling kills the container and returns when it is gone.

        Raises:
            ExecutorError: it could not be started.
        """
