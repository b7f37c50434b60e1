"""The files of a result, as a tar and in a folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bknb.errors import ExecutorError, SourceError
from bknb.exporter import open_exporter
from bknb.exporter.local import Folder
from bknb.exporter.trees import read_tree
from bknb.platforms import Platform
from bknb.protocols import ExportInput, ExportRequest
from tests.exporter.conftest import AMD64, FakeJob, TreeRef, gathered

ARM64 = Platform("linux", "arm64")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of every everyday kind."""
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n" * 100_000)
    (root / "bin/tool").chmod(0o4755)
    os.link(root / "bin/tool", root / "bin/same")
    os.symlink("../../etc/passwd", root / "bin/link")
    (root / "locked").mkdir()
    (root / "locked/file").write_bytes(b"x")
    os.mkfifo(root / "pipe")
    (root / "ünï").write_bytes(b"")
    for name in ("bin/tool", "locked/file", "locked", "bin"):
        os.utime(root / name, (1_000_000_000, 1_000_000_000))
    (root / "locked").chmod(0o555)
    return root


def result(tree: Path | str, platform: Platform | None = None, epoch: int | None = None) -> ExportInput:
    """A result with these files."""
    return ExportInput(TreeRef(str(tree)), platform, "", epoch)  # type: ignore[arg-type]


async def export(parts: Any, type_: str, *inputs: ExportInput, **attrs: str) -> dict[str, str]:
    """Both steps of one output."""
    exporter = open_exporter(ExportRequest(type_, {k.replace("_", "-"): v for k, v in attrs.items()}), parts)
    publish = await exporter.export(inputs, FakeJob())
    return dict(await publish())


async def test_local(parts: Any, tree: Path, tmp_path: Path) -> None:
    """Files arrive with modes, times and links, and belong to whoever runs the build; a second time too."""
    out = tmp_path / "out"
    for _ in range(2):
        await export(parts, "local", result(tree), dest=str(out))
        assert (out / "bin/tool").read_bytes() == (tree / "bin/tool").read_bytes()
        assert stat.S_IMODE((out / "bin/tool").stat().st_mode) == 0o4755
        assert (out / "bin/tool").stat().st_ino == (out / "bin/same").stat().st_ino
        assert os.readlink(out / "bin/link") == "../../etc/passwd"
        assert stat.S_ISFIFO((out / "pipe").stat().st_mode)
        assert stat.S_IMODE((out / "locked").stat().st_mode) == 0o555
        assert (out / "ünï").exists()
        for name in ("bin/tool", "locked", "bin"):
            assert (out / name).stat().st_mtime == 1_000_000_000
            assert (out / name).stat().st_uid == os.getuid()


async def test_local_keeps_or_deletes(parts: Any, tree: Path, tmp_path: Path) -> None:
    """What else is in the folder stays; with mode=delete it goes."""
    out = tmp_path / "out"
    (out / "bin").mkdir(parents=True)
    (out / "bin/mine").write_text("1")
    (out / "old/deep").mkdir(parents=True)
    await export(parts, "local", result(tree), dest=str(out))
    assert (out / "bin/mine").exists()
    await export(parts, "local", result(tree), dest=str(out), mode="delete")
    assert sorted(os.listdir(out)) == sorted(os.listdir(tree))
    assert not (out / "bin/mine").exists()


async def test_local_never_leaves_its_folder(parts: Any, tree: Path, tmp_path: Path) -> None:
    """A link in the folder is replaced, not followed; kinds that changed are replaced too."""
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (other / "tool").write_text("untouched")
    os.symlink(other, out / "bin")
    (out / "ünï").mkdir()
    (out / "ünï/full").write_text("")
    (out / "locked").write_text("a file")
    await export(parts, "local", result(tree), dest=str(out))
    assert (other / "tool").read_text() == "untouched"
    assert os.listdir(other) == ["tool"]
    assert (out / "bin/tool").exists()
    assert (out / "ünï").is_file()


async def test_local_platforms(parts: Any, tree: Path, tmp_path: Path) -> None:
    """Several platforms are in folders of their own; without, equal names are one line."""
    out, inputs = tmp_path / "out", (result(tree, AMD64), result(tree, ARM64))
    await export(parts, "local", *inputs, dest=str(out))
    assert sorted(os.listdir(out)) == ["linux_amd64", "linux_arm64"]
    assert (out / "linux_arm64/bin/same").stat().st_nlink == 2
    with pytest.raises(SourceError, match=r"cannot overwrite .* from linux_amd64 with linux_arm64"):
        await export(parts, "local", *inputs, dest=str(tmp_path / "flat"), platform_split="false")
    await export(parts, "local", result(tree, AMD64), dest=str(tmp_path / "one"), platform_split="true")
    assert os.listdir(tmp_path / "one") == ["linux_amd64"]


async def test_epoch(parts: Any, tree: Path, tmp_path: Path) -> None:
    """With SOURCE_DATE_EPOCH every file has that time, the output's own word first."""
    await export(parts, "local", result(tree, epoch=7), dest=str(tmp_path / "out"))
    assert {p.lstat().st_mtime for p in (tmp_path / "out").rglob("*")} == {7}
    file = tmp_path / "out.tar"
    await export(parts, "tar", result(tree, epoch=7), dest=str(file), source_date_epoch="8")
    assert {info.mtime for info in gathered(file.read_bytes()).values()} == {8}


async def test_tar(parts: Any, tree: Path, tmp_path: Path) -> None:
    """One platform's tar is that of the tree; several are in folders."""
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    await export(parts, "tar", result(tree), dest=str(one))
    found = gathered(one.read_bytes())
    assert found["bin/tool"].mode == 0o4755
    assert found["bin/link"].linkname == "../../etc/passwd"
    await export(parts, "tar", result(tree, AMD64), result(tree, ARM64), dest=str(two))
    both = gathered(two.read_bytes())
    assert {name.split("/")[0] for name in both} == {"linux_amd64", "linux_arm64"}
    hard = [info for info in both.values() if info.islnk()]
    assert all(info.linkname in both for info in hard)
    with tarfile.open(two) as tar:
        member = tar.extractfile("linux_arm64/bin/same")
        assert member is not None
        assert member.read() == (tree / "bin/tool").read_bytes()


async def test_scratch(parts: Any, tmp_path: Path) -> None:
    """An empty result is an empty tar, and an empty folder."""
    await export(parts, "tar", ExportInput(None, None, ""), dest=str(tmp_path / "x.tar"))
    assert gathered((tmp_path / "x.tar").read_bytes()) == {}
    await export(parts, "local", ExportInput(None, None, ""), dest=str(tmp_path / "x"))
    assert os.listdir(tmp_path / "x") == []


async def test_places_that_do_not_serve(parts: Any, tree: Path, tmp_path: Path) -> None:
    """A file where a folder shall be, and the other way round: one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="is not a folder"):
        await export(parts, "local", result(tree), dest=str(tmp_path / "file"))
    with pytest.raises(SourceError, match="is a folder"):
        await export(parts, "tar", result(tree), dest=str(tmp_path))
    with pytest.raises(SourceError, match="cannot write"):
        await export(parts, "local", result(tree), dest=str(tmp_path / "file/below"))


async def test_the_shim_breaks_off(parts: Any, tree: Path, tmp_path: Path) -> None:
    """When the shim ends in the middle, its words are what is told, and nothing is left."""

    class Broken:
        async def call(self, op: str, /, *, fds: Any = (), **arguments: Any) -> None:
            os.write(fds[0], b"half a header")
            raise ExecutorError("the shim ended")

    parts.shim = Broken()
    with pytest.raises(ExecutorError, match="the shim ended"):
        await export(parts, "tar", result(tree), dest=str(tmp_path / "x.tar"), source_date_epoch="1")
    with pytest.raises(ExecutorError, match="the shim ended"):
        await export(parts, "local", result(tree), dest=str(tmp_path / "x"))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tar")]


async def test_the_reader_breaks_off(parts: Any, tree: Path) -> None:
    """When the reader fails, the shim is not left hanging on the pipe, and the reader's error is told."""

    def fail(stream: Any) -> None:
        stream.read(1)
        raise SourceError("no more")

    with pytest.raises(SourceError, match="no more"):
        await read_tree(parts.shim, TreeRef(str(tree)), fail)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", "..", "."])
def test_hostile_names(tmp_path: Path, name: str) -> None:
    """Names that lead out of the folder stay in it."""
    (tmp_path / "in").mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc/"))
        info = tarfile.TarInfo(name)
        info.size = 1
        folder = tarfile.TarInfo("etc")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        tar.addfile(info, io.BytesIO(b"x"))
    folder_ = Folder(str(tmp_path / "in"))
    folder_.write(io.BytesIO(buffer.getvalue()), "", None, "", {})
    folder_.close()
    assert os.listdir(tmp_path) == ["in"]
