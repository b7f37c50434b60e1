"""What a person may choose, and what a builder is told because of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bknb.api import Preferences
from bknb.errors import UsageError
from bknb.settings import DiskSpace


def test_amounts_of_disk_are_words(tmp_path: Path) -> None:
    """What the store may hold is said as in buildkitd.toml: with a unit, or as a part of the disk."""
    settings = Preferences(
        root=str(tmp_path), gc_max_used_space="1GB", gc_reserved_space="20%", gc_min_free_space=""
    ).settings()
    assert settings.gc_max_used_space == DiskSpace(bytes=1 << 30)
    assert settings.gc_reserved_space == DiskSpace(percentage=20)
    assert settings.gc_min_free_space == DiskSpace()
    with pytest.raises(UsageError, match="'lots' is no amount of disk"):
        Preferences(root=str(tmp_path), gc_max_used_space="lots").settings()
