"""Paths are resolved by the kernel and by the walk that stands in for it: every test here runs with both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb import beneath
from bknb.beneath import opening


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of resolving."""
    if request.param == "openat2" and not opening.HAS_OPENAT2:
        pytest.skip("needs Linux 5.6")
    monkeypatch.setattr(opening, "HAS_OPENAT2", request.param == "openat2")
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
