"""The paths of a tree through changes and symlinks."""

from __future__ import annotations

import stat

import pytest

from bknb.cache.entries import Entry, clean, to_key, to_path
from bknb.cache.paths import Paths
from bknb.errors import PathError

FOLDER = Entry(stat.S_IFDIR | 0o755)
FILE = Entry(stat.S_IFREG | 0o644, size=1)


def link(target: str) -> Entry:
    """A symlink."""
    return Entry(stat.S_IFLNK | 0o777, linkname=target)


def paths(**entries: Entry) -> Paths:
    """Some paths; an underscore stands for a slash."""
    made = Paths()
    for name, entry in entries.items():
        made.add(name.replace("_", "/"), entry)
    return made


def names(of: Paths) -> list[str]:
    """All paths in order, folders also with the slash of their headers."""
    return [to_path(key) for key in of.in_order()]


def found(of: Paths, path: str, *, follow: bool = True) -> str | None:
    """Where a path leads to, None for nowhere."""
    key, record = of.resolve(to_key(clean(path)), follow)
    return to_path(key) if record is not None else None


def test_filling_is_adding() -> None:
    """Many clean paths at once make what they make one by one, hard links that come first too."""
    entries = [("/a", FOLDER), ("/a/x", Entry(FILE.mode, linkname="/a/y")), ("/a/y", FILE), ("/l", link("a"))]
    filled, added = Paths(), Paths()
    filled.fill((path[1:], entry) for path, entry in entries)
    for path, entry in entries:
        added.add(path, entry)
    assert names(filled) == names(added) == ["", "/", "/a", "/a/", "/a/x", "/a/y", "/l"]
    for made in (filled, added):
        assert made.records[to_key("/a/x")] is made.records[to_key("/a/y")]


def test_a_folder_takes_with_it_what_was_there_before_the_batch() -> None:
    """A removed folder takes what earlier batches have put there, not what its own has."""
    made = paths(a=FOLDER, a_old=FILE)
    made.settle()
    made.add("/a/new", FILE)
    made.remove("/a")
    assert names(made) == ["", "/", "/a/new"]


def test_a_copy_is_changed_alone() -> None:
    """What is added to or removed from a copy leaves the paths that it was copied from alone."""
    made = paths(a=FOLDER, a_x=FILE, b=FILE)
    other = made.copy()
    other.remove("/a")
    other.add("/c", FILE)
    assert names(other) == ["", "/", "/b", "/c"]
    assert names(made) == ["", "/", "/a", "/a/", "/a/x", "/b"]


def test_settling_forgets_the_digests_above_a_change() -> None:
    """Every folder above a changed path is to be digested anew, those beside it are not."""
    made = paths(a=FOLDER, a_x=FILE, b=FOLDER, b_y=FILE)
    made.settle()
    for name in ("", "/a", "/b"):
        made.records[to_key(name)].digest = "known"
    made.add("/a/x", FILE)
    made.settle()
    assert [made.records[to_key(name)].digest for name in ("", "/a", "/b")] == ["", "", "known"]


def test_links_in_a_path_are_followed_inside() -> None:
    """Links lead on from where they are or from the root, never above it; the last one only if asked to."""
    made = paths(a=FOLDER, a_x=FILE, a_up=link("../../a"), l=link("/a/x"), d=link("a"))
    assert found(made, "/d/x") == found(made, "/d/up/up/x") == found(made, "/l") == "/a/x"
    assert found(made, "/l", follow=False) == "/l"
    assert found(made, "/d/none") is None


def test_links_in_a_circle() -> None:
    """Following ends with an error."""
    with pytest.raises(PathError, match="too many links"):
        found(paths(l=link("m"), m=link("l")), "/l")
