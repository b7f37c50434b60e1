"""Trees that are mounted: both ways of mounting an overlay, and nothing attached anywhere afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bknb.errors import SnapshotError
from bknb.executor import shim as shim_module
from bknb.executor.shim import ShimProcess

pytestmark = pytest.mark.root

MKFILE = {"kind": "mkfile", "target": 0, "mode": 0o644, "data": b"x", "owner": None, "timestamp": -1}
RM = {"kind": "rm", "target": 0, "allow_not_found": False, "allow_wildcard": False}


@pytest.fixture(params=["fsopen", "mount"])
def style(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Mounting as new kernels do it and as old ones do; the shim is told by a changed constant."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if request.param == "mount":
        refuse = "def refuse(*_):\n    raise OSError(38, 'Function not implemented')\ncalls.fsopen = refuse\n"
        start, end = shim_module.BOOT.split("from bknb.shim.main")
        boot = f"{start}from bknb.shim import calls\n{refuse}from bknb.shim.main{end}"
        monkeypatch.setattr("bknb.executor.shim.BOOT", boot)
    return str(request.param)


def overlay(path: Path, lowers: list[Path]) -> list[dict[str, Any]]:
    """A writable overlay."""
    for name in ("upper", "work"):
        (path / name).mkdir(parents=True, exist_ok=True)
    options = [f"lower={lower}" for lower in lowers] + [f"upper={path}/upper", f"work={path}/work"]
    return [{"type": "overlay", "source": "", "options": options}]


async def test_overlays(style: str, tmp_path: Path) -> None:
    """Odd names, deletions and additions; the lower layers stay as they were."""
    lowers = [tmp_path / f"layer {number}: a,b\\c=d" for number in range(3)]
    for number, lower in enumerate(lowers):
        lower.mkdir()
        (lower / f"file{number}").write_text(str(number))
        (lower / "same").write_text(str(number))
    tree = overlay(tmp_path / "over", lowers)
    copy_all = {"kind": "rm", "path": "/file1"}
    async with ShimProcess(tmp_path / "state") as shim:
        assert shim.hello["overlay"] and shim.hello["overlay_style"] == style
        await shim.call("files.apply", trees=[tree], actions=[{**RM, **copy_all}, {**MKFILE, "path": "/new"}])
        assert sorted(path.name for path in (tmp_path / "over/upper").iterdir()) == ["file1", "new"]
        assert (tmp_path / "over/upper/file1").is_char_device()
        assert not [
            line
            for line in Path(f"/proc/{_inner(shim)}/mountinfo").read_text().splitlines()
            if " - overlay " in line
        ]
    assert (lowers[1] / "file1").exists()


async def test_many_layers(style: str, tmp_path: Path) -> None:
    """Five hundred layers, which no page of options would hold; one more is refused in one line."""
    lowers = [tmp_path / ("l" * 100) / str(number) for number in range(501)]
    for lower in lowers:
        lower.mkdir(parents=True)
    async with ShimProcess(tmp_path / "state") as shim:
        tree = overlay(tmp_path / "over", lowers[:499])
        await shim.call("files.apply", trees=[tree], actions=[{**MKFILE, "path": "/new"}])
        assert (tmp_path / "over/upper/new").exists()
        with pytest.raises(SnapshotError, match="501 layers; the kernel takes 500"):
            await shim.call(
                "files.apply", trees=[overlay(tmp_path / "o2", lowers)], actions=[{**MKFILE, "path": "/n"}]
            )


async def test_what_cannot_be_mounted(tmp_path: Path) -> None:
    """A layer that is not there is one line, and leaves nothing mounted."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    async with ShimProcess(tmp_path / "state") as shim:
        tree = overlay(tmp_path / "over", [tmp_path / "missing"])
        with pytest.raises(SnapshotError, match="cannot mount overlay"):
            await shim.call("files.apply", trees=[tree], actions=[{**MKFILE, "path": "/new"}])
        with pytest.raises(SnapshotError):
            bind = [{"type": "bind", "source": str(tmp_path / "missing"), "options": []}]
            await shim.call("files.apply", trees=[bind], actions=[{**MKFILE, "path": "/new"}])


def _inner(shim: ShimProcess) -> str:
    return Path(f"/proc/{shim.pid}/task/{shim.pid}/children").read_text().split()[0]
