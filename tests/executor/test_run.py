"""Containers on real runtimes: what a step sees, and what is left when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bknb.errors import ExecutorError, PathError, UnsupportedError
from bknb.llb.ops import HostIP, NetMode, SecurityMode, Ulimit
from bknb.llb.vertex import LinuxResources
from bknb.protocols import Mount, ProcessMount


async def test_output_exit_code_and_input(runner: Any) -> None:
    """Both streams arrive whole and apart, input is read, the code is the command's."""
    script = "cat; echo err >&2; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 7"
    status = await runner.run(runner.process("sh", "-c", script), stdin=b"hello\n")
    assert status.code == 7
    assert runner.output == b"hello\n" + b"".join(b"line %d\n" % i for i in range(2000))
    assert runner.errors == b"err\n"
    assert status.cpu > 0 and status.peak_memory > 0


async def test_a_signal(runner: Any) -> None:
    """Killed by a signal is 128 and its number."""
    assert (await runner.run(runner.process("sh", "-c", "sh -c 'kill -9 $$'; exit $?"))).code == 137


async def test_a_missing_program(runner: Any) -> None:
    """A program that is not there is the step's failure, with the runtime's words in its log."""
    status = await runner.run(runner.process("no-such-program"))
    assert status.code != 0
    assert b"no-such-program" in runner.errors


async def test_what_is_written(runner: Any) -> None:
    """Files of the step land in its layer; the files that the runtime needed do not."""
    await runner.sh("echo x > /new; test -s /etc/hosts; test -e /etc/resolv.conf")
    assert (runner.upper / "new").read_text() == "x\n"
    assert not {"hosts", "resolv.conf"} & {path.name for path in (runner.upper / "etc").iterdir()}


async def test_usual_directories(runner: Any) -> None:
    """What a root lacks is made alike by every runtime, so that layers do not depend on it."""
    await runner.sh("true")
    made = {
        path.name: oct(path.stat().st_mode & 0o7777) for path in runner.upper.iterdir() if path.name != "etc"
    }
    assert made == {"dev": "0o755", "proc": "0o755", "sys": "0o755"}


async def test_users(runner: Any) -> None:
    """By name, with the groups that list it; by numbers; with a group named."""
    found = [
        (await runner.sh("id -u; id -g; id -G", meta={"user": user})).split()
        for user in ("app", "7:8", "app:extra", "5", "")
    ]
    other = "2000" if runner.runtime != "bubblewrap" else "65534"  # it knows one id only; the group holds
    assert found == [
        ["1000", "1001", "1001", other],
        ["7", "8", "8"],
        ["1000", "2000", "2000"],
        ["5", "0", "0"],
        ["0", "0", "0"],
    ]
    with pytest.raises(ExecutorError, match="unable to find user ghost: no matching entries in passwd file"):
        await runner.sh("true", meta={"user": "ghost"})


async def test_working_directory(runner: Any) -> None:
    """One that is missing is made, and belongs to the user."""
    assert await runner.sh("pwd; stat -c %u:%g /a /a/b", meta={"cwd": "/a/b", "user": "app"}) == (
        "/a/b\n1000:1001\n1000:1001\n"
    )


async def test_environment_and_hostname(runner: Any) -> None:
    """The step's variables, then ours; a hostname of its own."""
    out = await runner.sh("echo $A $B; hostname; umask", meta={"env": ("PATH=/bin", "A=1")}, env=("B=2",))
    assert out == "1 2\nbuildkitsandbox\n0022\n"
    assert await runner.sh("hostname", meta={"hostname": "other"}) == "other\n"


async def test_hosts_and_resolver(runner: Any) -> None:
    """Extra hosts are in /etc/hosts, and the resolver's file is ours and cannot be written."""
    out = await runner.sh(
        "cat /etc/hosts /etc/resolv.conf; ! echo x > /etc/hosts",
        meta={"extra_hosts": (HostIP("db", "10.1.2.3"),)}, resolv_conf="nameserver 9.9.9.9\n",
    )  # fmt: skip
    assert "10.1.2.3\tdb\n" in out
    assert "127.0.0.1\tlocalhost buildkitsandbox\n" in out
    assert "nameserver 9.9.9.9\n" in out


async def test_network(runner: Any) -> None:
    """Without a network there is a loopback only; with the host's there are the host's devices."""

    def devices(table: str) -> list[str]:
        return sorted(line.split(":")[0].strip() for line in table.splitlines()[2:])

    assert devices(await runner.sh("cat /proc/net/dev", network=NetMode.NONE)) == ["lo"]
    host = devices(Path("/proc/net/dev").read_text())
    assert devices(await runner.sh("cat /proc/net/dev", network=NetMode.HOST)) == host


async def test_limits(runner: Any) -> None:
    """Ulimits and the size of shared memory."""
    meta = {"ulimit": (Ulimit("nofile", 123, 456), Ulimit("core", -1, -1))}
    out = await runner.sh("ulimit -Sn; ulimit -Hn; mount", meta=meta, shm_size=1 << 20)
    assert out.startswith("123\n456\n")
    assert "size=1024k" in next(line for line in out.splitlines() if " /dev/shm " in line)


async def test_capabilities(runner: Any) -> None:
    """The fourteen of BuildKit, no more; proc is masked."""
    out = await runner.sh("cat /proc/self/status; ! echo 1 > /proc/sys/kernel/panic")
    bits = {
        line.split(":")[0]: int(line.split()[1], 16) for line in out.splitlines() if line.startswith("Cap")
    }
    assert bits["CapEff"] == 0xA80425FB
    if runner.runtime != "bubblewrap":  # there no_new_privs keeps what is beyond out of reach
        assert bits["CapBnd"] == 0xA80425FB
    assert "Seccomp:\t2" in out


@pytest.mark.root
async def test_insecure(runner: Any) -> None:
    """A privileged step may mount; bubblewrap cannot have one."""
    if runner.runtime == "bubblewrap":
        with pytest.raises(UnsupportedError, match="needs crun or runc"):
            await runner.sh("true", security=SecurityMode.INSECURE)
        return
    await runner.sh("mkdir /m; mount -t tmpfs none /m", security=SecurityMode.INSECURE)


async def test_readonly_root(runner: Any) -> None:
    """Nothing can be written to a read-only root."""
    await runner.sh("! touch /x", root_readonly=True)
    assert not (runner.upper / "x").exists()


async def test_mounts(runner: Any, tmp_path: Path) -> None:
    """Trees, parts of trees, read-only ones, tmpfs, in their places; the places are gone afterwards."""
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("content")
    bind = (Mount("bind", str(tmp_path / "tree")),)
    out = await runner.sh(
        "cat /whole/sub/file /part/file /one; ! touch /whole/x; touch /part/y; echo z > /tmpfs/z",
        mounts=(
            ProcessMount("/whole", bind, readonly=True),
            ProcessMount("/part", bind, selector="sub"),
            ProcessMount("/one", bind, selector="/sub/file"),
            ProcessMount("/tmpfs", (Mount("tmpfs", options=("size=65536",)),)),
        ),
    )
    assert out == "content" * 3
    assert (tmp_path / "tree/sub/y").exists()
    assert not {"whole", "part", "one", "tmpfs"} & {path.name for path in runner.upper.iterdir()}


async def test_deep_stubs(runner: Any) -> None:
    """With remove_mount_stubs_recursive the directories above a mount go too, unless something is in them."""
    mounts = (ProcessMount("/a/b/c", (Mount("tmpfs"),)),)
    await runner.sh("true", mounts=mounts, meta={"remove_mount_stubs_recursive": True})
    assert not (runner.upper / "a").exists()
    await runner.sh("touch /a/kept", mounts=mounts, meta={"remove_mount_stubs_recursive": True})
    assert [path.name for path in (runner.upper / "a").iterdir()] == ["kept"]
    await runner.sh("true", mounts=mounts)
    assert [path.name for path in (runner.upper / "a").iterdir()] == ["b"]


async def test_secrets(runner: Any) -> None:
    """A secret has its owner and mode, and never touches the layer."""
    secret = ProcessMount("/run/secrets/key", data=b"s3cret", owner_mode=(1000, 1001, 0o400), readonly=True)
    out = await runner.sh("cat /run/secrets/key; stat -c ' %u:%g %a' /run/secrets/key", mounts=(secret,))
    assert out == "s3cret 1000:1001 400\n"
    assert not [path for path in runner.upper.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


async def test_agent_socket(crun: Any, tmp_path: Path) -> None:
    """An agent answers a user who could not open its socket."""
    place = str(tmp_path / "agent.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    os.chmod(place, 0o600)

    def serve() -> None:
        caller, _ = listener.accept()
        caller.sendall(b"agent: " + caller.recv(100))
        caller.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    mount = ProcessMount("/run/agent", socket=place, owner_mode=(1000, 1001, 0o600))
    meta = {"user": "app", "env": ("PATH=/bin",)}
    out = await crun.sh("stat -c '%F %u %a' /run/agent", mounts=(mount,), meta=meta)
    assert out == "socket 1000 600\n"
    with socket.socket(socket.AF_UNIX) as caller:  # let the thread end
        caller.connect(place)
        caller.sendall(b"x")
        assert caller.recv(100) == b"agent: x"
    thread.join()
    listener.close()


async def test_hostile_links(runner: Any, tmp_path: Path) -> None:
    """Links in the root and in a mounted tree lead nowhere but inside."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/out").symlink_to("/etc")
    (tmp_path / "tree/up").symlink_to("../../../../../../etc")
    bind = (Mount("bind", str(tmp_path / "tree")),)
    for selector in ("out/passwd", "up/passwd"):
        with pytest.raises(PathError):
            await runner.sh("cat /m", mounts=(ProcessMount("/m", bind, selector=selector),))
    evil = tmp_path / "evil"
    shutil.copytree(runner.rootfs / "bin", evil / "bin", symlinks=True)
    for name, target in (("etc", "/../../../../tmp"), ("var", "../../../.."), ("proc", "/outside")):
        (evil / name).symlink_to(target)
    before = {path: sorted(os.listdir(path)) for path in ("/", "/var", str(evil))}
    runner.rootfs = evil
    mounts = (ProcessMount("/var/bknb-evil/x", (Mount("tmpfs"),)),)
    with contextlib.suppress(ExecutorError):  # runc refuses a /proc that is a link
        await runner.run(runner.process("true", mounts=mounts, meta={"cwd": "/var/here"}))
    assert {path: sorted(os.listdir(path)) for path in before} == before
    assert not {"/tmp/hosts", "/tmp/resolv.conf"} & {f"/tmp/{name}" for name in os.listdir("/tmp")}


async def test_cancelling(runner: Any) -> None:
    """A cancelled step is gone when the call returns, in well under a second."""
    started = asyncio.Event()
    task = asyncio.create_task(
        runner.executor.run(
            runner.process("sh", "-c", "echo up; sleep 1000 & sleep 1000"), lambda *_: started.set()
        )
    )
    await started.wait()
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begun < 2
    assert not _left(runner)
    assert (await runner.run(runner.process("true"))).code == 0


async def test_nothing_is_left(runner: Any) -> None:
    """After a step, and a failed one, neither a cgroup nor a file of the shim's is left."""
    await runner.run(runner.process("true"))
    await runner.run(runner.process("false"))
    await runner.run(runner.process("no-such-program"))
    assert not _left(runner)


async def test_many_at_once(crun: Any) -> None:
    """Steps run beside each other."""
    begun = time.monotonic()
    processes = [crun.process("sleep", "1") for _ in range(8)]
    answers = [asyncio.create_task(crun.executor.run(process, crun.see)) for process in processes]
    assert [(await answer).code for answer in answers] == [0] * 8
    assert time.monotonic() - begun < 6


async def test_memory_limit(crun: Any) -> None:
    """Who takes more than the limit is killed, and that is said."""
    if not crun.executor.shim.isolation.cgroups:
        pytest.skip("needs cgroups")
    greedy = "x=a; while :; do x=$x$x; done"
    limits = LinuxResources(memory=32 << 20, memory_swap=32 << 20)
    status = await crun.run(crun.process("sh", "-c", greedy, resources=limits))
    assert (status.code, status.oom) == (137, True), crun.errors


async def test_cgroup_parent(crun: Any) -> None:
    """A step may name the parent of its cgroup; nothing of it is left when the shim has ended."""
    if not crun.executor.shim.isolation.cgroups:
        pytest.skip("needs cgroups")
    group = crun.executor.shim.hello["group"]
    out = await crun.sh("cat /proc/self/cgroup", cgroup_parent="/bknb-test-parent")
    assert f"/bknb-test-parent/{group}/" in out
    await crun.executor.shim.aclose()
    left = [top for top, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(top) == group]
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        if "bknb-test-parent" in directories:
            os.rmdir(os.path.join(top, "bknb-test-parent"))  # made for us, but not ours to remove
    assert not left


def _left(runner: Any) -> list[str]:
    """Cgroups of containers, seen from outside of the shim."""
    group = runner.executor.shim.hello["group"]
    found = []
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        if os.path.basename(top) == group:
            found += [os.path.join(top, name) for name in directories]
    return found
