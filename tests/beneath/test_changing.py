"""Making and removing beneath a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bknb import beneath


def test_makedirs(root: int, place: Path) -> None:
    """Missing directories are made, outermost first, through links and through links to what is not there."""
    made: list[str] = []
    (place / "link").symlink_to("/new/place")
    os.close(beneath.makedirs(root, "link/a/b", 0o711, lambda _, path: made.append(path)))
    assert made == ["/new", "/new/place", "/new/place/a", "/new/place/a/b"]
    assert (place / "new/place/a/b").is_dir()
    with pytest.raises(NotADirectoryError):
        beneath.makedirs(root, "dir/file/x")


def test_makedirs_stays_inside(root: int, place: Path) -> None:
    """What a link out of the root seems to ask for is made inside of it."""
    outside = place.parent / "outside"
    for number, target in enumerate((str(outside), "../outside", "../../../../.." + str(outside))):
        (place / f"l{number}").symlink_to(target)
        os.close(beneath.makedirs(root, f"l{number}/made"))
    assert (place / "outside/made").is_dir() and (place / str(outside)[1:] / "made").is_dir()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_link(root: int, place: Path) -> None:
    """A file gets another name, a link is not followed, and what lies outside gets none."""
    (place / "out").symlink_to("../outside")
    beneath.link(root, "dir/file", root, "again")
    beneath.link(root, "/out", root, "out too")
    assert (place / "again").samefile(place / "dir/file") and (place / "out too").is_symlink()
    with pytest.raises(FileNotFoundError):
        beneath.link(root, "out/secret", root, "stolen")


def test_remove(root: int, place: Path) -> None:
    """A tree goes, with directories that cannot be read; a link goes, its target stays."""
    for number in range(5):
        (place / f"dir/sub/{number}/x").mkdir(parents=True)
    (place / "dir/sub/3/x").chmod(0)
    (place / "dir/sub/link").symlink_to("../../../outside")
    beneath.remove(root, "/dir")
    assert not (place / "dir").exists()
    assert (place.parent / "outside/secret").exists()
    with pytest.raises(FileNotFoundError):
        beneath.remove(root, "dir")
