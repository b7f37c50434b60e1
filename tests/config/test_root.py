"""The state folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bknb.config.root import file_system, state_folder
from bknb.errors import StoreError


def _mounts(tmp_path: Path, kind: str) -> str:
    path = tmp_path / "mountinfo"
    path.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:9 / {tmp_path}/home rw shared:1 - {kind} srv:/x rw\n"
    )
    return str(path)


def test_the_deepest_mount_decides(tmp_path: Path) -> None:
    """A folder is on the file system that is mounted nearest above it."""
    mounts = _mounts(tmp_path, "nfs4")
    assert file_system(f"{tmp_path}/home/me/.local", mounts) == "nfs4"
    assert file_system(f"{tmp_path}/homestead", mounts) == "ext4"


def test_a_network_file_system_is_left_alone(tmp_path: Path) -> None:
    """The state goes to a local folder instead, and that is said."""
    found = state_folder(f"{tmp_path}/home/state", mountinfo=_mounts(tmp_path, "nfs4"))
    assert found.path == f"/var/tmp/bknb-{os.getuid()}"
    assert "network file system (nfs4)" in found.note


def test_the_folder_is_made(tmp_path: Path) -> None:
    """It is made with its parents, for the user alone."""
    found = state_folder(str(tmp_path / "a" / "b"))
    assert found.note == "" and (os.stat(found.path).st_mode & 0o777) == 0o700


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file in the way is told, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be made .*Bknb\.root"):
        state_folder(str(tmp_path / "file" / "state"))
