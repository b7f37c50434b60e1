"""Walking a context."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bknb.errors import PathError
from bknb.shim.sieve import follow_links
from tests.source.scanning import ContextFilter, scan


def _tree(root: Path, *paths: str) -> None:
    for path in paths:
        name, arrow, target = path.partition(" -> ")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            (root / name).symlink_to(target)
        elif name.endswith("/"):
            (root / name).mkdir(exist_ok=True)
        else:
            (root / name).write_text(name)


def _paths(root: Path, **wanted: tuple[str, ...]) -> list[str]:
    return [entry.path for entry in scan(str(root), ContextFilter(**wanted)).entries]


def test_everything_in_the_order_of_names(tmp_path: Path) -> None:
    """Names are sorted in each folder, a folder comes before what is in it."""
    _tree(tmp_path, "b", "a/y", "a/x", "a.txt", "empty/")
    assert _paths(tmp_path) == ["a", "a/x", "a/y", "a.txt", "b", "empty"]


def test_excluded_files_stay_behind(tmp_path: Path) -> None:
    """.dockerignore's rules, exceptions with the folders above them."""
    _tree(tmp_path, "node_modules/a/b.js", "src/a.c", "src/b.o", "docs/x.md", "docs/keep/y.md")
    assert _paths(tmp_path, exclude=("node_modules", "**/*.o", "docs", "!docs/keep")) == [
        "docs",
        "docs/keep",
        "docs/keep/y.md",
        "src",
        "src/a.c",
    ]


def test_included_files_bring_their_folders(tmp_path: Path) -> None:
    """Folders above an included file come along, once, and before it."""
    _tree(tmp_path, "a/b/c.txt", "a/b/d.txt", "a/e/f.txt", "g")
    assert _paths(tmp_path, include=("a/b/c.txt", "a/b/d.txt")) == ["a", "a/b", "a/b/c.txt", "a/b/d.txt"]
    assert _paths(tmp_path, include=("a/*/f.txt",)) == ["a", "a/e", "a/e/f.txt"]


def test_follow_paths_follow_links(tmp_path: Path) -> None:
    """A followed path brings what its links point at, also through folders and wildcards."""
    _tree(
        tmp_path,
        "real/file",
        "link -> real",
        "abs -> /real/file",
        "out -> ../../etc/passwd",
        "one.txt",
        "two.txt -> one.txt",
    )
    assert follow_links(str(tmp_path), ["link/file"]) == ["link", "real/file"]
    assert follow_links(str(tmp_path), ["abs"]) == ["abs", "real/file"]
    assert follow_links(str(tmp_path), ["out"]) == ["etc/passwd", "out"]
    assert _paths(tmp_path, follow=("*.txt",)) == ["one.txt", "two.txt"]
    assert follow_links(str(tmp_path), ["."]) is None


def test_withheld_files_are_counted_and_not_sent(tmp_path: Path) -> None:
    """What the session keeps back is told apart from what was never wanted."""
    _tree(tmp_path, "n.ipynb", ".ipynb_checkpoints/n.ipynb", "src/.ipynb_checkpoints/m.ipynb", "src/a", "x.o")
    found = scan(
        str(tmp_path), ContextFilter(exclude=("*.o",), withheld=("**/.ipynb_checkpoints", "n.ipynb"))
    )
    assert [e.path for e in found.entries] == ["src", "src/a"]
    assert found.withheld == [".ipynb_checkpoints", "n.ipynb", "src/.ipynb_checkpoints"]


def test_hard_links_name_the_first_path(tmp_path: Path) -> None:
    """The second name of a file says which the first one is."""
    _tree(tmp_path, "a")
    os.link(tmp_path / "a", tmp_path / "b")
    assert [(e.path, e.linkname, e.size) for e in scan(str(tmp_path), ContextFilter()).entries] == [
        ("a", "", 1),
        ("b", "a", 0),
    ]


def test_an_edit_that_restores_the_time_is_seen(tmp_path: Path) -> None:
    """Same size and mtime, other bytes: the signature differs."""
    _tree(tmp_path, "a")
    before = scan(str(tmp_path), ContextFilter()).entries[0].signature
    times = os.stat(tmp_path / "a").st_mtime_ns
    (tmp_path / "a").write_text("b")
    os.utime(tmp_path / "a", ns=(times, times))
    assert scan(str(tmp_path), ContextFilter()).entries[0].signature != before


def test_an_unreadable_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be read is named, with the way out."""
    _tree(tmp_path, "secret/a")
    real = os.open

    def refuse(path: str, flags: int, *more: object, **named: object) -> object:
        if path == "secret":  # root may read everything: the kernel's answer is given here
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PathError, match=r"cannot read secret .*dockerignore"):
        scan(str(tmp_path), ContextFilter())
