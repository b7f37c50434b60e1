"""A client on a state folder of its own, reaching no registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb.api import Client, Preferences
from tests.conftest import need


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """One builder for one test, with an empty cache."""
    need("busybox")
    client = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    yield client
    client.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty folder for COPY."""
    folder = tmp_path / "context"
    folder.mkdir()
    return folder
