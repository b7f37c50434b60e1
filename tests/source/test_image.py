"""Images as sources: documents first, layers later, names of this store before registries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bknb.content import DiskContentStore
from bknb.content.images import ImageStore
from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.events import Event, StatusEvent
from bknb.llb.marshal import vertex
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.oci.image import chain_id
from bknb.oci.types import Descriptor, Manifest
from bknb.platforms import Platform
from bknb.protocols import Credentials, Fetch, LayerBlob
from bknb.reference import Reference
from bknb.registry.client import RegistryClient
from bknb.registry.server import RegistryServer
from bknb.source.image import OURS, ImageSource
from tests.images import make_image, make_index

AMD64 = Platform("linux", "amd64")


class FakeSession:
    """A client without logins."""

    id = "session"

    async def credentials(self, host: str) -> Credentials | None:
        return None


@dataclass
class FakeJob:
    """A job that keeps what it is told."""

    id: str = "job"
    session: Any = field(default_factory=FakeSession)
    events: list[Event] = field(default_factory=list)
    notes: list[str | None] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def annotate(self, *, note: str | None = None) -> None:
        self.notes.append(note)


@dataclass
class Lazy:
    """What a store was asked to make."""

    layers: tuple[LayerBlob, ...]
    fetch: Fetch
    description: str


class FakeRefs:
    """Makes nothing but remembers."""

    async def from_layers(self, layers: Sequence[LayerBlob], fetch: Fetch, *, description: str) -> Lazy:
        return Lazy(tuple(layers), fetch, description)


@dataclass
class House:
    """A registry and an image source beside it."""

    server: RegistryServer
    content: DiskContentStore
    images: ImageStore
    source: ImageSource
    client: RegistryClient
    remote: DiskContentStore

    async def push(self, name: str, image: Descriptor) -> str:
        """Put an image of `remote` into the registry; gives its name."""
        text = f"{self.server.host}/{name}"
        async with RegistryClient(self.remote) as pusher:
            await pusher.push(Reference.parse(text), image)
        return text


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A registry, an empty store, and a client between them."""
    content = DiskContentStore(tmp_path / "content")
    images = ImageStore(tmp_path / "images.db")
    async with (
        RegistryServer(tmp_path / "server", DiskContentStore(tmp_path / "server/content")) as server,
        RegistryClient(content, backoff=()) as client,
    ):
        source = ImageSource(FakeRefs(), content, client, images, AMD64)  # type: ignore[arg-type]
        yield House(server, content, images, source, client, DiskContentStore(tmp_path / "remote"))
    images.close()


def image_op(name: str, platform: Platform = AMD64, **attrs: str) -> Vertex:
    """The vertex of an image."""
    named = {f"image.{key}": value for key, value in attrs.items()}
    return vertex(SourceOp(f"docker-image://{name}", named), platform=platform)


async def test_config_then_lazy_layers(house: House) -> None:
    """The config comes with the documents; a layer only when it is fetched, and then it is shown."""
    image = make_image(house.remote, {"a": b"1" * 2_000_000}, {"b": b"2"})
    name, job = await house.push("app:1", image), FakeJob()
    answer = await house.source.resolve_image_config(job, name, platform=AMD64, resolve_mode="default")
    assert (answer.reference, answer.digest) == (name, image.digest)
    op = image_op(f"{name}@{image.digest}")
    lazy: Any = await house.source.snapshot(op, job)
    assert lazy.description == f"pulled from {name}@{image.digest}"
    assert [layer.descriptor.digest for layer in lazy.layers] == [
        layer.digest for layer in Manifest.parse(house.remote.read(image.digest)).layers
    ]
    first = lazy.layers[0]
    assert (first.compressor, house.content.info(first.descriptor.digest)) == ("gzip", None)
    await lazy.fetch(first.descriptor, None)
    assert house.content.info(first.descriptor.digest) is not None
    last = [event for event in job.events if isinstance(event, StatusEvent)][-1]
    assert (last.vertex, last.id, last.current) == (op.digest, first.descriptor.digest, first.descriptor.size)
    assert last.completed is not None


async def test_two_keys(house: House) -> None:
    """The first key is the manifest's; the second is the layers', whatever the manifest."""
    one = make_image(house.remote, {"a": b"1"})
    two = make_image(house.remote, {"a": b"1"}, oci=False)
    assert one.digest != two.digest
    keys = []
    for name, image in (("x:1", one), ("x:2", two)):
        op = image_op(await house.push(name, image))
        keys.append([found async for found in house.source.cache_maps(op, FakeJob())])
    assert keys[0][0].digest != keys[1][0].digest
    assert keys[0][1].digest == keys[1][1].digest
    assert [found.final for found in keys[0]] == [False, True]


async def test_index_by_platform(house: House) -> None:
    """Of an index the platform's image is taken; another platform is one line that names what there is."""
    amd = make_image(house.remote, {"a": b"amd"})
    arm = make_image(house.remote, {"a": b"arm"}, platform="linux/arm64")
    name = await house.push("multi:1", make_index(house.remote, amd, arm))
    pulled = await house.source.pull(FakeJob(), name, Platform.parse("linux/arm64/v8"))
    assert (pulled.manifest.digest, pulled.image.config.platform.architecture) == (arm.digest, "arm64")
    with pytest.raises(
        SourceError, match="no match for platform linux/s390x in manifest: it has linux/amd64"
    ):
        await house.source.pull(FakeJob(), name, Platform.parse("linux/s390x"))


async def test_names_of_this_store_come_first(house: House) -> None:
    """A name that `-t` gave is used without asking anybody, and said so; `--pull` asks the registry."""
    ours = make_image(house.content, {"a": b"ours"})
    theirs = make_image(house.remote, {"a": b"theirs"})
    name = await house.push("app:latest", theirs)
    house.images.put(str(Reference.parse(name)), ours)
    job = FakeJob()
    for mode, expected, note in (("default", ours, OURS), ("local", ours, OURS), ("pull", theirs, "")):
        answer = await house.source.resolve_image_config(job, name, platform=None, resolve_mode=mode)
        assert (answer.digest, answer.note) == (expected.digest, note)
    _ = [found async for found in house.source.cache_maps(image_op(name), job)]
    assert job.notes == [OURS]


async def test_pinned_images_need_no_registry(house: House) -> None:
    """A digest whose documents are here is not asked for again."""
    image = make_image(house.remote, {"a": b"1"})
    name = await house.push("app:1", image)
    await house.source.pull(FakeJob(), name, AMD64)
    await house.server.aclose()
    pulled = await house.source.pull(FakeJob(), f"{name}@{image.digest}", AMD64)
    assert pulled.target.digest == image.digest
    with pytest.raises(SourceError, match="cannot reach"):
        await house.source.pull(FakeJob(), name, AMD64)


async def test_asked_at_once_answered_once(house: House) -> None:
    """Many who ask for one image at the same time make one look-up; a failure is told to all."""
    image = make_image(house.remote, {"a": b"1"})
    name = await house.push("app:1", image)
    calls = 0
    resolve = house.client.resolve

    async def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return await resolve(*arguments)

    house.client.resolve = counted  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(house.source.pull(FakeJob(), name, AMD64))
    assert calls == 1
    errors = await asyncio.gather(
        *(house.source.pull(FakeJob(), name + "none", AMD64) for _ in range(3)), return_exceptions=True
    )
    assert calls == 2
    assert all(isinstance(error, SourceError) for error in errors)


async def test_limits_and_checksums(house: House) -> None:
    """A layer limit cuts the image; a wrong checksum or limit is one line."""
    image = make_image(house.remote, {"a": b"1"}, {"b": b"2"})
    name = await house.push("app:1", image)
    lazy: Any = await house.source.snapshot(image_op(name, layerlimit="1"), FakeJob())
    assert len(lazy.layers) == 1
    for attrs, message in (
        ({"layerlimit": "3"}, "layer limit 3 is greater than the number of layers in the image 2"),
        ({"layerlimit": "-1"}, "invalid layer limit '-1'"),
        ({"checksum": Digest.of(b"x")}, "does not match expected checksum"),
        ({"resolvemode": "odd"}, "invalid resolvemode: odd"),
    ):
        with pytest.raises(SourceError, match=message):
            await house.source.snapshot(image_op(name, **attrs), FakeJob())


async def test_image_without_layers(house: House) -> None:
    """An empty image is scratch."""
    name = await house.push("empty:1", make_image(house.remote))
    assert await house.source.snapshot(image_op(name), FakeJob()) is None


@pytest.mark.parametrize("name", ["UPPER", "a b", "x@sha256:1", ""])
async def test_not_a_name(house: House, name: str) -> None:
    """What is no image name is one line."""
    with pytest.raises(SourceError, match="is not an image name"):
        await house.source.pull(FakeJob(), name, AMD64)


async def test_config_that_does_not_fit(house: House) -> None:
    """A config with other layers than the manifest is refused."""
    image = make_image(house.remote, {"a": b"1"})
    manifest = Manifest.parse(house.remote.read(image.digest))
    raw = Manifest(manifest.media_type, manifest.config, manifest.layers * 2).encode()
    name = await house.push("odd:1", Descriptor(manifest.media_type, house.remote.put(raw), len(raw)))
    with pytest.raises(SourceError, match="the manifest has 2 layers, the image config 1"):
        await house.source.pull(FakeJob(), name, AMD64)


def test_chain_id() -> None:
    """The chain id is the hash of the chain so far and the next layer."""
    a, b = Digest.of(b"a"), Digest.of(b"b")
    assert chain_id([a, b]) == Digest.of_text(f"{a} {b}")
