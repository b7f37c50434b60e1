"""A `Process` as a proot command, where there are no namespaces at all: no isolation.

proot translates paths with ptrace and pretends to be root. The step sees the host's processes and network and
could leave its root if it wanted to, and what is read-only can be written; whoever uses it is told so. Roots
are plain directories there, and mounts are paths of the host.
"""

from __future__ import annotations

from bknb.errors import UnsupportedError
from bknb.executor import runc
from bknb.llb.ops import NetMode, SecurityMode
from bknb.protocols import Isolation, Process

NOTE = "RUN has no isolation here: it runs through proot"


def check(process: Process) -> None:
    """Refuse what cannot even be pretended.

    Raises:
        UnsupportedError: no network, or a privileged step, was asked for.
    """
    if process.security is SecurityMode.INSECURE:
        raise UnsupportedError("RUN --security=insecure needs a kernel that runs as root")
    if process.network is NetMode.NONE:
        raise UnsupportedError("RUN --network=none needs namespaces, which this machine does not allow")


def command(process: Process, isolation: Isolation) -> list[str]:
    """What starts the step; the shim fills in the host's paths of the root and of each mount."""
    check(process)
    words = [
        isolation.runtime_path,
        "-v",
        "-1",
        "-r",
        "@path:rootfs@",
        "-w",
        process.meta.cwd or "/",
        "-i",
        "@uid@:@gid@",
    ]
    for path in ("/proc", "/dev", "/sys"):
        words += ["-b", path]
    for name in ("resolv.conf", "hosts"):
        words += ["-b", f"@bundle@/{name}:/etc/{name}"]
    for mount, target in zip(process.mounts, runc.mount_targets(process), strict=True):
        words += ["-b", f"@path:{target}@:/{mount.dest.strip('/')}"]
    return [*words, *process.meta.args]


def environment(bundle: str) -> dict[str, str]:
    """What proot itself needs: a place for its files, and no trick that kernels since 4.8 have broken."""
    return {"PROOT_TMP_DIR": bundle, "PROOT_NO_SECCOMP": "1"}
