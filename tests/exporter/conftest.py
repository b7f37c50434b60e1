"""Results to export without a build: trees on disk, layers made by code, and tools that judge."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bknb.content import DiskContentStore
from bknb.content.images import ImageStore
from bknb.digest import Digest
from bknb.events import Event
from bknb.layers import ShimLayers
from bknb.oci import canonical
from bknb.oci.types import OCI_LAYER, Descriptor
from bknb.platforms import Platform
from bknb.protocols import Compression, Credentials, ExportInput, LayerBlob, Mount, Progress
from bknb.registry.client import RegistryClient
from bknb.registry.seed import applets, find_busybox, layer_tar
from tests.conftest import need
from tests.images import layer
from tests.tools import Accepts, DockerEngine, docker_engine

AMD64 = Platform("linux", "amd64")


@dataclass
class TreeRef:
    """A result: a folder, and the layers that it consists of."""

    tree: str = ""
    blobs: tuple[LayerBlob, ...] = ()
    id: str = "ref"

    async def mounts(self) -> tuple[Mount, ...]:
        return (Mount("bind", self.tree, ("ro",)),)


class FakeRefs:
    """Gives the layers that a `TreeRef` has."""

    async def layers(
        self, ref: Any, compression: Compression, *, progress: Progress | None = None
    ) -> tuple[LayerBlob, ...]:
        return ref.blobs if ref is not None else ()


class TarShim:
    """Does ``trees.tar`` for one folder, as the shim does for mounts."""

    async def call(self, op: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        import asyncio

        assert op == "trees.tar"
        (mount,) = arguments["mounts"]
        await asyncio.to_thread(self._write, os.dup(fds[0]), mount["source"])

    def _write(self, fd: int, source: str) -> None:
        with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(os.listdir(source)):
                tar.add(os.path.join(source, name), name)


@dataclass
class FakeJob:
    """A job that keeps what it is told."""

    id: str = "job"
    events: list[Event] = field(default_factory=list)

    @property
    def session(self) -> Any:
        return self

    async def credentials(self, host: str) -> Credentials | None:
        return None

    def emit(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Any]:
    """What exporters work with: real stores, stand-ins for results and the shim."""
    content = DiskContentStore(tmp_path / "content")
    images = ImageStore(tmp_path / "images.db")
    shim: Any = TarShim()
    layers = ShimLayers(shim, content)
    yield SimpleNamespace(
        content=content, refs=FakeRefs(), layers=layers, shim=shim, image_store=images,
        client=RegistryClient(content, backoff=()),
    )  # fmt: skip
    layers.close()
    images.close()


def blob(content: DiskContentStore, files: dict[str, bytes], *, time: int = 0, **more: Any) -> LayerBlob:
    """A layer of some files."""
    data, diff_id = layer(files, time=time)
    return LayerBlob(Descriptor(OCI_LAYER + "+gzip", content.put(data), len(data)), diff_id, "gzip", **more)


def config(*history: str, cmd: Sequence[str] = ("sh",), platform: Platform = AMD64) -> str:
    """An image config as the frontend makes one: history without times, diff ids of the base only."""
    return canonical.dumps(
        {
            "architecture": platform.architecture, "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": None},
            "history": [{"created_by": text, "comment": "buildkit.dockerfile.v0"} for text in history],
            "config": {"Env": ["PATH=/bin"], "Cmd": list(cmd), "WorkingDir": "/"},
        }
    ).decode()  # fmt: skip


@pytest.fixture
def busybox(parts: Any) -> ExportInput:
    """An image that runs: busybox, and a second layer with what its command prints."""
    need("busybox")
    binary = find_busybox()
    tar = layer_tar(binary.read_bytes(), applets(binary))
    digest = parts.content.put(tar)
    base = LayerBlob(Descriptor(OCI_LAYER, digest, len(tar)), digest, "", 1600000000.5, "base")
    said = blob(parts.content, {"message": b"it runs\n"}, created=1600000001.0, description="COPY message /")
    ref: Any = TreeRef(blobs=(base, said))
    text = config("base", "COPY message /", cmd=("cat", "/message"), platform=Platform.host())
    return ExportInput(ref, None, text)


@pytest.fixture
def accepts(tmp_path: Path) -> Accepts:
    """Tools written elsewhere."""
    return Accepts(tmp_path)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """One Docker Engine for all tests."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with docker_engine(tmp_path_factory.mktemp("docker")) as running:
        yield running


def gathered(data: bytes) -> dict[str, tarfile.TarInfo]:
    """The entries of a tar by name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: info for info in tar}


__all__ = ["AMD64", "Digest", "FakeJob", "TreeRef", "blob", "config", "gathered"]
