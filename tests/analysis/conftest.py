"""A cache store for tests of questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb.cache.store import SqliteCacheStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteCacheStore]:
    """The real store, empty."""
    store = SqliteCacheStore(tmp_path / "cache.db")
    yield store
    store.close()
