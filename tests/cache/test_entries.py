"""What a tree keeps of a path, and how paths are spelled and sorted."""

from __future__ import annotations

import stat

from bknb.cache.entries import Entry, Record, clean, to_key, to_path


def test_clean() -> None:
    """Paths are absolute, without dots and trailing slashes."""
    assert [clean(path) for path in ("/", "a", "/a/", "//a/../b", "..")] == ["", "/a", "/a", "/b", ""]


def test_keys_sort_a_folder_before_what_shares_its_beginning() -> None:
    """A folder, its header and what is in it come before a name that goes on where the folder's ends."""
    paths = ["/a-b", "/a/x", "/a", "/a/", "/a/\udcff"]
    assert [to_path(key) for key in sorted(map(to_key, paths))] == ["/a", "/a/", "/a/x", "/a/\udcff", "/a-b"]


def test_only_a_symlink_is_a_link() -> None:
    """What a hard link is linked to is nothing to follow."""
    symlink = Record(Entry(stat.S_IFLNK | 0o777, linkname="x"))
    hardlink = Record(Entry(stat.S_IFREG | 0o644, linkname="x"))
    assert (symlink.link, hardlink.link, Record(None, folder=True).link) == ("x", None, None)
