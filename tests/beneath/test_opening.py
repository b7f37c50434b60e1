"""Whatever a path or a link says, what is opened lies beneath the root."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from bknb import beneath


def read(root: int, path: str) -> str:
    """A file's text."""
    return beneath.read(root, path, 1000).decode()


@pytest.mark.parametrize("path", ["dir/file", "/dir/file", "//dir//./file", "../dir/file", "dir/sub/../file"])
def test_spellings(root: int, path: str) -> None:
    """Slashes, dots and climbing above the root all mean the same file."""
    assert read(root, path) == "inside"


@pytest.mark.parametrize(
    "target", ["/dir/file", "dir/file", "../../dir/file", "/../../../../dir/file", "dir/../dir/file"]
)
def test_links_stay_inside(root: int, place: Path, target: str) -> None:
    """Whatever a link says, it is resolved inside."""
    (place / "link").symlink_to(target)
    assert read(root, "link") == "inside"
    (place / "dir/deeper").symlink_to("/link")
    assert read(root, "/dir/deeper") == "inside"


def test_no_way_out(root: int, place: Path) -> None:
    """Neither absolute links, nor climbing ones, nor links of directories lead to the secret."""
    outside = place.parent / "outside"
    for number, target in enumerate(
        (str(outside), "../outside", "../../../../.." + str(outside), "/proc/self/root")
    ):
        (place / f"l{number}").symlink_to(target)
        for path in (f"l{number}/secret", f"/l{number}{outside}/secret"):
            with pytest.raises(OSError) as caught:
                read(root, path)
            assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        for act in (
            lambda n=number: beneath.mknod(root, f"l{n}/made", stat.S_IFREG | 0o600),
            lambda n=number: beneath.remove(root, f"l{n}/secret"),
        ):
            with pytest.raises(OSError):
                act()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_circles(root: int, place: Path) -> None:
    """Links in a circle end with ELOOP."""
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    for act in (
        lambda: read(root, "a"),
        lambda: beneath.resolve(root, "a/x"),
        lambda: beneath.makedirs(root, "a/x"),
    ):
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno == errno.ELOOP


def test_names(root: int) -> None:
    """`child` takes one name, never a path; zero bytes are refused."""
    for name in ("a/b", "..", ".", ""):
        with pytest.raises(ValueError, match="not a file's name"):
            beneath.child(root, name)
    with pytest.raises(OSError):
        beneath.open(root, "a\0b")
