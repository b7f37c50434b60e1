"""What is beneath a root: the status of paths, what files and links say, all directories."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bknb import beneath


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
