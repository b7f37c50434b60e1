"""File actions, done by a real shim on real directories."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bknb.errors import BknbError, PathError
from bknb.executor.shim import ShimProcess

COPY: dict[str, Any] = {
    "kind": "copy", "owner": None, "mode": -1, "follow_symlink": True, "dir_copy_contents": True,
    "attempt_unpack": False, "create_dest_path": True, "allow_wildcard": True, "allow_empty_wildcard": False,
    "timestamp": -1, "include_patterns": [], "exclude_patterns": [],
    "always_replace_existing_dest_paths": False, "mode_str": "", "required_paths": [],
}  # fmt: skip


class Pair:
    """Two directories and a shim: ``src`` is copied from, ``dst`` is written."""

    def __init__(self, shim: ShimProcess, path: Path) -> None:
        self.shim = shim
        self.src = path / "src"
        self.dst = path / "dst"
        self.src.mkdir()
        self.dst.mkdir()

    async def apply(self, *actions: dict[str, Any]) -> Any:
        """Perform actions on ``dst``."""
        trees = [[{"type": "bind", "source": str(each), "options": []}] for each in (self.dst, self.src)]
        return await self.shim.call(
            "files.apply",
            trees=trees,
            actions=[{"target": 0, "source": 1, "timestamp": -1, **a} for a in actions],
        )

    async def copy(self, src: str, dest: str, **fields: Any) -> Any:
        """One copy with the options that a Dockerfile's COPY has."""
        return (await self.apply({**COPY, "src": src, "dest": dest, **fields}))[0]

    def tree(self) -> dict[str, str]:
        """What ``dst`` holds: text of files, "/" for directories, "-> X" for links."""
        found: dict[str, str] = {}
        for path in sorted(self.dst.rglob("*")):
            name = str(path.relative_to(self.dst))
            if path.is_symlink():
                found[name] = f"-> {os.readlink(path)}"
            else:
                found[name] = "/" if path.is_dir() else path.read_text()
        return found


def write(path: Path, text: str = "x", mode: int = 0o644) -> Path:
    """Makes a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def pair(shim: ShimProcess, tmp_path: Path) -> Pair:
    """Two empty directories."""
    return Pair(shim, tmp_path)


async def test_a_file_to_a_name(pair: Pair) -> None:
    """A file takes the name it is copied to, with mode and time of the source."""
    source = write(pair.src / "a", "hello", 0o640)
    os.utime(source, ns=(1_000_000_001, 2_000_000_003))
    assert await pair.copy("/a", "/sub/b") == {"files": 1, "bytes": 5, "digests": []}
    found = (pair.dst / "sub/b").stat()
    assert (pair.tree(), stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (
        {"sub": "/", "sub/b": "hello"}, 0o640, 2_000_000_003,
    )  # fmt: skip


async def test_a_file_into_a_directory(pair: Pair) -> None:
    """A target that is a directory, or ends with a slash, gets the file by its own name."""
    write(pair.src / "a")
    (pair.dst / "there").mkdir()
    await pair.copy("a", "/there")
    await pair.copy("a", "/new/")
    assert pair.tree() == {"there": "/", "there/a": "x", "new": "/", "new/a": "x"}


async def test_contents_of_a_directory(pair: Pair) -> None:
    """COPY of a directory copies what is in it; with dir_copy_contents off it copies the directory itself."""
    write(pair.src / "d/one/file", "1")
    await pair.copy("/d", "/out")
    await pair.copy("/d", "/into/", dir_copy_contents=False)
    assert pair.tree() == {
        "out": "/", "out/one": "/", "out/one/file": "1",
        "into": "/", "into/d": "/", "into/d/one": "/", "into/d/one/file": "1",
    }  # fmt: skip


async def test_the_whole_tree(pair: Pair) -> None:
    """``COPY . .`` of a root onto a root."""
    write(pair.src / "a", "1")
    write(pair.src / "b/c", "2")
    write(pair.dst / "a", "old")
    assert (await pair.copy("/", "/"))["files"] == 2
    assert pair.tree() == {"a": "1", "b": "/", "b/c": "2"}


async def test_what_is_missing(pair: Pair) -> None:
    """A source that is not there is named as BuildKit does."""
    for src in ("/nope", "/no*pe", "/x/y"):
        with pytest.raises(PathError) as caught:
            await pair.copy(src, "/")
        assert str(caught.value) == f'"{src}": not found'
    assert (await pair.copy("/no*", "/", allow_empty_wildcard=True))["files"] == 0


async def test_wildcards(pair: Pair) -> None:
    """Stars match names, not slashes; what matches is copied with its contents."""
    for name in ("a1.txt", "a2.txt", "b.txt", "sub/a3.txt", "sub/deep/a4.txt"):
        write(pair.src / name, name)
    await pair.copy("/a?.txt", "/out/")
    await pair.copy("/*/a*", "/star/")
    await pair.copy("/[b-z].txt", "/class/")
    assert pair.tree() == {
        "out": "/", "out/a1.txt": "a1.txt", "out/a2.txt": "a2.txt",
        "star": "/", "star/a3.txt": "sub/a3.txt", "class": "/", "class/b.txt": "b.txt",
    }  # fmt: skip


async def test_patterns(pair: Pair) -> None:
    """Excluded files stay away; directories come only when something in them does."""
    for name in ("keep/a.txt", "keep/b.md", "drop/b.md", "drop/c.md"):
        write(pair.src / name, name)
    await pair.copy("/", "/in/", include_patterns=["**/*.txt"])
    await pair.copy("/", "/out/", exclude_patterns=["drop", "!drop/c.md"])
    assert pair.tree() == {
        "in": "/", "in/keep": "/", "in/keep/a.txt": "keep/a.txt",
        "out": "/", "out/drop": "/", "out/drop/c.md": "drop/c.md",
        "out/keep": "/", "out/keep/a.txt": "keep/a.txt", "out/keep/b.md": "keep/b.md",
    }  # fmt: skip


@pytest.mark.root
async def test_owners(pair: Pair) -> None:
    """Owners by id, by name out of the tree's own files, and from the source if none is named."""
    write(pair.src / "f")
    os.chown(pair.src / "f", 5, 6)
    write(pair.dst / "etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:1234:4321::/:/bin/sh\n")
    write(pair.dst / "etc/group", "root:x:0:\nstaff:x:77:\n")
    await pair.copy("/f", "/own")
    await pair.copy("/f", "/ids/f", owner={"user": {"id": 7}, "group": None})
    await pair.copy("/f", "/named", owner={"user": {"name": "app", "tree": 0}, "group": None})
    await pair.copy(
        "/f", "/both", owner={"user": {"name": "app", "tree": 0}, "group": {"name": "staff", "tree": 0}}
    )
    await pair.copy("/f", "/unknown", owner={"user": {"name": "nobody-here", "tree": 0}, "group": None})
    owners = {name: ((pair.dst / name).stat().st_uid, (pair.dst / name).stat().st_gid) for name in (
        "own", "ids", "ids/f", "named", "both", "unknown",
    )}  # fmt: skip
    assert owners == {
        "own": (5, 6), "ids": (7, 7), "ids/f": (7, 7), "named": (1234, 4321), "both": (1234, 77),
        "unknown": (0, 0),
    }  # fmt: skip


async def test_modes(pair: Pair) -> None:
    """``--chmod`` by number holds for what is made on the way too; by text it changes what the source has."""
    write(pair.src / "d/run", mode=0o600)
    await pair.copy("/d", "/number/", mode=0o751)
    await pair.copy("/d", "/text/", mode_str="u+x,go=u-w")
    await pair.copy("/d/run", "/special", mode=0o4755)
    modes = {str(p.relative_to(pair.dst)): oct(stat.S_IMODE(p.stat().st_mode)) for p in pair.dst.rglob("*")}
    assert modes == {
        "number": "0o751", "number/run": "0o751", "text": "0o755", "text/run": "0o755",
        "special": "0o4755",
    }  # fmt: skip


async def test_links_and_hardlinks(pair: Pair) -> None:
    """Links are copied as they are; two names of one file stay one file."""
    write(pair.src / "d/file", "1")
    os.link(pair.src / "d/file", pair.src / "d/same")
    (pair.src / "d/link").symlink_to("/etc/shadow")
    await pair.copy("/d", "/")
    assert pair.tree() == {"file": "1", "same": "1", "link": "-> /etc/shadow"}
    assert (pair.dst / "file").stat().st_ino == (pair.dst / "same").stat().st_ino


async def test_links_never_lead_out(pair: Pair, tmp_path: Path) -> None:
    """Links on either side, absolute or climbing, stay inside of their tree."""
    outside = write(tmp_path / "outside/secret", "secret").parent
    write(pair.src / "file", "mine")
    for number, target in enumerate((str(outside), "../outside", "/../../outside")):
        (pair.src / f"in{number}").symlink_to(target)
        (pair.dst / f"out{number}").symlink_to(target)
        with pytest.raises(PathError, match="not found"):
            await pair.copy(f"/in{number}/secret", "/stolen")
        await pair.copy("/file", f"/out{number}/file")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not (pair.dst / "stolen").exists()


async def test_a_directory_is_not_replaced(pair: Pair) -> None:
    """A file never replaces a directory, unless the action says so."""
    write(pair.src / "d/name", "file")
    (pair.dst / "name/inside").mkdir(parents=True)
    with pytest.raises(PathError, match="cannot replace to directory /name with file"):
        await pair.copy("/d", "/")
    await pair.copy("/d", "/", always_replace_existing_dest_paths=True)
    assert pair.tree() == {"name": "file"}


async def test_a_directory_over_a_file(pair: Pair) -> None:
    """A directory cannot be copied onto a file."""
    write(pair.src / "d/sub/x")
    write(pair.dst / "sub")
    with pytest.raises(PathError, match="cannot copy to non-directory: /sub"):
        await pair.copy("/d", "/")


async def test_existing_directories(pair: Pair) -> None:
    """The directory copied onto keeps its mode, those below take the source's."""
    write(pair.src / "d/sub/x")
    (pair.src / "d").chmod(0o711)
    (pair.src / "d/sub").chmod(0o711)
    (pair.dst / "sub").mkdir(mode=0o700)
    pair.dst.chmod(0o750)
    await pair.copy("/d", "/")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (pair.dst, pair.dst / "sub")] == [0o750, 0o711]


async def test_times(pair: Pair) -> None:
    """A fixed time is given to everything, the directories on the way included."""
    write(pair.src / "d/sub/x")
    await pair.copy("/d", "/a/b", timestamp=5_000_000_000)
    assert {path.lstat().st_mtime_ns for path in pair.dst.rglob("*")} == {5_000_000_000}


async def test_digests(pair: Pair) -> None:
    """On request the sha256 of each file is that of the bytes copied."""
    write(pair.src / "d/x", "abc")
    answer = await pair.copy("/d", "/to", digests=True)
    assert answer["digests"] == [("/to/x", hashlib.sha256(b"abc").hexdigest())]


async def test_extended_attributes_and_holes(pair: Pair) -> None:
    """Attributes come along, and so do holes."""
    source = write(pair.src / "d/x")
    os.truncate(source, 8 << 20)
    try:
        os.setxattr(source, "user.colour", b"blue")
    except OSError:
        pytest.skip("needs a disk with extended attributes")
    await pair.copy("/d", "/")
    assert os.getxattr(pair.dst / "x", "user.colour") == b"blue"
    assert (pair.dst / "x").stat().st_size == 8 << 20


async def test_mkdir(pair: Pair) -> None:
    """With and without parents; what exists is left alone."""
    await pair.apply({"kind": "mkdir", "path": "/a/b", "mode": 0o711, "make_parents": True, "owner": None})
    await pair.apply({"kind": "mkdir", "path": "/a/b", "mode": 0o700, "make_parents": False, "owner": None})
    assert stat.S_IMODE((pair.dst / "a/b").stat().st_mode) == 0o711
    with pytest.raises(PathError, match='"/x/y": not found'):
        await pair.apply(
            {"kind": "mkdir", "path": "/x/y", "mode": 0o700, "make_parents": False, "owner": None}
        )


async def test_mkfile_follows_links_inside(pair: Pair, tmp_path: Path) -> None:
    """A file is written through a link, which is resolved inside of the tree."""
    (pair.dst / "etc").mkdir()
    (pair.dst / "link").symlink_to("/etc/file")
    action = {"kind": "mkfile", "path": "/link", "mode": 0o600, "data": b"data\0", "owner": None}
    await pair.apply(action)
    assert (pair.dst / "etc/file").read_bytes() == b"data\0"
    assert stat.S_IMODE((pair.dst / "etc/file").stat().st_mode) == 0o600


async def test_mkfile_writes_files_only(pair: Pair) -> None:
    """A pipe, a device or a directory in its place is one line, and is not opened."""
    os.mkfifo(pair.dst / "pipe")
    (pair.dst / "folder").mkdir()
    for name in ("pipe", "folder"):
        action = {"kind": "mkfile", "path": f"/{name}", "mode": 0o600, "data": b"x", "owner": None}
        with pytest.raises(PathError, match=f"open /{name}: "):
            await pair.apply(action)


async def test_symlink(pair: Pair) -> None:
    """A link says what it was told to say."""
    action = {"kind": "symlink", "old_path": "../anywhere", "new_path": "/l", "owner": None}
    await pair.apply(action)
    assert pair.tree() == {"l": "-> ../anywhere"}
    write(pair.dst / "file")
    with pytest.raises(PathError, match="file exists"):
        await pair.apply({**action, "new_path": "/file"})


async def test_rm(pair: Pair, tmp_path: Path) -> None:
    """Paths and wildcards are removed; a link is, what it points to is not."""
    keep = write(tmp_path / "keep/file")
    for name in ("a/b/c", "x1", "x2"):
        write(pair.dst / name)
    (pair.dst / "link").symlink_to(keep.parent)
    rm = {"kind": "rm", "allow_not_found": False, "allow_wildcard": False}
    await pair.apply({**rm, "path": "/a"}, {**rm, "path": "/x*", "allow_wildcard": True})
    await pair.apply({**rm, "path": "/link", "allow_not_found": True})
    assert (pair.tree(), keep.exists()) == ({}, True)
    with pytest.raises(PathError, match='"/gone": not found'):
        await pair.apply({**rm, "path": "/gone"})
    await pair.apply({**rm, "path": "/gone", "allow_not_found": True})


def archive(members: dict[str, tarfile.TarInfo | bytes]) -> bytes:
    """A tar: bytes are files, a TarInfo is itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in members.items():
            info = tarfile.TarInfo(name) if isinstance(what, bytes) else what
            info.name = name
            if isinstance(what, bytes):
                info.size = len(what)
                info.mtime = 1000
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return out.getvalue()


def link(target: str, kind: bytes) -> tarfile.TarInfo:
    """A link as a member."""
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def zstandard(data: bytes) -> bytes:
    """Compressed with zstd."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.compress(data))


PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard,
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
async def test_unpacking(pair: Pair, pack: Any) -> None:
    """ADD unpacks what is an archive by its content, and copies what is none."""
    data = archive({"d/f": b"1", "d/s": link("f", tarfile.SYMTYPE), "d/h": link("d/f", tarfile.LNKTYPE)})
    (pair.src / "a").write_bytes(pack(data))
    write(pair.src / "b.tar", "no archive")
    await pair.copy("/a", "/out", attempt_unpack=True)
    await pair.copy("/b.tar", "/copied", attempt_unpack=True)
    assert pair.tree() == {
        "out": "/", "out/d": "/", "out/d/f": "1", "out/d/h": "1", "out/d/s": "-> f", "copied": "no archive",
    }  # fmt: skip
    assert (pair.dst / "out/d/f").stat().st_mtime == 1000


@pytest.mark.parametrize(
    "members",
    [
        {"../evil": b"x"},
        {"l": link("../../outside", tarfile.SYMTYPE), "l/evil": b"x"},
        {"h": link("../../outside/secret", tarfile.LNKTYPE)},
        {"l": link("/", tarfile.SYMTYPE), "l/../../evil": b"x"},
    ],
    ids=["name", "through a link", "hardlink", "absolute"],
)
async def test_archives_do_not_escape(pair: Pair, tmp_path: Path, members: dict[str, Any]) -> None:
    """Names and links of a hostile archive write nothing outside of the target."""
    write(tmp_path / "outside/secret", "secret")
    (pair.src / "a.tar").write_bytes(archive(members))
    before = {str(path) for path in tmp_path.rglob("*") if pair.dst not in path.parents}
    with contextlib.suppress(BknbError):
        await pair.copy("/a.tar", "/in/", attempt_unpack=True)
    assert {str(path) for path in tmp_path.rglob("*") if pair.dst not in path.parents} == before
    assert (tmp_path / "outside/secret").read_text() == "secret"


async def test_a_deep_tree(pair: Pair) -> None:
    """Depth is bounded by nothing but the disk: a thousand directories in each other."""
    fd = os.open(pair.src, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    rm = {"kind": "rm", "path": "/d", "allow_not_found": False, "allow_wildcard": False}
    try:
        assert (await pair.copy("/", "/"))["files"] == 0
        await pair.apply(rm)
    finally:  # pytest itself cannot remove it
        await pair.apply({**rm, "target": 1})
    assert pair.tree() == {}
