"""The OCI configuration of a process, without starting anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bknb.errors import UnsupportedError
from bknb.executor import bubblewrap, etc, proot, runc
from bknb.llb.ops import HostIP, Meta, NetMode, SecurityMode, Ulimit
from bknb.llb.vertex import LinuxResources
from bknb.protocols import Isolation, Mount, Process, ProcessMount

ROOT = Isolation("root", "crun", "/usr/bin/crun", overlay=True, cgroups=True, id_range=1 << 32)
USER = Isolation("user", "crun", "/usr/bin/crun", overlay=True, cgroups=False, id_range=1)


def process(**fields: Any) -> Process:
    """A process of one word."""
    meta = fields.pop("meta", {})
    return Process(
        id="c1",
        meta=Meta(**{"args": ("true",), "env": ("PATH=/bin",), "cwd": "/", **meta}),
        root=(),
        **fields,
    )


def config(each: Process, isolation: Isolation = ROOT) -> Any:
    """Its configuration, with root as the user."""
    text = runc.config(
        each, isolation, bundle="/b", group="g", filter=runc.Filter(b"", "BPF", {"defaultAction": "x"})
    )
    return json.loads(text.replace(runc.USER, '{"uid":0}'))


def mount(spec: Any, destination: str) -> Any:
    """One mount of a configuration."""
    (found,) = [each for each in spec["mounts"] if each["destination"] == destination]
    return found


def test_defaults() -> None:
    """What every container has."""
    spec = config(process())
    assert spec["hostname"] == "buildkitsandbox"
    assert [each["type"] for each in spec["linux"]["namespaces"]][:4] == ["pid", "ipc", "uts", "mount"]
    assert (
        set(spec["process"]["capabilities"]["bounding"]) <= set(runc.CAPABILITIES)
        and len(runc.CAPABILITIES) == 14
    )
    assert spec["linux"]["cgroupsPath"] == "/g/c1"
    assert mount(spec, "/etc/hosts")["source"] == "/b/hosts"
    assert spec["annotations"] == {"run.oci.seccomp_bpf_data": "BPF"}


def test_networks() -> None:
    """A namespace of its own only for none; there a sysfs of its own too."""
    assert "network" in [
        each["type"] for each in config(process(network=NetMode.NONE))["linux"]["namespaces"]
    ]
    for mode in (NetMode.UNSET, NetMode.HOST):
        assert "network" not in [
            each["type"] for each in config(process(network=mode))["linux"]["namespaces"]
        ]
    assert mount(config(process(), USER), "/sys")["type"] == "bind"
    assert mount(config(process(network=NetMode.NONE), USER), "/sys")["type"] == "sysfs"


def test_an_ordinary_user() -> None:
    """No cgroup, no group tty, no privileged steps."""
    spec = config(process(), USER)
    assert "cgroupsPath" not in spec["linux"]
    assert not [option for option in mount(spec, "/dev/pts")["options"] if option.startswith("gid")]
    with pytest.raises(UnsupportedError):
        config(process(security=SecurityMode.INSECURE), USER)


def test_resources_and_limits() -> None:
    """Limits in the runtime's words; minus one is none."""
    limits = LinuxResources(memory=1 << 20, cpu_quota=5000, cpu_period=10000, cpuset_cpus="0")
    spec = config(process(resources=limits, meta={"ulimit": (Ulimit("nproc", 5, -1),)}))
    assert spec["linux"]["resources"]["memory"] == {"limit": 1 << 20}
    assert spec["linux"]["resources"]["cpu"] == {"quota": 5000, "period": 10000, "cpus": "0"}
    assert spec["process"]["rlimits"] == [{"type": "RLIMIT_NPROC", "soft": 5, "hard": 2**64 - 1}]


def test_later_mounts_take_the_place_of_earlier() -> None:
    """Two mounts of one place are one: the last."""
    mounts = (
        ProcessMount("/m", (Mount("bind", "/a"),)),
        ProcessMount("m/", (Mount("bind", "/b"),), readonly=True),
    )
    assert mount(config(process(mounts=mounts)), "/m")["source"] == "/b/m1"
    replaced = config(process(mounts=(ProcessMount("/etc/hosts", (Mount("bind", "/a"),)),)))
    assert mount(replaced, "/etc/hosts")["source"] == "/b/m0"


def test_secrets_are_not_executed() -> None:
    """A secret without execute bits is mounted noexec; its bytes are nowhere in the configuration."""
    secret = ProcessMount("/s", data=b"s3cret", owner_mode=(0, 0, 0o400), readonly=True)
    spec = config(process(mounts=(secret,)))
    assert {"noexec", "nosuid", "nodev", "ro"} <= set(mount(spec, "/s")["options"])
    assert "s3cret" not in json.dumps(spec)


def test_etc(tmp_path: Path) -> None:
    """hosts with extra names; a resolver's file without servers gets public ones."""
    assert etc.hosts("", (HostIP("db", "10.0.0.1"),)) == (
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n"
    )
    (tmp_path / "resolv.conf").write_text("search here\nnameserver 127.0.0.53\n")
    assert etc.resolv_conf(NetMode.UNSET, tmp_path / "resolv.conf") == "search here\nnameserver 127.0.0.53\n"
    assert "nameserver 8.8.8.8\n" in etc.resolv_conf(NetMode.UNSET, tmp_path / "missing")


def test_what_others_cannot_do() -> None:
    """bubblewrap refuses privileged steps; proot also a step without a network."""
    with pytest.raises(UnsupportedError, match="crun or runc"):
        bubblewrap.command(process(security=SecurityMode.INSECURE), ROOT)
    with pytest.raises(UnsupportedError, match="needs namespaces"):
        proot.command(process(network=NetMode.NONE), USER)


def test_imports_everywhere() -> None:
    """Where there is no Linux the executor can be imported all the same, to say so in one line."""
    code = (
        "import sys\nfor name in ('resource', 'fcntl', 'pwd', 'grp'):\n    sys.modules[name] = None\n"
        "sys.platform = 'darwin'\nimport asyncio, bknb.executor.run as run, bknb.executor.shim as shim\n"
        "try:\n    asyncio.run(shim.ShimProcess('/nowhere').start())\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True
    )
    assert done.stdout == "UnsupportedError RUN needs Linux; use a remote builder\n", done.stderr
