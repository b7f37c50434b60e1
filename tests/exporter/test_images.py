"""Images as documents: what is kept, named, annotated and answered."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bknb.digest import Digest
from bknb.errors import ContentError, SourceError, UnsupportedError, UsageError
from bknb.exporter import open_exporter
from bknb.exporter.options import parse_image, parse_tree
from bknb.oci.types import OCI_INDEX, Index, Manifest
from bknb.platforms import Platform
from bknb.protocols import ExportInput, ExportRequest
from tests.exporter.conftest import AMD64, FakeJob, TreeRef, blob, config, gathered


async def export(parts: Any, type_: str, *inputs: ExportInput, **attrs: str) -> dict[str, str]:
    """Both steps of one output."""
    exporter = open_exporter(ExportRequest(type_, attrs), parts)
    publish = await exporter.export(inputs, FakeJob())
    return dict(await publish())


@pytest.fixture
def one(parts: Any) -> ExportInput:
    """A result of two layers."""
    layers = (
        blob(parts.content, {"a": b"1"}, time=9, created=1.0, description="base layer"),
        blob(parts.content, {"b": b"2"}, time=9, created=2.0, description="COPY b /"),
    )
    return ExportInput(TreeRef(blobs=layers), None, config("base", "COPY b /"))  # type: ignore[arg-type]


async def test_kept_under_its_names(parts: Any, one: ExportInput) -> None:
    """The names mean the image from then on; the answer has BuildKit's keys."""
    answer = await export(parts, "image", one, name="app:v1,docker.io/library/other")
    names = ["docker.io/library/app:v1", "docker.io/library/other:latest"]
    assert answer["image.name"] == ",".join(names)
    assert [image.name for image in parts.image_store.walk()] == names
    named = parts.image_store.get(names[0])
    assert named.target.digest == answer["containerimage.digest"]
    manifest = Manifest.parse(parts.content.read(named.target.digest))
    assert manifest.config.digest == answer["containerimage.config.digest"]
    described = json.loads(base64.b64decode(answer["containerimage.descriptor"]))
    assert list(described) == ["mediaType", "digest", "size", "platform"]
    assert described["platform"] == {"architecture": "amd64", "os": "linux"}


async def test_nothing_is_named_before_it_is_published(parts: Any, one: ExportInput, tmp_path: Path) -> None:
    """The first step of an exporter publishes nothing."""
    file = tmp_path / "out" / "image.tar"
    for type_, attrs in (("image", {"name": "app"}), ("oci", {"dest": str(file)})):
        publish = await open_exporter(ExportRequest(type_, attrs), parts).export([one], FakeJob())
        assert parts.image_store.walk() == ()
        assert not file.exists()
        del publish


async def test_config(parts: Any, one: ExportInput) -> None:
    """Each history line has its layer's time; the image has the newest."""
    answer = await export(parts, "image", one, name="app")
    made = json.loads(parts.content.read(Digest(answer["containerimage.config.digest"])))
    assert [line["created"] for line in made["history"]] == ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"]
    assert made["created"] == "1970-01-01T00:00:02Z"
    assert list(made) == sorted(made)


async def test_same_result_same_digest(parts: Any, one: ExportInput, tmp_path: Path) -> None:
    """The image has one digest whatever it is exported as, and an archive the same bytes each time."""
    first = await export(parts, "image", one, name="app", **{"source-date-epoch": "5"})
    files = [tmp_path / name for name in ("1.tar", "2.tar")]
    for file in files:
        answer = await export(parts, "oci", one, dest=str(file), name="app", **{"source-date-epoch": "5"})
        assert answer["containerimage.digest"] == first["containerimage.digest"]
    assert files[0].read_bytes() == files[1].read_bytes()


async def test_archive_entries(parts: Any, one: ExportInput, tmp_path: Path) -> None:
    """An archive is sorted, without owners and times; docker's has manifest.json too."""
    for type_, expected in (("oci", False), ("docker", True)):
        file = tmp_path / f"{type_}.tar"
        await export(parts, type_, one, dest=str(file), name="docker.io/library/app:v1")
        found = gathered(file.read_bytes())
        assert list(found) == sorted(found)
        assert ("manifest.json" in found) == expected
        assert {(info.uid, info.mtime, info.uname) for info in found.values()} == {(0, 0, "")}
        with tarfile.open(file) as tar:
            index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
            entry = index["manifests"][0]
            if expected:
                (image,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
                assert image["RepoTags"] == ["app:v1"]
                assert all(name in found for name in (image["Config"], *image["Layers"]))
        assert entry["annotations"]["io.containerd.image.name"] == "docker.io/library/app:v1"
        assert entry["annotations"]["org.opencontainers.image.ref.name"] == "v1"
        assert "org.opencontainers.image.created" in entry["annotations"]
        assert os.listdir(tmp_path).count(f"{type_}.tar") == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


async def test_annotations(parts: Any, one: ExportInput) -> None:
    """Annotations go to the manifest, its descriptor, the index and its descriptor, by platform."""
    arm = Platform("linux", "arm64")
    inputs = [
        ExportInput(one.ref, AMD64, one.image_config),
        ExportInput(one.ref, arm, config("base", "COPY b /", platform=arm)),
    ]
    answer = await export(
        parts, "image", *inputs, name="app",
        **{
            "annotation.all": "1", "annotation[linux/arm64].arm": "2", "annotation-index.index": "3",
            "annotation-manifest-descriptor.entry": "4", "annotation-index-descriptor.target": "5",
        },
    )  # fmt: skip
    index = Index.parse(parts.content.read(Digest(answer["containerimage.digest"])))
    assert (index.media_type, index.annotations) == (OCI_INDEX, {"index": "3"})
    read = [Manifest.parse(parts.content.read(entry.digest)).annotations for entry in index.manifests]
    assert read == [{"all": "1"}, {"all": "1", "arm": "2"}]
    assert index.manifests[0].annotations == {"entry": "4"}
    assert parts.image_store.walk()[0].target.digest == answer["containerimage.digest"]
    described = json.loads(base64.b64decode(answer["containerimage.descriptor"]))
    assert described["annotations"] == {"target": "5"}
    with pytest.raises(UsageError, match="index annotations not supported for single platform"):
        await export(parts, "image", one, **{"annotation-index.x": "1"})
    with pytest.raises(UsageError, match="no platform linux/s390x found in source"):
        await export(parts, "image", *inputs, **{"annotation[linux/s390x].x": "1"})


async def test_names_by_digest(parts: Any, one: ExportInput) -> None:
    """`name-canonical` and `dangling-name-prefix` give names by digest; `store=false` gives none."""
    answer = await export(
        parts, "image", one, name="app", **{"name-canonical": "", "dangling-name-prefix": "<none>"}
    )
    digest = answer["containerimage.digest"]
    names = {image.name for image in parts.image_store.walk()}
    app = "docker.io/library/app:latest"
    assert names == {app, f"{app}@{digest}", f"<none>@{digest}", f"<none>@{digest}"}
    await export(parts, "image", one, name="nowhere", store="false")
    assert parts.image_store.get("docker.io/library/nowhere:latest") is None


async def test_scratch(parts: Any) -> None:
    """An empty result without a config is an image too."""
    answer = await export(parts, "image", ExportInput(None, None, ""), name="empty")
    made = json.loads(parts.content.read(Digest(answer["containerimage.config.digest"])))
    assert (made["rootfs"]["diff_ids"], made["config"]["WorkingDir"]) == (None, "/")


async def test_what_cannot_be_written(parts: Any, one: ExportInput, tmp_path: Path) -> None:
    """A folder in the way, a missing blob, a config that is none: each one line, nothing left behind."""
    with pytest.raises(SourceError, match="is a folder"):
        await export(parts, "oci", one, dest=str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"cannot write .*file/x\.tar"):
        await export(parts, "oci", one, dest=str(tmp_path / "file/x.tar"))
    with pytest.raises(ContentError, match="cannot be written"):
        await export(parts, "image", ExportInput(one.ref, None, "{"))
    parts.content.delete(one.ref.blobs[0].descriptor.digest)  # type: ignore[union-attr]
    with pytest.raises(ContentError, match="not in the store"):
        await export(parts, "docker", one, dest=str(tmp_path / "y.tar"))
    assert not [name for name in os.listdir(tmp_path) if "tar" in name]


def test_other_types(parts: Any) -> None:
    """An unknown type is one line with the nearest; two platforms are no docker archive."""
    with pytest.raises(UnsupportedError, match="did you mean docker"):
        open_exporter(ExportRequest("dockr", {}), parts)
    for type_ in ("oci", "docker", "tar", "local"):
        with pytest.raises(UsageError, match="say where it goes"):
            open_exporter(ExportRequest(type_, {}), parts)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"compresion": "gzip"}, r"not known \(did you mean compression\?\)"),
        ({"compression": "bzip2"}, "unsupported compression type bzip2"),
        ({"compression": "gzip", "compression-level": "11"}, "gzip has 0 to 9"),
        ({"compression": "zstd", "oci-mediatypes": "false"}, "conflicts with"),
        ({"push": ""}, "push needs a name"),
        ({"push": "maybe"}, "non-bool value specified for push"),
        ({"oci-mediatypes": ""}, "non-bool value specified for oci-mediatypes"),
        ({"source-date-epoch": "now"}, "invalid source-date-epoch"),
        ({"name": "UPPER"}, "must be lowercase"),
        ({"annotation-odd.x": "1"}, "unrecognized annotation type odd"),
        ({"annotation-index.x": "1", "oci-mediatypes": "false"}, "cannot export annotations"),
        ({"rewrite-timestamp": "true", "unpack": "true"}, "conflicts with"),
    ],
)
def test_options(attrs: dict[str, str], message: str) -> None:
    """What is not understood is one line."""
    with pytest.raises(UsageError, match=message):
        parse_image(attrs)


def test_missing_compressions() -> None:
    """What is not there yet says so."""
    with pytest.raises(UnsupportedError, match="estargz is not there yet"):
        parse_image({"compression": "estargz"})


def test_tree_options() -> None:
    """A local output has its own attributes."""
    assert parse_tree({"dest": "x", "mode": "delete"}).delete
    with pytest.raises(UsageError, match="use copy or delete"):
        parse_tree({"mode": "move"})
    with pytest.raises(UsageError, match="not known"):
        parse_tree({"push": "true"})


async def test_rewritten_times(parts: Any, one: ExportInput) -> None:
    """With rewrite-timestamp files are no younger than the epoch, save those of the base image."""
    base = json.dumps({"rootfs": {"diff_ids": [one.ref.blobs[0].diff_id]}})  # type: ignore[union-attr]
    result = ExportInput(one.ref, None, one.image_config, 5, base)
    answer = await export(parts, "image", result, **{"rewrite-timestamp": "true"})
    manifest = Manifest.parse(parts.content.read(Digest(answer["containerimage.digest"])))
    times = []
    for described in manifest.layers:
        with tarfile.open(fileobj=io.BytesIO(parts.content.read(described.digest))) as tar:
            times.append({info.mtime for info in tar})
    assert times == [{9}, {5}]
