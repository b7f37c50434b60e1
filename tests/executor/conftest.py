"""A root file system made of busybox, and executors on each runtime that there is."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bknb.executor import isolation
from bknb.executor.run import ShimExecutor
from bknb.executor.shim import ShimProcess
from bknb.llb.ops import Meta
from bknb.protocols import ExitStatus, Mount, Mounts, Process

APPLETS = (
    "sh true false cat echo ls id sleep mount umount unshare touch mkdir rm env stat hostname chroot".split()
)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A directory with busybox and two users; the tests write into overlays on it."""
    busybox = shutil.which("busybox", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin")
    if busybox is None:
        pytest.skip("needs Debian package busybox-static")
    root = tmp_path_factory.mktemp("busybox")
    (root / "bin").mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
    for path in (root, root / "bin", root / "etc"):
        path.chmod(0o755)
    return root


class Runner:
    """Starts containers on an executor, each with an overlay of its own on the same root."""

    def __init__(self, executor: ShimExecutor, rootfs: Path, work: Path) -> None:
        self.executor = executor
        self.rootfs = rootfs
        self.work = work
        self.count = 0
        self.output = b""
        self.errors = b""
        self.runtime = executor.shim.isolation.runtime

    @property
    def upper(self) -> Path:
        """What the last container wrote."""
        return self.work / str(self.count) / "upper"

    def overlay(self) -> Mounts:
        """A fresh writable layer."""
        self.count += 1
        place = self.work / str(self.count)
        for name in ("upper", "work"):
            (place / name).mkdir(parents=True)
        return (
            Mount(
                "overlay",
                options=(f"lower={self.rootfs}", f"upper={place / 'upper'}", f"work={place / 'work'}"),
            ),
        )

    def process(self, *args: str, meta: dict[str, object] | None = None, **fields: object) -> Process:
        """A process as a step would have it."""
        values = {"args": args, "env": ("PATH=/bin",), "cwd": "/", **(meta or {})}
        root = self.overlay()
        return Process(id=f"t{os.getpid()}-{self.count}", meta=Meta(**values), root=root, **fields)  # type: ignore[arg-type]

    def see(self, stream: int, data: bytes) -> None:
        """Collects what is written."""
        if stream == 1:
            self.output += data
        else:
            self.errors += data

    async def run(self, process: Process, stdin: bytes = b"") -> ExitStatus:
        """Run it; `output` and `errors` hold what it wrote."""
        self.output = self.errors = b""
        return await self.executor.run(process, self.see, stdin=stdin)

    async def sh(self, script: str, *, meta: dict[str, object] | None = None, **fields: object) -> str:
        """What a script writes; it must succeed."""
        status = await self.run(self.process("sh", "-ec", script, meta=meta, **fields))
        assert status.code == 0, (status, self.output, self.errors)
        return self.output.decode()


async def _runner(
    name: str, rootfs: Path, tmp_path: Path, need: Callable[[str], str], patch: pytest.MonkeyPatch
) -> AsyncIterator[Runner]:
    if name != "bubblewrap":  # that one comes along
        need(name)
    patch.setattr(isolation, "RUNTIMES", (name,))
    async with ShimProcess(tmp_path / "state") as shim:
        executor = ShimExecutor(shim)
        found = await executor.probe()
        if found.tier == "none":
            pytest.skip("needs user namespaces for ordinary users")
        assert found.runtime == name, found
        yield Runner(executor, rootfs, tmp_path)


@pytest.fixture(params=["crun", "runc", "bubblewrap"])
async def runner(
    request: pytest.FixtureRequest, rootfs: Path, tmp_path: Path, need: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Runner]:  # fmt: skip
    """A runner on each runtime."""
    async for each in _runner(request.param, rootfs, tmp_path, need, monkeypatch):
        yield each


@pytest.fixture
async def crun(
    rootfs: Path, tmp_path: Path, need: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Runner]:
    """A runner on crun, for what does not depend on the runtime."""
    async for each in _runner("crun", rootfs, tmp_path, need, monkeypatch):
        yield each
