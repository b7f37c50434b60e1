"""Rows d1 to d3: ``COPY . .`` of a large context, for the first time, with nothing changed, with one file changed.

Everything lies on a tmpfs, for all contestants: ext4 slows down by a multiple after mass deletions. A floor
does what a builder cannot do without, in one process: d1 walks, reads, hashes and writes; d2 walks and compares with what it
knew; d3 does both for the one file, and makes the new tree out of hardlinks to the old one.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bknb.api import Client, Preferences, prune
from tests.bench.measure import Row, in_turn
from tests.bench.peer import Peer, peer
from tests.bench.rows import Bench

SIZES = (6_250, 25_000, 100_000)
IN_FOLDER = 100
SIZE = 1024
DOCKERFILE = "FROM scratch\nWORKDIR /app\nCOPY . .\n"
TMPFS = "/dev/shm"

Known = dict[str, tuple[int, int, int, int, int]]
"""Path -> mode, size, modification and change time, inode."""


def make(folder: Path, count: int) -> None:
    """A context of so many files of 1 KB, no two alike."""
    for number in range(count):
        if number % IN_FOLDER == 0:
            above = folder / f"d{number // (IN_FOLDER * 20)}" / f"e{number // IN_FOLDER}"
            above.mkdir(parents=True)
        (above / f"file{number}.txt").write_bytes(f"{number}\n".encode().ljust(SIZE, b"."))
    (folder / "Dockerfile").write_text(DOCKERFILE)


@dataclass(slots=True)
class Floor:
    """The floor programs of one context; `latest` is the tree that the last copy made."""

    context: Path
    place: Path
    known: Known = field(default_factory=dict)
    latest: Path | None = None

    def first(self) -> None:
        """d1: read, hash, write."""
        self.known = {}
        target = Path(tempfile.mkdtemp(dir=self.place))
        for path, entries in _walk(self.context):
            if path:
                os.mkdir(target / path)
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    name = f"{path}/{entry.name}" if path else entry.name
                    self.known[name] = _signature(entry)
                    _copy(entry.path, f"{target}/{name}")
        self.latest = target

    def unchanged(self) -> list[str]:
        """d2: walk, and compare; what is not as it was."""
        known, changed = self.known, []
        for path, entries in _walk(self.context):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    name = f"{path}/{entry.name}" if path else entry.name
                    signature = _signature(entry)
                    if known.get(name) != signature:
                        known[name] = signature
                        changed.append(name)
        return changed

    def edited(self) -> None:
        """d3: walk, compare, hardlink what is as it was, copy what is not."""
        assert self.latest is not None
        changed = set(self.unchanged())
        before, target = self.latest, Path(tempfile.mkdtemp(dir=self.place))
        for path, entries in _walk(before):
            if path:
                os.mkdir(target / path)
            for entry in entries:
                name = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir(follow_symlinks=False):
                    continue
                if name in changed:
                    _copy(f"{self.context}/{name}", f"{target}/{name}")
                else:
                    os.link(entry.path, f"{target}/{name}")
        self.latest = target

    def clear(self) -> None:
        """Remove what copies have made, but for the last."""
        for path in self.place.iterdir():
            if path != self.latest:
                shutil.rmtree(path)


def _walk(root: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    todo = [""]
    while todo:
        path = todo.pop()
        with os.scandir(f"{root}/{path}") as found:
            entries = list(found)
        yield path, entries
        todo += [
            f"{path}/{entry.name}" if path else entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
        ]


def _signature(entry: os.DirEntry[str]) -> tuple[int, int, int, int, int]:
    found = entry.stat(follow_symlinks=False)
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _copy(source: str, target: str) -> None:
    """A file's bytes, and their hash."""
    fd = os.open(source, os.O_RDONLY)
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        digest = hashlib.sha256()
        while data := os.read(fd, 1 << 18):
            digest.update(data)
            os.write(out, data)
        digest.digest()
    finally:
        os.close(fd)
        os.close(out)


class _Contest:
    """One size: a context, and who builds it."""

    def __init__(self, place: Path, client: Client, peer: Peer | None, bench: Bench, size: int) -> None:
        self.bench = Bench(place, client, peer, bench.numbers, bench.mirror)
        self.size = size
        self.folder = place / f"context-{size}"
        self.folder.mkdir()
        make(self.folder, size)
        floor = place / f"floor-{size}"
        floor.mkdir()
        self.floor = Floor(self.folder, floor)

    def forget(self) -> None:
        """Before a first copy: nobody knows anything."""
        prune(self.bench.client)
        if self.bench.peer is not None:
            self.bench.peer.prune()
        self.floor.latest = None
        self.floor.clear()

    def edit(self) -> None:
        """One file becomes another."""
        self.floor.clear()
        text = f"edit {next(self.bench.numbers)}\n".encode().ljust(SIZE, b".")
        (self.folder / "d0" / "e0" / "file42.txt").write_bytes(text)

    def measure(
        self, floor: Callable[[], object], before: Callable[[], None], rounds: int
    ) -> dict[str, float]:
        """All in turn."""
        contenders = self.bench.contenders(
            lambda: self.bench.build(self.folder, DOCKERFILE), floor, lambda p: p.build(self.folder)
        )
        return in_turn(contenders, before=before, rounds=rounds)


@contextmanager
def _place(bench: Bench) -> Iterator[tuple[Path, Client, Peer | None]]:
    """A client, and a peer where there is one, with all that they keep on a tmpfs."""
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=TMPFS if os.path.isdir(TMPFS) else None))
    client = Client(Preferences(root=str(place / "state"), offline=True))
    try:
        if bench.peer is None:
            yield place, client, None
        else:
            with peer(bench.mirror, place) as found:
                yield place, client, found
    finally:
        client.close()
        shutil.rmtree(place, ignore_errors=True)


def row_d1(bench: Bench) -> Row:
    """The first copy."""
    with _place(bench) as where:
        contest = _Contest(*where, bench, SIZES[-1])
        seconds = contest.measure(contest.floor.first, contest.forget, rounds=3)
    return Row("d1", f"first COPY of {SIZES[-1]:,} files of 1 KB", seconds, {"BuildKit": 0.40, "floor": 2.0})


def row_d2(bench: Bench) -> list[Row]:
    """Nothing changed; at three sizes."""
    rows = []
    with _place(bench) as where:
        for size in SIZES:
            contest = _Contest(*where, bench, size)
            contest.floor.unchanged()
            seconds = contest.measure(contest.floor.unchanged, lambda: None, rounds=5)
            bars = {"BuildKit": 0.35, "floor": 1.4} if size == SIZES[-1] else {}
            rows.append(Row("d2", f"COPY of {size:,} files, nothing changed", seconds, bars))
            shutil.rmtree(contest.folder)
    first, last = rows[0].seconds["bknb"], rows[-1].seconds["bknb"]
    slope = math.log(last / first) / math.log(SIZES[-1] / SIZES[0])
    print(f"d2   slope of log time over log size, {SIZES[0]:,} to {SIZES[-1]:,}: {slope:.2f} (bar 1.1)")
    return rows


def row_d3(bench: Bench) -> Row:
    """One file changed."""
    with _place(bench) as where:
        contest = _Contest(*where, bench, SIZES[-1])
        contest.floor.first()
        seconds = contest.measure(contest.floor.edited, contest.edit, rounds=5)
    return Row("d3", f"COPY of {SIZES[-1]:,} files, one changed", seconds, {"BuildKit": 0.20, "floor": 2.0})


ROWS = {"d1": row_d1, "d2": row_d2, "d3": row_d3}
