"""Lists of files that content keys were taken of."""

from __future__ import annotations

import stat
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from bknb.cache.contenthash import Entry, Tree
from bknb.cache.listing import MAX_FILES, Listing
from bknb.cache.store import SqliteCacheStore
from bknb.digest import Digest
from bknb.keys import ContentSelector

NAMES = ("a", "a/b", "a/c.py", "a/d", "a/d/e.py", "f.py", "g")
SELECTORS = (
    (),
    (ContentSelector("/a"),),
    (ContentSelector("/*.py", wildcard=True),),
    (ContentSelector("/", include=("**/*.py",)),),
    (ContentSelector("/a", exclude=("d",)), ContentSelector("/g", follow_links=True)),
)
FOLDERS = frozenset(("a", "a/d"))


def tree(seeds: dict[str, int], link: str) -> Tree:
    """A small tree; each path's number makes its mode and its bytes."""
    entries = []
    for name in NAMES:
        seed = seeds[name]
        if name in FOLDERS:
            entries.append((name, Entry(stat.S_IFDIR | 0o700 | seed)))
        elif name == "g":
            entries.append((name, Entry(stat.S_IFLNK | 0o777, linkname=link)))
        else:
            entry = Entry(stat.S_IFREG | 0o600 | seed & 7, size=seed)
            entries.append(
                (name, Entry(entry.mode, size=seed, digest=Digest.of(entry.header + bytes([seed]))))
            )
    return Tree.of(entries)


TREES = st.builds(
    tree,
    st.fixed_dictionaries({name: st.integers(1, 3) for name in NAMES}),
    st.sampled_from(["a", "f.py", "none"]),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TREES, TREES, st.sampled_from(SELECTORS[:4]))
def test_lists_differ_where_keys_do(one: Tree, two: Tree, selectors: tuple[ContentSelector, ...]) -> None:
    """Two keys are the same exactly where the files that they stand for are: nothing is left out, nothing added."""
    same = one.digest(selectors) == two.digest(selectors)
    assert (Listing.of(one.files(selectors)) == Listing.of(two.files(selectors))) == same


def test_a_list_names_what_is_selected() -> None:
    """Folders with what is in them, matches of patterns, what a link leads to."""
    found = tree(dict.fromkeys(NAMES, 1), "f.py")
    named = [sorted(found.files(selectors)) for selectors in SELECTORS]
    assert named == [
        ["/a", "/a/b", "/a/c.py", "/a/d", "/a/d/e.py", "/f.py", "/g"],
        ["/a", "/a/b", "/a/c.py", "/a/d", "/a/d/e.py"],
        ["/f.py"],
        ["/a", "/a/c.py", "/a/d", "/a/d/e.py", "/f.py"],
        ["/a", "/a/b", "/a/c.py", "/f.py"],
    ]


def test_a_list_says_nothing_of_what_is_in_a_file() -> None:
    """It goes through text and back, a part of a digest stands for bytes and values, and it is bounded."""
    entry = Entry(stat.S_IFREG | 0o644, 1, 2, 3, xattrs={"user.k": b"value"}, digest=f"sha256:{'ab' * 32}")
    listing = Listing.of({"/x\udcff": (entry, entry.digest)})
    assert Listing.parse(listing.to_text()) == listing and Listing.parse("no") is None is Listing.parse(
        '{"a":1}'
    )
    (file,) = listing.files
    assert (file.path, file.digest, list(file.xattrs)) == ("/x\\xff", "abababababab", ["user.k"])
    assert "value" not in listing.to_text()
    many = Listing.of({f"/{n:06}": (entry, "") for n in range(MAX_FILES + 1)})
    assert (len(many.files), many.cut) == (MAX_FILES, True)


def test_a_long_text_is_made_once_and_kept_whole(tmp_path: object) -> None:
    """Only for a key that is new, in this process and in the file."""
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "x" * 200_000

    path = f"{tmp_path}/cache.db"
    for _ in range(2):
        store = SqliteCacheStore(path)
        store.note_later("sha256:a", make)
        store.note_later("sha256:a", make)
        store.close()
        with closing(SqliteCacheStore(path)) as again:
            assert again.plaintext("sha256:a") == "x" * 200_000
    assert made == [1]
