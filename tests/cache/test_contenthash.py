"""Checksums of trees: what is asked for, and trees that are unkind; BuildKit's answers are in conformance."""

from __future__ import annotations

import stat

import pytest

from bknb.cache.contenthash import Entry, Tree, scratch_digest
from bknb.cache.paths import EMPTY
from bknb.digest import Digest
from bknb.errors import PathError
from bknb.keys import ContentSelector

FOLDER = Entry(stat.S_IFDIR | 0o755)


def file(text: str) -> Entry:
    """A file whose digest is known."""
    entry = Entry(stat.S_IFREG | 0o644, size=len(text))
    return Entry(entry.mode, size=entry.size, digest=Digest.of(entry.header + text.encode()))


def unknown(text: str) -> Entry:
    """A file that has not been hashed."""
    return Entry(stat.S_IFREG | 0o644, size=len(text))


def tree(**files: str) -> Tree:
    """A tree of files in folders `a` and `b`."""
    entries = [("/", FOLDER), ("/a", FOLDER), ("/b", FOLDER)]
    return Tree.of(entries + [("/" + name.replace("_", "/"), file(text)) for name, text in files.items()])


def test_only_what_a_query_needs_is_missing() -> None:
    """Files beside the one that is asked for are not hashed."""
    made = Tree.of([("/", FOLDER), ("/a", FOLDER), ("/a/x", unknown("1")), ("/y", unknown("2"))])
    asked = [ContentSelector("/a")]
    wanted = made.missing(asked)
    assert list(wanted) == ["/a/x"] and wanted["/a/x"].startswith(b"namemode420")
    with pytest.raises(ValueError, match="1 files"):
        made.checksum(asked[0])
    made.learn({"/a/x": file("1").digest})
    assert made.checksum(asked[0]) == tree(a_x="1").checksum(asked[0])
    assert made.missing(asked) == {}
    assert list(made.missing([])) == ["/y"]


def test_a_change_changes_what_lies_above_it_only() -> None:
    """A changed file changes its folders up to the root, and no others."""
    made = tree(a_x="1", b_y="2")
    queries = [ContentSelector(path) for path in ("/a", "/b", "/")]
    before = [made.checksum(query) for query in queries]
    made.paths.add("/a/x", file("3"))
    after = [made.checksum(query) for query in queries]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]
    made.paths.add("/a/x", file("1"))
    assert [made.checksum(query) for query in queries] == before


def test_removed_folder_takes_all_with_it() -> None:
    """What lay in a removed folder is not found any more."""
    made = tree(a_x="1", b_y="2")
    whole = made.checksum(ContentSelector("/"))
    made.paths.remove("/b")
    with pytest.raises(PathError, match='"/b/y": not found'):
        made.checksum(ContentSelector("/b/y"))
    assert made.checksum(ContentSelector("/")) != whole


def test_digest_of_all_and_of_nothing() -> None:
    """No selector is the whole tree; a selection of nothing is the empty digest."""
    made = tree(a_x="1")
    assert made.digest(()) == Digest.of_text(made.checksum(ContentSelector("/")))
    assert made.checksum(ContentSelector("/", include=("nothing",))) == EMPTY


def test_a_tree_deeper_than_the_stack() -> None:
    """Neither thousands of nested folders nor a chain of links end in a traceback."""
    entries = [("/", FOLDER)]
    path = ""
    for _ in range(3000):
        path += "/d"
        entries.append((path, FOLDER))
    made = Tree.of([*entries, (path + "/f", file("x"))])
    assert made.checksum(ContentSelector("/")).algorithm == "sha256"
    loop = Tree.of([("/", FOLDER), ("/l", Entry(stat.S_IFLNK | 0o777, linkname="l"))])
    with pytest.raises(PathError, match="too many links"):
        loop.checksum(ContentSelector("/l", follow_links=True))


def test_links_stay_inside() -> None:
    """A link that leads out of the tree ends at its root."""
    made = Tree.of(
        [("/", FOLDER), ("/l", Entry(stat.S_IFLNK | 0o777, linkname="../../../x")), ("/x", file("in"))]
    )
    assert made.checksum(ContentSelector("/l", follow_links=True)) == made.checksum(ContentSelector("/x"))


def test_names_that_are_not_utf8() -> None:
    """Any bytes may be a name."""
    made = Tree.of([("/", FOLDER), ("/\udcff", file("1")), ("/é", file("2"))])
    assert made.checksum(ContentSelector("/\udcff")) == file("1").digest
    assert made.checksum(ContentSelector("/", include=("é",))) != EMPTY


def test_nothing_at_all() -> None:
    """Of an empty input only the root can be asked for."""
    assert scratch_digest(()) == Digest.of_text(EMPTY)
    with pytest.raises(PathError, match="/x: no such file or directory"):
        scratch_digest([ContentSelector("/x")])
