"""Floor programs: the system calls that a row cannot do without, and nothing around them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bknb.executor import runc, seccomp
from bknb.llb.ops import Meta
from bknb.protocols import Isolation, Process

_libc = ctypes.CDLL(None, use_errno=True)


def cached(folder: Path, database: Path, lookups: int) -> None:
    """Rows a, a3: read the Dockerfile, walk the context, look every key up, and its record."""
    hashlib.sha256((folder / "Dockerfile").read_bytes()).hexdigest()
    for directory, _, names in os.walk(folder):
        for name in names:
            os.lstat(os.path.join(directory, name))
    connection = sqlite3.connect(database)
    for number in range(lookups):
        connection.execute("SELECT value FROM entry WHERE key = ?", (f"key-{number}",)).fetchone()
    connection.close()


def prepare_cached(database: Path, lookups: int) -> None:
    """The table that `cached` looks into."""
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    connection.executemany(
        "INSERT INTO entry VALUES (?, ?)", [(f"key-{n}", "x" * 64) for n in range(lookups)]
    )
    connection.commit()
    connection.close()


class Containers:
    """Rows b and c: mount an overlay over a root, run a process with crun, unmount, remove.

    A process of its own does it, in a mount namespace without the second cgroup tree, where crun would refuse to
    run; the filter is compiled once, as bknb's. `run` tells it what to do and waits.
    """

    def __init__(self, root: Path, lower: Path) -> None:
        script = f"umount /sys/fs/cgroup/unified 2>/dev/null; exec {sys.executable} -m tests.bench.floors {root} {lower}"
        self._process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip

    def run(self, args: Sequence[str], count: int = 1) -> None:
        """Some at once; returns when the last one is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(count, *args, file=self._process.stdin)
        answer = self._process.stdout.readline()
        if answer != "done\n":
            raise RuntimeError(f"the floor program failed: {answer}")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class _Runs:
    """The other end of `Containers`."""

    def __init__(self, root: Path, lower: Path) -> None:
        self.root = root
        self.lower = lower
        self.crun = shutil.which("crun", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or ""
        self.isolation = Isolation("root", "crun", self.crun, overlay=True, id_range=2**32 - 1)
        self.number = 0

    def start(self, args: Sequence[str]) -> tuple[subprocess.Popen[bytes], Path]:
        self.number += 1
        bundle = self.root / str(self.number)
        for name in ("rootfs", "upper", "work"):
            (bundle / name).mkdir(parents=True)
        for name in ("hosts", "resolv.conf"):
            (bundle / name).write_text("")
        self._mount(
            str(bundle / "rootfs"), f"lowerdir={self.lower},upperdir={bundle}/upper,workdir={bundle}/work"
        )
        process = Process("floor", Meta(tuple(args), ("PATH=/bin",), "/"), ())
        text = runc.config(process, self.isolation, bundle=str(bundle), group="", filter=seccomp.default())
        (bundle / "config.json").write_text(text.replace(runc.USER, '{"uid":0,"gid":0}'))
        words = [
            self.crun,
            "--cgroup-manager=disabled",
            "run",
            "--bundle",
            str(bundle),
            f"floor-{os.getpid()}-{self.number}",
        ]
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        ), bundle

    def finish(self, process: subprocess.Popen[bytes], bundle: Path) -> None:
        if process.wait():
            raise RuntimeError("crun failed")
        _libc.umount2(str(bundle / "rootfs").encode(), 2)
        shutil.rmtree(bundle)

    @staticmethod
    def _mount(target: str, options: str) -> None:
        if _libc.mount(b"overlay", target.encode(), b"overlay", 0, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def _serve(root: Path, lower: Path) -> None:
    runs = _Runs(root, lower)
    for line in sys.stdin:
        count, *args = line.split()
        for process, bundle in [runs.start(args) for _ in range(int(count))]:
            runs.finish(process, bundle)
        print("done", flush=True)


def chain(root: Path, steps: int) -> None:
    """Row g4: a folder, a file and a rename for each step."""
    for number in range(steps):
        layer = root / str(number)
        layer.mkdir()
        (layer / "draft").write_text("x")
        (layer / "draft").rename(layer / "file")


def imports() -> None:
    """Row h: a new interpreter that imports what a build needs."""
    subprocess.run(
        [sys.executable, "-c", "import bknb.cli, asyncio, sqlite3, msgspec, google.protobuf, aiohttp"],
        check=True,
    )


def read_lines(text: str) -> None:
    """Row i: look at every line once, and hash what a vertex would be."""
    for line in text.splitlines():
        hashlib.sha256(line.partition(" ")[2].encode()).digest()


def layout(dot: str, command: str) -> None:
    """Row k: the layout program itself."""
    subprocess.run([command, "-Tjson"], input=dot.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
