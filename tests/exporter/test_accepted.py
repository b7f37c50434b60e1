"""What exporters write is taken by tools that were written elsewhere, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bknb.exporter import open_exporter
from bknb.platforms import Platform
from bknb.protocols import ExportInput, ExportRequest
from tests.conftest import RealRegistry
from tests.exporter.conftest import FakeJob
from tests.tools import Accepts, DockerEngine

OPTIONS = [
    {},
    {"compression": "gzip", "source-date-epoch": "1500000000", "rewrite-timestamp": "true"},
    {"annotation.org.example.key": "value"},
]


async def export(parts: Any, type_: str, *inputs: ExportInput, **attrs: str) -> dict[str, str]:
    """Both steps of one output."""
    exporter = open_exporter(ExportRequest(type_, {k.replace("_", "-"): v for k, v in attrs.items()}), parts)
    publish = await exporter.export(inputs, FakeJob())
    return dict(await publish())


@pytest.mark.root
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "plain")
async def test_oci_archive(
    parts: Any, busybox: ExportInput, accepts: Accepts, tmp_path: Path, options: dict[str, str]
) -> None:
    """skopeo reads and copies the archive; umoci unpacks it, and runc runs what CMD says."""
    file = tmp_path / "image.tar"
    answer = await export(parts, "oci", busybox, dest=str(file), name="example/app:v1", **options)
    assert accepts.everything(file, "v1") == "it runs\n"
    seen = accepts.skopeo(f"oci-archive:{file}:v1")
    assert seen["Digest"] == answer["containerimage.digest"]
    assert answer["image.name"] == "docker.io/example/app:v1"


@pytest.mark.root
async def test_oci_folder(parts: Any, busybox: ExportInput, accepts: Accepts, tmp_path: Path) -> None:
    """A layout folder takes several images, one after the other, and runs each."""
    folder = tmp_path / "layout"
    for tag in ("one", "two"):
        await export(parts, "oci", busybox, dest=str(folder), tar="false", name=f"app:{tag}")
    for tag in ("one", "two"):
        assert accepts.umoci_runc(folder, tag) == "it runs\n"


@pytest.mark.root
@pytest.mark.parametrize("options", [{}, {"oci-mediatypes": "false"}], ids=["oci", "docker"])
async def test_docker_load_and_run(
    parts: Any, busybox: ExportInput, engine: DockerEngine, tmp_path: Path, options: dict[str, str]
) -> None:
    """A Docker Engine loads the archive under its name, and runs it."""
    file = tmp_path / "image.tar"
    await export(parts, "docker", busybox, dest=str(file), name="example/app:v1,other:v2", **options)
    engine.load(file)
    for name in ("example/app:v1", "other:v2"):
        assert engine.run(name) == "it runs\n"
    assert engine.run("other:v2", "sh", "-c", "echo $PATH") == "/bin\n"


async def test_docker_archive_for_skopeo(
    parts: Any, busybox: ExportInput, accepts: Accepts, tmp_path: Path
) -> None:
    """The same file is a docker archive and an OCI archive."""
    file = tmp_path / "image.tar"
    await export(parts, "docker", busybox, dest=str(file), name="app:v1")
    assert accepts.skopeo_config(f"docker-archive:{file}")["config"]["Cmd"] == ["cat", "/message"]
    assert accepts.skopeo_config(f"oci-archive:{file}:v1")["config"]["Cmd"] == ["cat", "/message"]


@pytest.mark.root
async def test_push(parts: Any, busybox: ExportInput, accepts: Accepts, registry: RealRegistry) -> None:
    """A pushed image is had from Debian's registry by skopeo, and runs."""
    answer = await export(parts, "image", busybox, name=f"{registry.host}/app:v1", push="true")
    await parts.client.aclose()
    source = f"docker://{registry.host}/app:v1"
    assert accepts.skopeo(source)["Digest"] == answer["containerimage.digest"]
    assert accepts.umoci_runc(accepts.skopeo_copy(source)) == "it runs\n"


async def test_index(parts: Any, busybox: ExportInput, accepts: Accepts, tmp_path: Path) -> None:
    """Several platforms are an index; skopeo finds this machine's image in it."""
    here = Platform.host()
    other = Platform("linux", "s390x")
    inputs = [
        ExportInput(
            busybox.ref, platform, busybox.image_config.replace(here.architecture, platform.architecture)
        )
        for platform in (other, here)
    ]
    file = tmp_path / "image.tar"
    answer = await export(parts, "oci", *inputs, dest=str(file), name="app:v1")
    assert "containerimage.config.digest" not in answer
    assert accepts.skopeo(f"oci-archive:{file}:v1")["Architecture"] == here.architecture
