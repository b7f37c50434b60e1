"""The shim as a process: its life, its answers, and that nothing survives it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bknb.errors import ExecutorError, UnsupportedError
from bknb.executor.shim import ShimProcess

LIMIT = 2.0  # seconds in which everything must be gone

KERNEL = """
import asyncio, os, sys
from bknb.executor.run import ShimExecutor
from bknb.executor.shim import ShimProcess
from bknb.llb.ops import Meta, NetMode
from bknb.protocols import Mount, Process

async def main(state, rootfs):
    shim = ShimProcess(state)
    executor = ShimExecutor(shim)
    def output(stream, data):
        print(shim.pid, flush=True)
    os.makedirs(state + "/u"), os.makedirs(state + "/w")
    root = (Mount("overlay", options=(f"lower={rootfs}", f"upper={state}/u", f"work={state}/w")),)
    meta = Meta(args=("sh", "-c", "echo up; sleep 4711 & sleep 4711"), env=("PATH=/bin",), cwd="/")
    await executor.run(Process(id="victim", meta=meta, root=root, network=NetMode.NONE), output)

asyncio.run(main(*sys.argv[1:]))
"""


def processes(marker: str) -> list[int]:
    """Processes that have a text in their command line or environment of mounts."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry))
    return found


def cgroups(pid: int) -> list[str]:
    """Cgroups that belong to a watcher."""
    return [
        top for top, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(top).startswith(f"bknb-{pid}-")
    ]


def mounts(marker: str) -> list[str]:
    """Mounts of any process of this machine that mention a text."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found += [
                    line
                    for line in Path(f"/proc/{entry}/mountinfo").read_text().splitlines()
                    if marker in line
                ]
            except OSError:
                continue
    return found


def wait_until(true: Callable[[], bool]) -> float:
    """Seconds until something holds; more than `LIMIT` if it never did."""
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT:
        if true():
            return time.monotonic() - begun
        time.sleep(0.01)
    return LIMIT + 1


@pytest.fixture
def kernel(rootfs: Path, tmp_path: Path, need: Callable[[str], str]) -> Any:
    """A process that runs a container, and the pid of its watcher."""
    need("crun")
    if os.geteuid() != 0 and subprocess.run(["unshare", "--user", "true"], start_new_session=True).returncode:
        pytest.skip("needs user namespaces for ordinary users")
    state = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(state), str(rootfs)],
        stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    watcher = int(process.stdout.readline())
    yield process, watcher, str(state)
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("victim", ["kernel", "watcher", "shim", "runtime"])
def test_killed(kernel: Any, victim: str) -> None:
    """Whoever is killed with SIGKILL: two seconds later no process, mount, cgroup or namespace is left."""
    process, watcher, state = kernel
    shim = int(Path(f"/proc/{watcher}/task/{watcher}/children").read_text().split()[0])
    assert processes("4711") and mounts(state)
    assert cgroups(watcher) or os.geteuid() != 0
    spaces = {os.readlink(f"/proc/{pid}/ns/net") for pid in processes("4711")} - {
        os.readlink("/proc/self/ns/net")
    }
    assert len(spaces) == 1
    runtime = processes(f"{state}/shim/runtime")
    os.kill(
        {"kernel": process.pid, "watcher": watcher, "shim": shim, "runtime": runtime[0]}[victim],
        signal.SIGKILL,
    )
    if victim == "runtime":  # the kernel hears of it, and ends
        process.wait(timeout=10)

    def gone() -> bool:
        everything = [processes("4711"), processes(state), cgroups(watcher), mounts(state)]
        if victim in ("shim", "watcher"):
            everything[1] = [pid for pid in everything[1] if pid != process.pid]
        return not any(everything)

    assert wait_until(gone) < LIMIT, (processes("4711"), processes(state), cgroups(watcher), mounts(state))
    left = {
        os.readlink(f"/proc/{pid}/ns/net") for pid in os.listdir("/proc") if pid.isdigit() and _reachable(pid)
    }
    assert not spaces & left


def _reachable(pid: str) -> bool:
    return os.path.lexists(f"/proc/{pid}/ns/net") and os.access(f"/proc/{pid}/ns/net", os.R_OK)


async def test_unknown_op(tmp_path: Path) -> None:
    """An op that does not exist is one line."""
    async with ShimProcess(tmp_path) as shim:
        with pytest.raises(UnsupportedError, match=r"no op 'mounts\.nope'"):
            await shim.call("mounts.nope")
        with pytest.raises(UnsupportedError, match=r"no op 'os\.system'"):
            await shim.call("os.system")


async def test_started_again(tmp_path: Path) -> None:
    """When it is killed, a call in flight fails with one line, and the next one starts it anew."""
    async with ShimProcess(tmp_path) as shim:
        first = shim.pid
        assert first is not None
        read, write = os.pipe()
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ExecutorError, match="the process that runs containers ended"):
            while True:
                await shim.call("files.apply", trees=[], actions=[], fds=())
                if shim.pid != first:
                    raise ExecutorError("the process that runs containers ended")
        os.close(read)
        os.close(write)
        assert await shim.call("files.apply", trees=[], actions=[]) == []
        assert shim.pid != first


async def test_closed_and_nothing_left(tmp_path: Path) -> None:
    """After aclose neither process nor cgroup nor file is left, but the empty mount point."""
    shim = ShimProcess(tmp_path)
    await shim.start()
    pid = shim.pid
    await shim.aclose()
    assert not processes(str(tmp_path))
    assert pid is not None and not cgroups(pid)
    assert [path.name for path in tmp_path.iterdir() if path.name != "empty"] in ([], ["shim"])
    assert not any((tmp_path / "shim").iterdir()) if (tmp_path / "shim").exists() else True


async def test_large_requests(tmp_path: Path) -> None:
    """A request larger than any socket buffer gets through, many at once too."""
    (tmp_path / "tree").mkdir()
    tree = [{"type": "bind", "source": str(tmp_path / "tree"), "options": []}]

    def action(number: int) -> dict[str, Any]:
        data = bytes([number]) * 3_000_000
        return {
            "kind": "mkfile", "target": 0, "path": f"/{number}", "mode": 0o644, "data": data, "owner": None,
            "timestamp": -1,
        }  # fmt: skip

    async with ShimProcess(tmp_path / "state") as shim, asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(shim.call("files.apply", trees=[tree], actions=[action(number)]))
    assert sorted(path.stat().st_size for path in (tmp_path / "tree").iterdir()) == [3_000_000] * 6


async def test_cancelled_copy(tmp_path: Path) -> None:
    """A cancelled op ends, and the shim goes on."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(2000):
        (source / str(number)).write_bytes(b"x" * 100)
    copy = {
        "kind": "copy", "target": 0, "source": {"directory": str(source)}, "src": "/", "dest": "/", "owner": None,
        "mode": -1, "follow_symlink": False, "dir_copy_contents": True, "attempt_unpack": False,
        "create_dest_path": True, "allow_wildcard": False, "timestamp": -1, "include_patterns": [],
        "exclude_patterns": [], "always_replace_existing_dest_paths": False, "mode_str": "",
    }  # fmt: skip
    tree = [{"type": "bind", "source": str(target), "options": []}]
    async with ShimProcess(tmp_path / "state") as shim:
        task = asyncio.create_task(shim.call("files.apply", trees=[tree], actions=[copy] * 50))
        while not any(target.iterdir()):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer = await shim.call("files.apply", trees=[tree], actions=[copy])
    assert answer[0]["files"] == 2000


async def test_descriptors_do_not_leak(tmp_path: Path) -> None:
    """A thousand calls leave no descriptor behind on either side."""
    async with ShimProcess(tmp_path) as shim:
        await shim.call("files.apply", trees=[], actions=[])
        watcher = shim.pid
        inner = Path(f"/proc/{watcher}/task/{watcher}/children").read_text().split()[0]

        def count() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{inner}/fd"))

        before = count()
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(1000):
            await shim.call("files.apply", fds=[null, null], trees=[], actions=[])
        os.close(null)
        assert count() == before
