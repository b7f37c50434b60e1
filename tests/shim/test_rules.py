"""How what is copied comes out, file by file; whole copies are in test_files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb.patterns import PatternMatcher
from bknb.shim.owners import OnDisk
from bknb.shim.rules import Metadata, Owner, Rules, copy_xattrs


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open directory with the file `x` in it."""
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0o640)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def look(folder: int, name: str = "x") -> os.stat_result:
    """What the disk says of a file."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


@pytest.mark.parametrize(("owner", "plain"), [(None, True), ((0, 0), True), ((1, 0), False)])
def test_plain_is_what_changes_nothing_of_roots_files(owner: Owner, plain: bool) -> None:
    """Root as the owner is no change of what belongs to root; another one is, as are all other rules."""
    assert Rules(owner, None, None).plain is plain
    assert not Rules(owner, 0, None).plain and not Rules(owner, None, 0).plain
    filtered = Rules(owner, None, None)
    filtered.exclude = PatternMatcher.parse(["x"])
    assert not filtered.plain


@pytest.mark.parametrize(("mode", "bits"), [(None, 0o4755), (0o644, 0o644), ("u-x,g+w", 0o4675)])
def test_bits(mode: int | str | None, bits: int) -> None:
    """Its own, those for everything, or its own as a text changes them."""
    assert Metadata(Rules(None, mode, None), OnDisk()).bits(stat.S_IFREG | 0o4755) == bits


def test_a_fresh_file_of_ours_is_left_alone(folder: int) -> None:
    """Owner and mode are set where they are not what the file was created with."""
    metadata = Metadata(Rules(None, 0o600, None), OnDisk())
    metadata.give(folder, "x", look(folder), fresh=True)
    assert stat.S_IMODE(look(folder).st_mode) == 0o640
    metadata.give(folder, "x", look(folder), fresh=False)
    assert stat.S_IMODE(look(folder).st_mode) == 0o600


def test_times(folder: int) -> None:
    """A file's own, or one for everything; also of a symlink, whose target keeps its own."""
    os.symlink("x", "link", dir_fd=folder)
    before = look(folder).st_mtime_ns
    Metadata(Rules(None, None, 7), OnDisk()).set_time(folder, look(folder), "link")
    assert (look(folder, "link").st_mtime_ns, look(folder).st_mtime_ns) == (7, before)
    Metadata(Rules(None, None, None), OnDisk()).set_time(folder, look(folder, "link"), "x")
    assert look(folder).st_mtime_ns == 7


def test_attributes_of_overlays_stay_behind(tmp_path: Path) -> None:
    """Attributes are carried over, those that say how a layer is laid are not."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    other.touch()
    try:
        for key in ("user.kept", "user.overlay.opaque"):
            os.setxattr(one, key, b"y")
    except OSError:
        pytest.skip("this disk has no user attributes")
    left, right = os.open(one, os.O_RDONLY), os.open(other, os.O_RDONLY)
    try:
        copy_xattrs(left, right)
    finally:
        os.close(left)
        os.close(right)
    assert os.listxattr(other) == ["user.kept"]
