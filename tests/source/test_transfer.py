"""Edits while a context is copied: at every instant between two system calls, of every kind."""

from __future__ import annotations

import _thread
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bknb.executor.shim import ShimProcess
from bknb.shim import contexts, tarsum, transfer
from bknb.shim.children import Children
from bknb.shim.owners import OnDisk
from bknb.shim.server import Context, Failure
from bknb.shim.transfer import Transfer
from bknb.shim.twins import both
from bknb.shim.walking import signature

pytestmark = pytest.mark.root

@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[ShimProcess]:
    """A running shim."""
    async with ShimProcess(tmp_path / "state") as running:
        yield running


CALLS = ("open", "fstat", "listxattr", "readv", "write", "utime", "close", "stat", "mkdir", "readlink")


class Hooked:
    """The module `os` as `transfer` sees it; something happens before the n-th call."""

    def __init__(self, act: Callable[[], None], instant: int) -> None:
        self.count = 0
        self._act = act
        self._instant = instant

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in CALLS:
            return found

        def call(*args: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self._instant:
                self._act()
            return found(*args, **named)

        return call


class Sync:
    """Looks and syncs of one folder to one tree, as the kernel asks for them."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source = source
        self.target = target
        server = SimpleNamespace(looks={}, lock=_thread.allocate_lock(), owners=OnDisk(), state_dir="")
        self._context = Context(server)  # type: ignore[arg-type]
        self.state = ""
        self.rows: dict[str, Any] = {}

    def look(self, **patterns: list[str]) -> dict[str, Any]:
        """What is not as it was."""
        asked: dict[str, list[str]] = {"include": [], "exclude": [], "follow": [], "withheld": [], **patterns}
        answer = contexts.look(self._context, [], key="k", state=self.state, source=str(self.source), **asked)
        assert answer is not None
        return answer

    def sync(self) -> None:
        """Bring the tree up to date."""
        mounts = [{"type": "bind", "source": str(self.target), "options": ["rw"]}]
        answer = contexts.sync(self._context, [], key="k", state=f"{self.state}+", target=mounts)
        assert answer is not None
        self.state += "+"
        for path in answer["removed"]:
            self._drop(path)
        for row in answer["rows"]:
            if not stat.S_ISDIR(row[1]):
                self._drop(row[0])
            self.rows[row[0]] = row

    def _drop(self, path: str) -> None:
        self.rows = {p: row for p, row in self.rows.items() if p != path and not p.startswith(f"{path}/")}


def files(folder: Path) -> dict[str, bytes | str | None]:
    """Everything in a folder: bytes, where links point, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def make(folder: Path) -> None:
    """A file of several reads, one of one read, an empty one, a folder, a link."""
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "long").write_bytes(b"0123456789" * 5)
    (folder / "d" / "short").write_bytes(b"short")
    (folder / "empty").touch()
    (folder / "link").symlink_to("d/short")


def _rewrite(path: Path) -> None:
    """The same size and times, other bytes."""
    times = path.stat().st_mtime_ns
    path.write_bytes(b"X" * path.stat().st_size)
    os.utime(path, ns=(times, times))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "in it").write_text("x")


def _folder_to_link(path: Path) -> None:
    path.parent.rename(path.parent.parent / "moved")
    path.parent.symlink_to("moved")


EDITS: dict[str, Callable[[Path], None]] = {
    "rewritten": _rewrite,
    "grown": lambda path: path.write_bytes(b"more than there was" * 9),
    "cut": lambda path: path.write_bytes(b"1"),
    "replaced": lambda path: (path.parent / "new").write_bytes(b"new") and (path.parent / "new").rename(path),
    "gone": lambda path: path.unlink(),
    "a folder": _to_folder,
    "a link": lambda path: path.unlink() or path.symlink_to("/etc/passwd"),
    "below a link": _folder_to_link,
    "another mode": lambda path: path.chmod(0o711),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_at_any_instant(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a copy is of its own bytes; the next look sees what is not in it; then both are the same."""
    monkeypatch.setattr(transfer, "CHUNK", 16)
    instants = 1
    number = 0
    while number < instants:
        number += 1
        source, target = tmp_path / f"s{number}", tmp_path / f"t{number}"
        make(source)
        target.mkdir()
        sync = Sync(source, target)
        sync.look()

        def edit(source: Path = source) -> None:
            EDITS[kind](source / "d" / "long")

        hooked = Hooked(edit, number)
        monkeypatch.setattr(transfer, "os", hooked)
        sync.sync()
        monkeypatch.setattr(transfer, "os", os)
        if number == 1:
            instants = hooked.count + 20  # an edit may make for more calls; then none are left to come before
        if hooked.count < number:
            edit()
        _told_is_what_is_there(sync)
        if files(source) != files(target):
            answer = sync.look()
            assert answer["changed"] or answer["removed"], (kind, number)
        else:
            sync.look()
        sync.sync()
        assert files(source) == files(target), (kind, number)
        _told_is_what_is_there(sync)
        assert sync.look()["changed"] == 0
    assert instants > 40


def _told_is_what_is_there(sync: Sync) -> None:
    assert set(files(sync.target)) == set(sync.rows)
    for path, mode, size, link, _, _, digest, _ in sync.rows.values():
        there = sync.target / path
        if digest:
            data = there.read_bytes()
            header = tarsum.header(mode, size=len(data))
            assert (size, digest) == (len(data), "sha256:" + hashlib.sha256(header + data).hexdigest())
        elif there.is_symlink():
            assert link == os.readlink(there)


def test_an_edit_while_the_clock_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of files move in steps: an edit in the step of the copy shows in no time, and is found nevertheless."""
    monkeypatch.setattr(transfer, "CHUNK", 16)
    caught = 0
    for instant in range(1, 40):
        source, target = tmp_path / f"s{instant}", tmp_path / f"t{instant}"
        source.mkdir()
        target.mkdir()
        path = source / "a"
        path.write_bytes(b"0123456789" * 5)
        clock = SimpleNamespace(now=5, edited=5)

        def edit(path: Path = path, clock: SimpleNamespace = clock) -> None:
            clock.edited = clock.now
            _rewrite(path)

        hooked = Hooked(edit, instant)

        def fstat(fd: int, hooked: Hooked = hooked, clock: SimpleNamespace = clock) -> Any:
            found = hooked.__getattr__("fstat")(fd)
            names = ("st_mode", "st_size", "st_mtime_ns", "st_ino", "st_nlink")
            return SimpleNamespace(st_ctime_ns=clock.edited, **{name: getattr(found, name) for name in names})

        def sleep(_: float, clock: SimpleNamespace = clock) -> None:
            clock.now += 1

        seen = SimpleNamespace(**{name: getattr(hooked, name) for name in dir(os) if not name.startswith("__")})
        seen.fstat = fstat
        monkeypatch.setattr(transfer, "os", seen)
        monkeypatch.setattr(transfer, "stamp", lambda clock=clock: clock.now)
        monkeypatch.setattr(
            transfer, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
        )
        roots = [os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in (source, target)]
        copy = Transfer(*roots, OnDisk(), lambda: None)
        copy.folder("", ["a"], SimpleNamespace(links={}, special=set()))  # type: ignore[arg-type]
        copy.settle()
        row = copy.rows[0]
        fd = os.open(path, os.O_RDONLY)
        if row[5] == signature(fstat(fd)):
            assert (target / "a").read_bytes() == path.read_bytes(), instant
        else:
            caught += 1
        for each in (fd, *roots):
            os.close(each)
    assert caught > 5


def test_only_what_changed_is_copied(tmp_path: Path) -> None:
    """One file of many: one row, and the others are not opened."""
    source, target = tmp_path / "s", tmp_path / "t"
    make(source)
    target.mkdir()
    sync = Sync(source, target)
    assert sync.look()["changed"] == 5
    sync.sync()
    answer = sync.look()
    assert (answer["files"], answer["changed"], answer["removed"], answer["bytes"]) == (4, 0, 0, 0)
    (source / "d" / "short").write_text("SHORT!")
    (source / "empty").unlink()
    answer = sync.look()
    assert (answer["files"], answer["copies"], answer["removed"], answer["bytes"]) == (3, 1, 1, 6)
    inode = (target / "d" / "long").stat().st_ino
    sync.sync()
    assert files(source) == files(target) and (target / "d" / "long").stat().st_ino == inode


def test_folders_keep_their_times(tmp_path: Path) -> None:
    """Writing into a folder of the copy does not show in its time."""
    source, target = tmp_path / "s", tmp_path / "t"
    make(source)
    target.mkdir()
    sync = Sync(source, target)
    for text in ("one", "two"):
        (source / "d" / "short").write_text(text)
        (source / "d" / "new").write_text(text)
        os.utime(source / "d", ns=(10**18, 10**18 + 7))
        sync.look()
        sync.sync()
        assert (target / "d").stat().st_mtime_ns == 10**18 + 7
        (source / "d" / "new").unlink()


def test_hard_links_stay_one_file(tmp_path: Path) -> None:
    """Names of one file are names of one file in the copy, whichever of them comes, goes, or is written through."""
    source, target = tmp_path / "s", tmp_path / "t"
    (source / "a").mkdir(parents=True)
    target.mkdir()
    (source / "a" / "x").write_text("1")
    os.link(source / "a" / "x", source / "y")
    sync = Sync(source, target)

    def copied() -> list[tuple[str, str]]:
        sync.look()
        sync.sync()
        assert files(source) == files(target) and sync.look()["changed"] == 0
        return sorted((path, row[3]) for path, row in sync.rows.items() if row[1] & 0o170000 == 0o100000)

    assert copied() == [("a/x", ""), ("y", "a/x")]
    (source / "y").write_text("2")
    assert copied() == [("a/x", ""), ("y", "a/x")]
    assert (target / "a" / "x").stat().st_ino == (target / "y").stat().st_ino
    (source / "a").rename(source / "z")
    assert copied() == [("y", ""), ("z/x", "y")]
    (source / "y").unlink()
    assert copied() == [("z/x", "")]


def test_kinds_change_into_each_other(tmp_path: Path) -> None:
    """A folder becomes a file, a file a link, a link a pipe, and back."""
    source, target = tmp_path / "s", tmp_path / "t"
    make(source)
    target.mkdir()
    sync = Sync(source, target)
    sync.look()
    sync.sync()
    (source / "d" / "long").unlink()
    (source / "d" / "short").unlink()
    (source / "d").rmdir()
    (source / "d").write_text("a file now")
    (source / "link").unlink()
    os.mkfifo(source / "link")
    (source / "empty").unlink()
    (source / "empty").mkdir()
    (source / "empty" / "x").touch()
    sync.look()
    sync.sync()
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*")) == ["d", "empty", "empty/x", "link"]
    assert (target / "d").read_text() == "a file now" and (target / "link").is_fifo()
    assert sync.look()["changed"] == 0 and sorted(sync.rows) == ["d", "empty", "empty/x", "link"]


def test_a_state_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    """A new process is told what there was, and compares with that."""
    source, target = tmp_path / "s", tmp_path / "t"
    make(source)
    target.mkdir()
    first = Sync(source, target)
    first.look()
    first.sync()
    other = Sync(source, target)
    asked: dict[str, Any] = {"key": "k", "state": "+", "source": str(source)}
    asked |= {"include": [], "exclude": [], "follow": [], "withheld": []}
    assert contexts.look(other._context, [], **asked) is None
    seen = [[row[0], row[5], ""] for _, row in sorted(first.rows.items())]
    answer = contexts.look(other._context, [], seen=seen, **asked)
    assert answer is not None and (answer["files"], answer["changed"], answer["removed"]) == (4, 0, 0)
    asked["exclude"] = ["d"]
    answer = contexts.look(other._context, [], seen=seen, **asked)
    assert answer is not None and (answer["files"], answer["changed"], answer["removed"]) == (2, 0, 1)


async def test_many_files_are_copied_by_two_processes(shim: ShimProcess, tmp_path: Path) -> None:
    """All of them, each once, with what is told of them; and what one of the two fails at is said."""
    source, target = tmp_path / "s", tmp_path / "t"
    for number in range(contexts.MANY + 501):
        path = source / f"d{number % 7}" / "e" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}")
    os.link(source / "d3" / "e" / "3", source / "d0" / "again")
    (source / "d6" / "link").symlink_to("e")
    target.mkdir()
    asked: dict[str, Any] = {"key": "k", "source": str(source), "include": [], "exclude": [], "follow": []}
    found = await shim.call("contexts.look", state="", withheld=[], **asked)
    assert found["copies"] == contexts.MANY + 503
    mounts = [{"type": "bind", "source": str(target), "options": ["rw"]}]
    answer = await shim.call("contexts.sync", key="k", state="1", target=mounts)
    assert files(source) == files(target)
    paths = [row[0] for row in answer["rows"]]
    assert sorted(paths) == sorted(files(source))
    for path, mode, size, _, _, _, digest, _ in answer["rows"]:
        if digest:
            data = tarsum.header(mode, size=size) + (target / path).read_bytes()
            assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert (target / "d0" / "again").stat().st_ino == (target / "d3" / "e" / "3").stat().st_ino
    answer = await shim.call("contexts.look", state="1", withheld=[], **asked)
    assert (answer["changed"], answer["removed"]) == (0, 0)


@pytest.mark.parametrize("half", ["here", "there"])
def test_either_of_two_processes_may_fail(half: str) -> None:
    """The failure of one is that of both, and no process is left."""
    children = Children()

    def fail() -> None:
        raise Failure("PathError", f"cannot do it {half}")

    acts: list[Callable[[], Any]] = [lambda: 1, lambda: 2]
    assert both(children, *acts) == (1, 2)
    acts[half == "there"] = fail
    with pytest.raises(Failure, match=f"cannot do it {half}"):
        both(children, *acts)
    with pytest.raises(Failure, match="ended too early"):
        both(children, lambda: 1, lambda: os._exit(3))
    assert not children.running
