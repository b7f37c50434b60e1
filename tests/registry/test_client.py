"""The client, against our own registry and against Debian's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.errors import ContentError, RegistryError
from bknb.oci.image import select
from bknb.oci.types import Descriptor, Index, Manifest
from bknb.platforms import Platform
from bknb.reference import Reference
from bknb.registry.client import RegistryClient
from bknb.registry.server import RegistryServer
from bknb.settings import HostSettings
from tests.images import make_image, make_index


def client(store: DiskContentStore, registries: dict[str, HostSettings] | None = None) -> RegistryClient:
    """A client that does not wait between retries."""
    return RegistryClient(store, registries, backoff=(0, 0))


async def test_push_then_pull(any_registry: str, store: DiskContentStore, tmp_path: Path) -> None:
    """What was pushed is resolved by tag, and comes back to the byte in another store."""
    image = make_image(store, {"a": b"1" * 3_000_000}, {"b": b"2"})
    name = Reference.parse(f"{any_registry}/some/image:v1")
    told: list[tuple[str, int, int]] = []
    async with client(store) as pusher:
        await pusher.push(name, image, progress=lambda *said: told.append(said))
    assert told
    other = DiskContentStore(tmp_path / "other")
    async with client(other) as puller:
        found = await puller.resolve(name)
        assert found.descriptor.digest == image.digest
        assert found.descriptor.size == image.size
        manifest = Manifest.parse(await puller.fetch_document(name, found.descriptor))
        for blob in (manifest.config, *manifest.layers):
            await puller.fetch(name, blob)
            assert other.read(blob.digest) == store.read(blob.digest)
        assert await puller.tags(name) == ("v1",)


async def test_index_push_and_platform(any_registry: str, store: DiskContentStore, tmp_path: Path) -> None:
    """An index goes with all that it names, and the platform's manifest is found through it."""
    amd = make_image(store, {"a": b"amd"})
    arm = make_image(store, {"a": b"arm"}, platform="linux/arm64")
    index = make_index(store, amd, arm)
    name = Reference.parse(f"{any_registry}/multi:latest")
    async with client(store) as pusher:
        await pusher.push(name, index)
    async with client(DiskContentStore(tmp_path / "other")) as puller:
        found = await puller.resolve(name)
        read = Index.parse(await puller.fetch_document(name, found.descriptor))
        chosen = select(read, Platform.parse("linux/arm64"))
        assert chosen is not None
        assert chosen.digest == arm.digest
        assert await puller.fetch_document(name, chosen) == store.read(arm.digest)


async def test_resolve_by_digest(any_registry: str, store: DiskContentStore) -> None:
    """A pinned name is resolved to its digest, whatever its tag says."""
    image = make_image(store, {"a": b"1"})
    async with client(store) as both:
        await both.push(Reference.parse(f"{any_registry}/x:one"), image)
        found = await both.resolve(Reference.parse(f"{any_registry}/x:other@{image.digest}"))
    assert found.descriptor.digest == image.digest


async def test_docker_media_types(any_registry: str, store: DiskContentStore, tmp_path: Path) -> None:
    """An image in Docker's media types keeps them."""
    image = make_image(store, {"a": b"1"}, oci=False)
    name = Reference.parse(f"{any_registry}/x:docker")
    async with client(store) as pusher:
        await pusher.push(name, image)
        assert (await pusher.resolve(name)).descriptor.media_type == image.media_type


async def test_push_by_digest_writes_no_tag(any_registry: str, store: DiskContentStore) -> None:
    """Pushed by digest, an image is there but has no tag."""
    image = make_image(store, {"a": b"1"})
    name = Reference.parse(f"{any_registry}/x:tagged")
    async with client(store) as both:
        await both.push(name, image, by_digest="push-by-digest")
        found = await both.resolve(Reference.parse(f"{any_registry}/x@{image.digest}"))
        assert found.descriptor.digest == image.digest
        with pytest.raises(RegistryError, match="not found"):
            await both.resolve(name)


async def test_blobs_are_mounted_or_left(any_registry: str, store: DiskContentStore) -> None:
    """A second push to another repository moves no bytes of what the registry has."""
    image = make_image(store, {"a": b"1" * 100_000})
    async with client(store) as both:
        await both.push(Reference.parse(f"{any_registry}/first:1"), image)
        told: list[tuple[str, int, int]] = []
        await both.push(
            Reference.parse(f"{any_registry}/second:1"), image, progress=lambda *s: told.append(s)
        )
        await both.push(Reference.parse(f"{any_registry}/first:2"), image, progress=lambda *s: told.append(s))
        assert told == []
        assert (
            await both.resolve(Reference.parse(f"{any_registry}/second:1"))
        ).descriptor.digest == image.digest


async def test_unknown_image_is_one_line(any_registry: str, store: DiskContentStore) -> None:
    """A name that nobody knows is one line that says so, with the status."""
    async with client(store) as asking:
        with pytest.raises(RegistryError, match="nothing:latest: not found") as caught:
            await asking.resolve(Reference.parse(f"{any_registry}/no/nothing"))
    assert caught.value.status == 404
    assert "\n" not in str(caught.value)


async def test_unknown_blob(any_registry: str, store: DiskContentStore) -> None:
    """A blob that is not there is one line, and leaves nothing in the store."""
    wanted = Descriptor("application/octet-stream", Digest.of(b"?"), 1)
    async with client(store) as asking:
        with pytest.raises(RegistryError, match="not found"):
            await asking.fetch(Reference.parse(f"{any_registry}/no/nothing"), wanted)
    assert list(store.walk()) == []


async def test_wrong_size_is_refused(any_registry: str, store: DiskContentStore, tmp_path: Path) -> None:
    """A blob that is longer than its descriptor says is refused before it is kept."""
    image = make_image(store, {"a": b"1"})
    name = Reference.parse(f"{any_registry}/x:1")
    other = DiskContentStore(tmp_path / "other")
    layer = Manifest.parse(store.read(image.digest)).layers[0]
    async with client(store) as pusher, client(other) as puller:
        await pusher.push(name, image)
        with pytest.raises(RegistryError, match="more than the"):
            await puller.fetch(name, Descriptor(layer.media_type, layer.digest, layer.size - 1))
        with pytest.raises(RegistryError, match=r"sent|broke"):
            await puller.fetch(name, Descriptor(layer.media_type, layer.digest, layer.size + 1))
    assert list(other.walk()) == []


async def test_push_needs_every_blob(any_registry: str, store: DiskContentStore) -> None:
    """A layer that is missing in the store is a ContentError, and no tag is written."""
    image = make_image(store, {"a": b"1"})
    store.delete(Manifest.parse(store.read(image.digest)).layers[0].digest)
    name = Reference.parse(f"{any_registry}/x:1")
    async with client(store) as both:
        with pytest.raises(ContentError, match="not in the store"):
            await both.push(name, image)
        with pytest.raises(RegistryError, match="not found"):
            await both.resolve(name)


async def test_mirror_serves_and_is_named(any_registry: str, store: DiskContentStore, tmp_path: Path) -> None:
    """A mirror answers for docker.io, and the answer says that it did."""
    image = make_image(store, {"a": b"1"})
    async with client(store) as pusher:
        await pusher.push(Reference.parse(f"{any_registry}/library/busybox:latest"), image)
    mirrored = {"docker.io": HostSettings(mirrors=(any_registry,), exclusive=True)}
    async with client(DiskContentStore(tmp_path / "other"), mirrored) as puller:
        found = await puller.resolve(Reference.parse("busybox"))
        assert (found.descriptor.digest, found.note) == (image.digest, f"mirror {any_registry}")
        with pytest.raises(RegistryError, match=r"^busybox:none: not found"):
            await puller.resolve(Reference.parse("busybox:none"))
        with pytest.raises(RegistryError, match=r"offline: docker\.io is not pushed to"):
            await puller.push(Reference.parse("busybox"), image)


async def test_mirror_falls_back(server: RegistryServer, store: DiskContentStore, tmp_path: Path) -> None:
    """Where the mirror has nothing or does not answer, the registry itself is asked."""
    image = make_image(store, {"a": b"1"})
    name = Reference.parse(f"{server.host}/x:1")
    async with client(store) as pusher:
        await pusher.push(name, image)
    async with RegistryServer(tmp_path / "m", DiskContentStore(tmp_path / "m/content")) as empty:
        for mirrors in ((empty.host,), ("127.0.0.1:1",), ("127.0.0.1:1", empty.host + "/path")):
            settings = {server.host: HostSettings(mirrors=mirrors)}
            async with client(DiskContentStore(tmp_path / "other"), settings) as puller:
                assert (await puller.resolve(name)).note == ""


async def test_nobody_answers(store: DiskContentStore) -> None:
    """A registry that is not there is one line at once."""
    async with client(store) as asking:
        with pytest.raises(RegistryError, match=r"cannot reach 127\.0\.0\.1:1: "):
            await asking.resolve(Reference.parse("127.0.0.1:1/x"))
