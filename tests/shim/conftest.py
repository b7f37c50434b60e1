"""A real shim for each test, and a caller for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bknb.executor.shim import ShimProcess


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[ShimProcess]:
    """A running shim whose state folder is the test's own."""
    async with ShimProcess(tmp_path / "state") as running:
        yield running


def directory(path: Path) -> list[dict[str, Any]]:
    """A plain directory as a tree."""
    return [{"type": "bind", "source": str(path), "options": []}]
