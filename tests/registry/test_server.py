"""The protocol's corners, of our own registry and of Debian's alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.oci.types import OCI_INDEX, OCI_MANIFEST, Manifest
from bknb.reference import Reference
from bknb.registry.client import RegistryClient
from bknb.registry.seed import applets, find_busybox, layer_tar, seed
from bknb.registry.server import Access, RegistryServer
from tests.conftest import need
from tests.images import make_image

Http = aiohttp.ClientSession


@pytest_asyncio.fixture
async def http(any_registry: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client of the registry."""
    async with aiohttp.ClientSession(f"http://{any_registry}") as session:
        yield session


async def push_blob(http: Http, name: str, data: bytes) -> str:
    """A blob in one POST and one PUT; gives its digest."""
    digest = Digest.of(data)
    async with http.post(f"/v2/{name}/blobs/uploads/") as response:
        assert response.status == 202
        where = response.headers["Location"]
    where += ("&" if "?" in where else "?") + f"digest={digest}"
    async with http.put(where, data=data, headers={"Content-Type": "application/octet-stream"}) as response:
        assert response.status == 201
        assert response.headers["Docker-Content-Digest"] == digest
    return digest


async def push_manifest(http: Http, name: str, tag: str, text: str) -> tuple[str, str]:
    """An image of one small layer; gives the manifest's digest and the layer's."""
    layer = await push_blob(http, name, text.encode())
    config = await push_blob(http, name, b"{}")
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size":
        len(text)}],
    }  # fmt: skip
    body = json.dumps(manifest).encode()
    async with http.put(
        f"/v2/{name}/manifests/{tag}", data=body, headers={"Content-Type": OCI_MANIFEST}
    ) as response:
        assert response.status == 201
        assert response.headers["Docker-Content-Digest"] == Digest.of(body)
    return Digest.of(body), layer


async def test_base(http: Http) -> None:
    """The version check answers."""
    async with http.get("/v2/") as response:
        assert response.status == 200


async def test_ranges(http: Http) -> None:
    """A part of a blob is had by Range; one beyond its end is 416."""
    digest = await push_blob(http, "a/b", b"0123456789")
    async with http.get(f"/v2/a/b/blobs/{digest}", headers={"Range": "bytes=3-"}) as response:
        assert (response.status, await response.read()) == (206, b"3456789")
        assert response.headers["Content-Range"] == "bytes 3-9/10"
    async with http.head(f"/v2/a/b/blobs/{digest}") as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "10")
        assert response.headers["Docker-Content-Digest"] == digest
    async with http.get(f"/v2/a/b/blobs/{digest}", headers={"Range": "bytes=99-"}) as response:
        assert response.status == 416


async def test_chunked_upload(http: Http) -> None:
    """A blob comes in pieces by PATCH; GET says how far it is."""
    async with http.post("/v2/a/b/blobs/uploads/") as response:
        where = response.headers["Location"]
    head = {"Content-Type": "application/octet-stream"}
    async with http.patch(where, data=b"0123", headers={**head, "Content-Range": "0-3"}) as response:
        assert response.status == 202
        assert response.headers["Range"] == "0-3"
        where = response.headers["Location"]
    async with http.get(where) as response:
        assert (response.status, response.headers["Range"]) == (204, "0-3")
        where = response.headers["Location"]
    async with http.patch(where, data=b"4567", headers={**head, "Content-Range": "4-7"}) as response:
        assert response.status == 202
        where = response.headers["Location"]
    digest = Digest.of(b"01234567")
    async with http.put(where + ("&" if "?" in where else "?") + f"digest={digest}") as response:
        assert response.status == 201
    async with http.get(f"/v2/a/b/blobs/{digest}") as response:
        assert await response.read() == b"01234567"


async def test_upload_can_be_cancelled(http: Http) -> None:
    """A cancelled upload is unknown from then on."""
    async with http.post("/v2/a/b/blobs/uploads/") as response:
        where = response.headers["Location"]
    async with http.delete(where) as response:
        assert response.status == 204
    async with http.get(where) as response:
        assert response.status == 404


async def test_wrong_digest(http: Http) -> None:
    """Bytes with another digest than was said are 400."""
    async with http.post("/v2/a/b/blobs/uploads/") as response:
        where = response.headers["Location"]
    async with http.put(
        where + ("&" if "?" in where else "?") + f"digest={Digest.of(b'other')}", data=b"bytes"
    ) as response:
        assert response.status == 400
        assert (await response.json())["errors"][0]["code"] == "DIGEST_INVALID"


async def test_mount(http: Http) -> None:
    """A blob of one repository is mounted in another; an unknown one begins an upload."""
    digest = await push_blob(http, "first", b"bytes")
    async with http.post(f"/v2/second/blobs/uploads/?mount={digest}&from=first") as response:
        assert response.status == 201
    async with http.head(f"/v2/second/blobs/{digest}") as response:
        assert response.status == 200
    async with http.post(f"/v2/second/blobs/uploads/?mount={Digest.of(b'x')}&from=first") as response:
        assert response.status == 202


async def test_tags_and_deletion(http: Http) -> None:
    """Tags are listed; a deleted manifest is gone."""
    digest, _ = await push_manifest(http, "a/b", "one", "1")
    await push_manifest(http, "a/b", "two", "2")
    async with http.get("/v2/a/b/tags/list") as response:
        assert sorted((await response.json())["tags"]) == ["one", "two"]
    async with http.get("/v2/_catalog") as response:
        assert (await response.json())["repositories"] == ["a/b"]
    async with http.delete(f"/v2/a/b/manifests/{digest}") as response:
        assert response.status == 202
    for name in (digest, "one"):
        async with http.head(f"/v2/a/b/manifests/{name}") as response:
            assert response.status == 404


async def test_blob_deletion(http: Http) -> None:
    """A deleted blob is gone from its repository."""
    digest = await push_blob(http, "a/b", b"bytes")
    async with http.delete(f"/v2/a/b/blobs/{digest}") as response:
        assert response.status == 202
    async with http.head(f"/v2/a/b/blobs/{digest}") as response:
        assert response.status == 404
    async with http.delete(f"/v2/a/b/blobs/{digest}") as response:
        assert response.status == 404


async def test_manifest_needs_its_blobs(http: Http) -> None:
    """A manifest whose layers were not pushed is 400."""
    digest = Digest.of(b"x")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "layers": [],
        "config": {"digest": digest, "size": 1},
    }
    manifest["config"] = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest,
        "size": 1,
    }
    for body in (json.dumps(manifest).encode(),):
        async with http.put(
            "/v2/a/manifests/t", data=body, headers={"Content-Type": OCI_MANIFEST}
        ) as response:
            assert response.status == 400


@pytest.mark.parametrize("path", ["/v2/A/manifests/x", "/v2/a//manifests/x", "/v2/a/blobs/sha256:zz"])
async def test_odd_names(http: Http, path: str) -> None:
    """Names that are none are refused."""
    async with http.get(path) as response:
        assert response.status in (400, 404)


async def test_pages_of_tags(server: RegistryServer) -> None:
    """Tags come in pages of the size asked for, each naming the next."""
    async with aiohttp.ClientSession(f"http://{server.host}") as http:
        for tag in ("one", "two"):
            await push_manifest(http, "a/b", tag, tag)
        async with http.get("/v2/a/b/tags/list?n=1") as response:
            assert (await response.json())["tags"] == ["one"]
            assert 'rel="next"' in response.headers["Link"]
        async with http.get("/v2/a/b/tags/list?n=1&last=one") as response:
            assert (await response.json())["tags"] == ["two"]
        async with http.get("/v2/a/b/tags/list?n=x") as response:
            assert response.status == 400


async def test_chunk_at_wrong_offset(server: RegistryServer) -> None:
    """A piece that does not follow the one before is 416; what is no manifest is 400."""
    async with aiohttp.ClientSession(f"http://{server.host}") as http:
        async with http.post("/v2/a/b/blobs/uploads/") as response:
            where = response.headers["Location"]
        async with http.patch(where, data=b"89", headers={"Content-Range": "8-9"}) as response:
            assert response.status == 416
        async with http.put("/v2/a/manifests/t", data=b"no") as response:
            assert response.status == 400


async def test_referrers(server: RegistryServer) -> None:
    """A manifest with a subject is listed under it, and filtered by artifact type."""
    async with aiohttp.ClientSession(f"http://{server.host}") as http:
        digest, _ = await push_manifest(http, "a", "t", "1")
        config = Digest.of(b"{}")
        about = {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x.sbom", "layers": [],
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "subject": {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}, "annotations": {"a": "b"},
        }  # fmt: skip
        body = json.dumps(about).encode()
        async with http.put(f"/v2/a/manifests/{Digest.of(body)}", data=body) as response:
            assert (response.status, response.headers["OCI-Subject"]) == (201, digest)
        async with http.get(f"/v2/a/referrers/{digest}?artifactType=application/x.sbom") as response:
            assert response.headers["OCI-Filters-Applied"] == "artifactType"
            assert response.content_type == OCI_INDEX
            (entry,) = (await response.json(content_type=None))["manifests"]
        assert (entry["digest"], entry["artifactType"]) == (Digest.of(body), "application/x.sbom")
        async with http.get(f"/v2/a/referrers/{digest}?artifactType=other") as response:
            assert (await response.json(content_type=None))["manifests"] == []


async def test_abandoned_uploads(server: RegistryServer) -> None:
    """Uploads that nobody finishes make room for new ones; the newest still work."""
    async with aiohttp.ClientSession(f"http://{server.host}") as http:
        places = []
        for _ in range(70):
            async with http.post("/v2/a/blobs/uploads/") as response:
                assert response.status == 202
                places.append(response.headers["Location"])
        for where, status in ((places[0], 404), (places[-1], 204)):
            async with http.get(where) as response:
                assert response.status == status


async def test_pull_only(tmp_path: Path) -> None:
    """A registry that is only read from takes nothing."""
    store = DiskContentStore(tmp_path / "c")
    async with (
        RegistryServer(tmp_path, store, access=Access.PULL) as server,
        aiohttp.ClientSession(f"http://{server.host}") as http,
    ):
        async with http.post("/v2/a/blobs/uploads/") as response:
            assert response.status == 405
        async with http.get("/v2/") as response:
            assert response.status == 200


async def test_state_outlives_the_server(tmp_path: Path, store: DiskContentStore) -> None:
    """What was pushed is there again when the registry is started anew."""
    image = make_image(store, {"a": b"1"})
    for pushing in (True, False):
        async with (
            RegistryServer(tmp_path, DiskContentStore(tmp_path / "c")) as server,
            RegistryClient(store) as client,
        ):
            name = Reference.parse(f"{server.host}/x:1")
            if pushing:
                await client.push(name, image)
            assert (await client.resolve(name)).descriptor.digest == image.digest


async def test_seed(tmp_path: Path) -> None:
    """The busybox image has the same bytes each time, and is pulled like any other."""
    need("busybox")
    digests = set()
    for run in ("one", "two"):
        root = tmp_path / run
        store = DiskContentStore(root / "c")
        async with (
            RegistryServer(root, store, access=Access.PULL) as server,
            RegistryClient(DiskContentStore(root / "client")) as client,
        ):
            image = seed(store, server.repositories.repository("library/busybox"))
            found = await client.resolve(Reference.parse(f"{server.host}/library/busybox"))
            assert found.descriptor.digest == image.digest
            manifest = Manifest.parse(await client.fetch_document(found.reference, found.descriptor))
            await client.fetch(found.reference, manifest.layers[0])
            digests.add(image.digest)
    assert len(digests) == 1


def test_seed_has_a_shell() -> None:
    """The layer holds the binary, a link for each applet, and the accounts."""
    import io
    import tarfile

    need("busybox")
    names = applets(find_busybox())
    with tarfile.open(fileobj=io.BytesIO(layer_tar(b"ELF", names))) as tar:
        found = {info.name: info for info in tar}
    assert found["bin/sh"].linkname == "busybox"
    assert found["tmp"].mode == 0o1777
    assert {"etc/passwd", "etc/group", "root", "bin/busybox"} <= found.keys()
