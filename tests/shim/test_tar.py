"""The shim's own tar: what it writes others read, what others write it reads, and damage is an error."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bknb.shim.owners import OnDisk
from bknb.shim.tarread import Reader, TarError
from bknb.shim.tarwrite import header
from bknb.shim.unpack import Unpacker

fast = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
words = st.text(st.sampled_from("abü\n "), min_size=1, max_size=60).filter(
    lambda w: w.strip() not in ("", ".", "..")
)
names = st.lists(words, min_size=1, max_size=6).map("/".join)


def feed(data: bytes) -> tuple[int, threading.Thread]:
    """A pipe that gives some bytes, and the thread that writes them."""
    reader, writer = os.pipe()

    def send() -> None:
        try:
            with open(writer, "wb") as out:
                out.write(data)
        except BrokenPipeError:
            return

    thread = threading.Thread(target=send)
    thread.start()
    return reader, thread


def read_all(data: bytes) -> list[tuple[str, bytes, int, str]]:
    """Name, kind, size and link of every entry, by our reader."""
    reader, thread = feed(data)
    try:
        found, stream = [], Reader(reader)
        while (entry := stream.next()) is not None:
            found.append((entry.name, entry.kind, entry.size, entry.link))
        return found
    finally:
        os.close(reader)
        thread.join()


@given(
    name=names,
    link=names,
    mtime=st.integers(-10, 2**40),
    uid=st.integers(0, 2**32),
    size=st.integers(0, 2**36),
)
@fast
def test_python_reads_what_is_written(name: str, link: str, mtime: int, uid: int, size: int) -> None:
    """Names of any length and alphabet, and numbers that need records."""
    data = header(name, 0o4755, b"2", 0, mtime, link, (uid, 7), 0, {"SCHILY.xattr.user.x": b"\x01\n"})
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.linkname, member.mtime, member.uid) == (name, link, mtime, uid)
        assert member.mode == 0o4755 and member.pax_headers["SCHILY.xattr.user.x"] == "\x01\n"
    assert read_all(data + bytes(1024)) == [(name, b"2", 0, link)]
    plain = header(name, 0o644, b"5", 0, 5, "", (0, 0), 0, {})
    with tarfile.open(fileobj=io.BytesIO(plain + bytes(1024))) as tar:
        assert [member.name for member in tar] == [name]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes_is_read(format: int) -> None:
    """All three dialects, long names and links, large numbers."""
    out = io.BytesIO()
    long = "/".join(["d" * 60] * (2 if format == tarfile.USTAR_FORMAT else 5))
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        info = tarfile.TarInfo(long)
        info.size, info.uid = 3, 2**21 - 1 if format == tarfile.USTAR_FORMAT else 2**31
        tar.addfile(info, io.BytesIO(b"abc"))
        info = tarfile.TarInfo("l")
        info.type, info.linkname = tarfile.SYMTYPE, "t" * (90 if format == tarfile.USTAR_FORMAT else 150)
        tar.addfile(info)
    assert read_all(out.getvalue()) == [(long, b"0", 3, ""), ("l", b"2", 0, info.linkname)]


def some_archive() -> bytes:
    """A layer with everything in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, more in (
            ("d", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, "data" * 200), ("d/" + "n" * 120, tarfile.REGTYPE, "x"),
            ("l", tarfile.SYMTYPE, "d"), ("l/g", tarfile.REGTYPE, "g"), ("h", tarfile.LNKTYPE, "d/f"),
            ("d/.wh.f", tarfile.REGTYPE, ""), ("p", tarfile.FIFOTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = more if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(more) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(more.encode()))
    return out.getvalue()


ARCHIVE = some_archive()


@given(at=st.integers(0, len(ARCHIVE) - 1), junk=st.binary(min_size=1, max_size=600), cut=st.booleans())
@fast
def test_damage_is_an_error_or_harmless(at: int, junk: bytes, cut: bool) -> None:
    """Whatever an archive says, nothing is written outside, and what is raised is foreseen."""
    data = ARCHIVE[:at] + junk + (b"" if cut else ARCHIVE[at + len(junk) :])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        fd = os.open(root, os.O_RDONLY)
        reader, thread = feed(data)
        try:
            Unpacker(fd, OnDisk(), lambda: None).run(reader)
        except (TarError, OSError):
            pass
        finally:
            os.close(reader)
            os.close(fd)
            thread.join()
        assert os.listdir(folder) == ["root"]
