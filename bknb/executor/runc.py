"""A `Process` as an OCI runtime configuration, for crun and runc.

What is in it by default is what BuildKit's containers have: the mounts, masks, namespaces and 14
capabilities of containerd's default spec
(vendor/github.com/containerd/containerd/v2/pkg/oci/{spec,mounts}.go) with the changes of
executor/oci/spec_linux.go. Paths are those below the bundle directory, which the shim fills.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from typing import Any

from bknb.errors import UnsupportedError
from bknb.llb.ops import NetMode, SecurityMode
from bknb.protocols import Isolation, Process, ProcessMount
from bknb.shim.words import USER

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE"
        " SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
ALL_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
        " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT"
        " SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE"
        " AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ"
        " PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)  # in the order of linux/capability.h
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
HOSTNAME = "buildkitsandbox"
STATE = "runtime"
"""Where a runtime keeps its state, below the shim's directory."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A system call filter: the program (b"" if not known here), in base64 for crun, the profile for runc."""

    program: bytes = b""
    bpf: str = ""
    profile: dict[str, Any] | None = None


def mount_targets(process: Process) -> tuple[str, ...]:
    """The name below the bundle at which the shim puts the source of each mount."""
    return tuple(f"m{index}" for index in range(len(process.mounts)))


def is_tmpfs(mount: ProcessMount) -> bool:
    """A tmpfs is made by the runtime itself."""
    return len(mount.mounts) == 1 and mount.mounts[0].type == "tmpfs"


def command(isolation: Isolation, directory: str, bundle: str, id: str) -> list[str]:
    """What starts a container."""
    words = [
        isolation.runtime_path,
        "--root",
        f"{directory}/{STATE}",
        "--log",
        f"{bundle}/log",
        "--log-format",
        "json",
    ]
    if isolation.runtime == "crun" and not isolation.cgroups:
        words += ["--cgroup-manager", "disabled"]
    return [*words, "run", "--bundle", bundle, id]


def config(process: Process, isolation: Isolation, *, bundle: str, group: str, filter: Filter | None) -> str:
    """The text of config.json; the shim replaces `USER` in it.

    `group` is the shim's cgroup, "" where there is none; `filter` None for an insecure process.
    """
    insecure = process.security is SecurityMode.INSECURE
    if insecure and isolation.tier != "root":
        raise UnsupportedError("RUN --security=insecure needs a kernel that runs as root")
    meta = process.meta
    capabilities = held(ALL_CAPABILITIES if insecure else CAPABILITIES, isolation)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(process, isolation),
        "maskedPaths": [] if insecure else MASKED,
        "readonlyPaths": [] if insecure else READONLY,
    }
    if isolation.cgroups and group:
        linux["cgroupsPath"] = cgroup_path(process, group)
        linux["resources"] = _resources(process, insecure=insecure)
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "args": meta.args,
            "env": [*meta.env, *process.env],
            "cwd": meta.cwd or "/",
            "user": USER.strip('"'),
            "noNewPrivileges": False,
            "capabilities": dict.fromkeys(("bounding", "permitted", "effective"), capabilities),
            "rlimits": rlimits(process),
        },
        "root": {"path": f"{bundle}/rootfs", "readonly": process.root_readonly},
        "hostname": meta.hostname or HOSTNAME,
        "mounts": _mounts(process, isolation, bundle, insecure=insecure),
        "linux": linux,
    }
    if filter is not None and not insecure:
        if isolation.runtime == "crun" and filter.bpf:
            spec["annotations"] = {"run.oci.seccomp_bpf_data": filter.bpf}
        elif filter.profile is not None:
            linux["seccomp"] = filter.profile
    return json.dumps(spec, ensure_ascii=True, separators=(",", ":"))


def held(wanted: tuple[str, ...], isolation: Isolation) -> tuple[str, ...]:
    """Those capabilities that can be given: a sandbox may have taken some from root itself."""
    if isolation.tier != "root":
        return wanted  # a new user namespace has them all
    bits = _bounding_set()
    return tuple(name for name in wanted if bits >> ALL_CAPABILITIES.index(name) & 1)


@functools.cache
def _bounding_set() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1], 16) for line in status if line.startswith("CapBnd:")), -1)


def cgroup_path(process: Process, group: str) -> str:
    """Where the container's cgroup is: below the parent that was asked for, in a group of the shim's name."""
    parent = (process.meta.cgroup_parent or process.cgroup_parent).strip("/")
    return f"/{parent}/{group}/{process.id}" if parent else f"/{group}/{process.id}"


def _namespaces(process: Process, isolation: Isolation) -> list[dict[str, str]]:
    kinds = ["pid", "ipc", "uts", "mount"]
    if process.network is NetMode.NONE:
        kinds.append("network")
    if isolation.cgroups and os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        kinds.append("cgroup")
    return [{"type": kind} for kind in kinds]


def rlimits(process: Process) -> list[dict[str, Any]]:
    """Ulimits that were asked for; open files otherwise as this process has them, not as the shim has."""
    if process.meta.ulimit:
        return [
            {"type": "RLIMIT_" + limit.name.upper(), "soft": limit.soft % 2**64, "hard": limit.hard % 2**64}
            for limit in process.meta.ulimit
        ]
    import resource  # there is none on Windows, where this module is imported too

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [{"type": "RLIMIT_NOFILE", "soft": soft % 2**64, "hard": hard % 2**64}]


def _resources(process: Process, *, insecure: bool) -> dict[str, Any]:
    """Devices, and the limits of `LinuxResources` (generateLinuxResourceOpts in executor/oci)."""
    result: dict[str, Any] = {"devices": [{"allow": insecure, "access": "rwm"}]}
    limits = process.resources
    if limits is None:
        return result
    memory = {"limit": limits.memory, "swap": limits.memory_swap}
    cpu = {
        "shares": limits.cpu_shares,
        "quota": limits.cpu_quota,
        "period": limits.cpu_period,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    for name, values in (("memory", memory), ("cpu", cpu)):
        if given := {key: value for key, value in values.items() if value}:
            result[name] = given
    return result


def _mounts(process: Process, isolation: Isolation, bundle: str, *, insecure: bool) -> list[dict[str, Any]]:
    """All mounts, one for each destination: a later one takes the place of an earlier (dedupMounts)."""
    found = _default_mounts(process, isolation, insecure=insecure)
    for name in ("resolv.conf", "hosts"):
        found.append(
            _mount(f"/etc/{name}", "bind", f"{bundle}/{name}", "nosuid", "noexec", "nodev", "rbind", "ro")
        )
    for mount, target in zip(process.mounts, mount_targets(process), strict=True):
        found.append(_process_mount(mount, f"{bundle}/{target}"))
    by_destination = {mount["destination"]: mount for mount in found}
    return list(by_destination.values())


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _default_mounts(process: Process, isolation: Isolation, *, insecure: bool) -> list[dict[str, Any]]:
    safe = ("nosuid", "noexec", "nodev")
    write = "rw" if insecure else "ro"
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if isolation.id_range > 5:
        terminals.append("gid=5")  # the group tty; an id that does not exist here cannot own them
    found = [
        _mount("/proc", "proc", "proc", *safe),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *terminals),
        _mount("/dev/shm", "tmpfs", "shm", *safe, "mode=1777", f"size={process.shm_size or 64 << 20}"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *safe),
    ]
    if isolation.tier == "root" or process.network is NetMode.NONE:
        found.append(_mount("/sys", "sysfs", "sysfs", *safe, write))
    else:  # a sysfs belongs to whoever owns the network namespace
        found.append(_mount("/sys", "bind", "/sys", *safe, "rbind", "ro"))
    if isolation.cgroups:
        found.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", write, *safe))
    return found


def _process_mount(mount: ProcessMount, source: str) -> dict[str, Any]:
    """One mount of the process; what its source is made of is the shim's business."""
    destination = "/" + mount.dest.strip("/")
    if is_tmpfs(mount):
        sizes = [option for option in mount.mounts[0].options if option.startswith("size=")]
        return _mount(destination, "tmpfs", "tmpfs", "nosuid", *sizes, *(["ro"] if mount.readonly else []))
    options = ["rbind"]
    if mount.data is not None:
        options += ["nosuid", "nodev"] + ([] if mount.owner_mode[2] & 0o111 else ["noexec"])
    if mount.readonly:
        options.append("ro")
    return _mount(destination, "bind", source, *options)
