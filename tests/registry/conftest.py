"""Registries to test against: our own in this process, and Debian's docker-registry, under one name."""

from __future__ import annotations

import asyncio
import gzip
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.oci import canonical
from bknb.oci.mutate import manifest_for
from bknb.oci.types import OCI_INDEX, OCI_LAYER, Descriptor, Index
from bknb.platforms import Platform
from bknb.registry.server import RegistryServer


def layer(files: dict[str, bytes]) -> tuple[bytes, Digest]:
    """A gzip layer and its diff id."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0), Digest.of(buffer.getvalue())


def make_image(
    store: DiskContentStore, *layers: dict[str, bytes], platform: str = "linux/amd64", oci: bool = True
) -> Descriptor:
    """An image of some files, whole in a store."""
    where, descriptors, diff_ids = Platform.parse(platform), [], []
    for files in layers:
        data, diff_id = layer(files)
        descriptors.append(Descriptor(OCI_LAYER + "+gzip", store.put(data), len(data)))
        diff_ids.append(diff_id)
    config = canonical.dumps(
        {
            "architecture": where.architecture, "os": where.os,
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )  # fmt: skip
    manifest = manifest_for(config, descriptors, oci=oci)
    store.put(config)
    raw = manifest.encode()
    return Descriptor(manifest.media_type, store.put(raw), len(raw), platform=where)


def make_index(store: DiskContentStore, *images: Descriptor) -> Descriptor:
    """An index of images of a store."""
    raw = Index(OCI_INDEX, images).encode()
    return Descriptor(OCI_INDEX, store.put(raw), len(raw))


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
    await asyncio.sleep(0)
