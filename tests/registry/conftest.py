"""Registries to test against: our own in this process, and Debian's docker-registry, under one name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bknb.content import DiskContentStore
from bknb.registry.server import RegistryServer


@pytest.fixture
def store(tmp_path: Path) -> DiskContentStore:
    """The client's content store, empty."""
    return DiskContentStore(tmp_path / "content")


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RegistryServer]:
    """Our own registry, empty, in this event loop."""
    root = tmp_path / "server"
    async with RegistryServer(root, DiskContentStore(root / "content")) as running:
        yield running


@pytest_asyncio.fixture(params=["own", "docker-registry"])
async def any_registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """`host:port` of an empty registry: the suite runs once for each kind."""
    if request.param == "docker-registry":
        yield request.getfixturevalue("registry").host
        return
    root = tmp_path / "server"
    async with RegistryServer(root, DiskContentStore(root / "content")) as running:
        yield running.host
