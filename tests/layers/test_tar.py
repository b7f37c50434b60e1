"""Times of a tar stream are cut off at an epoch, and nothing else changes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

from bknb.errors import ContentError
from bknb.layers.tar import clamp_times


def archive(format: int) -> bytes:
    """A file of each time, with names, links and records that need more than one header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, mtime in (("old", 100.25), ("new" * 50, 2_000_000.75), ("exact", 1_000_000)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, mtime  # type: ignore[assignment]
            tar.addfile(info, io.BytesIO(name[:1].encode() * 700))
        info = tarfile.TarInfo("link")
        info.type, info.linkname, info.mtime = tarfile.SYMTYPE, "t" * 150, 5_000_000
        tar.addfile(info)
    return out.getvalue()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The same bytes in chunks."""
    return iter([data[at : at + size] for at in range(0, len(data), size)])


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("size", [1 << 20, 511])
def test_times_are_clamped_and_nothing_else(format: int, size: int) -> None:
    """In headers and in records, whatever the chunks."""
    data = archive(format)
    changed = b"".join(clamp_times(pieces(data, size), 1_000_000))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        before = {member.name: member for member in tar}
    with tarfile.open(fileobj=io.BytesIO(changed)) as tar:
        after = {member.name: member for member in tar}
        for name, member in after.items():
            assert member.mtime == min(before[name].mtime, 1_000_000)
            assert (member.size, member.linkname, member.mode) == (
                before[name].size, before[name].linkname, before[name].mode,
            )  # fmt: skip
            if member.isreg():
                file = tar.extractfile(member)
                assert file is not None and file.read() == name[:1].encode() * 700
    assert list(after) == list(before)


def test_what_is_early_enough_stays_byte_for_byte() -> None:
    """So the digest of a layer without late files does not change."""
    data = archive(tarfile.PAX_FORMAT)
    assert b"".join(clamp_times(pieces(data, 4096), 10_000_000)) == data


def test_damage_is_one_line() -> None:
    """Cut short, no tar, absurd records."""
    data = archive(tarfile.PAX_FORMAT)
    for broken in (data[:700], b"junk" * 1000, data.replace(b" mtime=", b" mtime=x", 1)):
        with pytest.raises(ContentError):
            b"".join(clamp_times(pieces(broken, 4096), 1_000_000))
