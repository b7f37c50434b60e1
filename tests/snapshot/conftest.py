"""Both drivers over a real shim, and trees that tests write to and look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bknb.executor.shim import ShimProcess
from bknb.protocols import Mounts
from bknb.snapshot import LayeredSnapshotter, NativeSnapshotter, OverlaySnapshotter

ROOT = Path(__file__).parents[2]
MARKS = {"root": "trusted", "user": "user"}
"""How whiteouts are spelled on a tier."""

INSIDE = """
import json, os, stat, sys
sys.path.insert(0, sys.argv[1])
mounts, code = json.loads(sys.argv[2]), sys.argv[3]
from bknb.shim import calls
from bknb.shim.mounts import FIXED
source = mounts[0]["source"]
if mounts[0]["type"] == "overlay":
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_PRIVATE)
    calls.mount("tmpfs", "/mnt", "tmpfs", 0)
    os.chdir("/mnt")
    os.mkdir("/mnt/tree")
    words = {}
    for number, option in enumerate(o for o in mounts[0]["options"] if "=" in o):
        key, _, value = option.partition("=")
        os.symlink(value, "/mnt/%x" % number)
        words.setdefault(key + "dir", []).append("%x" % number)
    data = [k + "=" + ":".join(v) for k, v in words.items()]
    if open("/proc/self/uid_map").read().split() == ["0", "0", str(2**32 - 1)]:
        data += [k + "=" + v for k, v in FIXED.items()]
    else:
        data.append("userxattr")
    calls.mount("overlay", "/mnt/tree", "overlay", 0, ",".join(data))
    source = "/mnt/tree"
os.chdir(source)
os.umask(0o22)
def show():
    found = {}
    for path, dirs, files in os.walk("."):
        for name in [*dirs, *files]:
            full = os.path.join(path, name)
            s = os.lstat(full)
            what = {"mode": oct(s.st_mode), "owner": [s.st_uid, s.st_gid]}
            if stat.S_ISREG(s.st_mode):
                what["data"] = open(full, errors="replace").read()[:200]
            elif stat.S_ISLNK(s.st_mode):
                what["data"] = os.readlink(full)
            elif stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
                what["data"] = s.st_rdev
            found[full[2:]] = what
    return found
result = None
exec(code)
print(json.dumps(result))
"""


def inside(mounts: Mounts, code: str) -> Any:
    """Run Python in a tree, as its working directory; gives what it put in `result`."""
    told = json.dumps([mount.to_json() for mount in mounts])
    asked = [sys.executable, "-I", "-c", INSIDE, str(ROOT), told, code]
    done = subprocess.run(asked, capture_output=True, text=True, start_new_session=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Lab:
    """A snapshotter, and words to test it with."""

    snapshots: LayeredSnapshotter
    shim: ShimProcess
    root: Path

    async def step(self, name: str, parent: str, code: str) -> None:
        """Commit a snapshot that some Python wrote."""
        mounts = await self.snapshots.prepare(f"{name}-active", parent)
        inside(mounts, code)
        await self.snapshots.commit(name, f"{name}-active")

    async def tree(self, name: str) -> dict[str, dict[str, Any]]:
        """What a committed snapshot shows: path -> mode, owner, data."""
        found: dict[str, dict[str, Any]] = inside(await self.snapshots.view(name), "result = show()")
        return found

    async def paths(self, name: str) -> list[str]:
        """The paths that a committed snapshot shows."""
        return sorted(await self.tree(name))

    async def again(self) -> Lab:
        """A second kernel on the same folder."""
        kind = type(self.snapshots)
        more = kind(
            self.root, self.shim, *([MARKS[self.shim.isolation.tier]] if kind is OverlaySnapshotter else [])
        )  # type: ignore[call-arg]
        await more.sweep()
        return replace(self, snapshots=more)

    def folders(self) -> int:
        """How many layer folders lie on disk."""
        return len(os.listdir(self.root / "layers"))


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[ShimProcess]:
    """A real shim."""
    async with ShimProcess(tmp_path / "state") as process:
        yield process


@pytest.fixture(params=["overlay", "native"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path, shim: ShimProcess) -> AsyncIterator[Lab]:
    """One driver after the other, on an empty folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path / request.param
    made: Callable[[], LayeredSnapshotter]
    if request.param == "overlay":
        if not shim.isolation.overlay:
            pytest.skip("needs a file system that overlayfs can be mounted on")
        made = lambda: OverlaySnapshotter(root, shim, MARKS[shim.isolation.tier])  # noqa: E731
    else:
        made = lambda: NativeSnapshotter(root, shim)  # noqa: E731
    snapshots = made()
    await snapshots.sweep()
    yield Lab(snapshots, shim, root)
    await snapshots.aclose()
