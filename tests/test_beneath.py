"""Paths beneath a root, resolved by the kernel and by the walk that stands in for it: one suite for both."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb import beneath


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of resolving."""
    if request.param == "openat2" and not beneath.HAS_OPENAT2:
        pytest.skip("needs Linux 5.6")
    monkeypatch.setattr(beneath, "HAS_OPENAT2", request.param == "openat2")
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory outside of which lies a secret."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "root/dir/sub").mkdir(parents=True)
    (tmp_path / "root/dir/file").write_text("inside")
    return tmp_path / "root"


@pytest.fixture
def root(place: Path) -> Iterator[int]:
    """The directory, open."""
    fd = beneath.open_root(str(place))
    yield fd
    os.close(fd)


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
            lambda n=number: beneath.mkdir(root, f"l{n}/made"),
            lambda n=number: beneath.symlink(root, "x", f"l{n}/made"),
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


def test_the_last_link(root: int, place: Path) -> None:
    """stat follows or not, as asked; a link to nowhere is there and is not."""
    (place / "link").symlink_to("nowhere")
    assert stat.S_ISLNK(beneath.stat(root, "link", follow=False).st_mode)
    assert beneath.exists(root, "link") and not beneath.exists(root, "link", follow=True)
    assert beneath.readlink(root, "/link") == "nowhere"
    with pytest.raises(OSError):
        os.close(beneath.open(root, "link", os.O_RDONLY | os.O_NOFOLLOW))


def test_resolve(root: int, place: Path) -> None:
    """The real path; what is missing is kept unless that is an error."""
    (place / "link").symlink_to("/dir/../dir")
    assert beneath.resolve(root, "link/sub/..") == "/dir"
    assert beneath.resolve(root, "/") == beneath.resolve(root, "..") == "/"
    assert beneath.resolve(root, "link/x/y", strict=False) == "/dir/x/y"
    with pytest.raises(FileNotFoundError):
        beneath.resolve(root, "link/x/y")


def test_makedirs(root: int, place: Path) -> None:
    """Missing directories are made, outermost first, through links and through links to what is not there."""
    made: list[str] = []
    (place / "link").symlink_to("/new/place")
    os.close(beneath.makedirs(root, "link/a/b", 0o711, lambda _, path: made.append(path)))
    assert made == ["/new", "/new/place", "/new/place/a", "/new/place/a/b"]
    assert (place / "new/place/a/b").is_dir()
    with pytest.raises(NotADirectoryError):
        beneath.makedirs(root, "dir/file/x")


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


def test_walk(root: int, place: Path) -> None:
    """Directories before what is in them, by name, links not followed, and parts left out on request."""
    (place / "dir/zlink").symlink_to("/")
    (place / "dir/skip/deep").mkdir(parents=True)
    seen = []
    for path, _, entries in beneath.walk(root):
        seen.append((path, [entry.name for entry in entries]))
        entries[:] = [entry for entry in entries if entry.name != "skip"]
    assert seen == [("/", ["dir"]), ("/dir", ["file", "skip", "sub", "zlink"]), ("/dir/sub", [])]


def test_read_is_careful(root: int, place: Path) -> None:
    """A pipe does not block, a directory and too large a file are errors."""
    os.mkfifo(place / "pipe")
    for path, code in (("pipe", errno.EINVAL), ("dir", errno.EINVAL), ("dir/file", errno.EFBIG)):
        with pytest.raises(OSError) as caught:
            beneath.read(root, path, 3)
        assert caught.value.errno == code


def test_names(root: int) -> None:
    """`child` takes one name, never a path; zero bytes are refused."""
    for name in ("a/b", "..", ".", ""):
        with pytest.raises(ValueError, match="not a file's name"):
            beneath.child(root, name)
    with pytest.raises(OSError):
        beneath.open(root, "a\0b")
