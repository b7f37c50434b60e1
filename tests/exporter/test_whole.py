"""Exporters over the real thing: an image pulled from our own registry, its files read through the shim."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest_asyncio

from bknb.builder.parts import Parts, open_parts
from bknb.llb.marshal import vertex
from bknb.llb.ops import SourceOp
from bknb.oci.types import Manifest
from bknb.platforms import Platform
from bknb.protocols import Compression, ExportInput, ExportRequest
from bknb.registry.seed import applets, find_busybox
from bknb.settings import Settings
from tests.conftest import need
from tests.exporter.conftest import FakeJob, gathered
from tests.tools import Accepts


@pytest_asyncio.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Parts]:
    """A builder's parts; docker.io is served from this process, and busybox is there."""
    need("busybox")
    async with AsyncExitStack() as stack:
        yield await open_parts(replace(Settings(str(tmp_path / "state")), offline=True), stack)


async def pulled(parts: Parts, name: str) -> ExportInput:
    """An image as a result, lazily."""
    job: Any = FakeJob()
    answer = await parts.images.resolve_image_config(job, name, platform=None, resolve_mode="default")
    op = vertex(SourceOp(f"docker-image://{name}@{answer.digest}"), platform=Platform.host())
    ref = await parts.images.snapshot(op, job)
    config = answer.config.decode()
    return ExportInput(ref, None, config, base_image_config=config)


async def export(parts: Parts, one: ExportInput, type_: str, **attrs: str) -> dict[str, str]:
    """Both steps of one output."""
    job: Any = FakeJob()
    publish = await parts.exporter(ExportRequest(type_, attrs)).export([one], job)
    return dict(await publish())


async def test_files_of_an_image(whole: Parts, tmp_path: Path) -> None:
    """A pulled image's files come out as a folder and as a tar, with owners in the tar."""
    one = await pulled(whole, "docker.io/library/busybox:latest")
    names = applets(find_busybox())
    await export(whole, one, "local", dest=str(tmp_path / "out"))
    assert set(names) < set(os.listdir(tmp_path / "out/bin"))
    assert (tmp_path / "out/tmp").stat().st_mode & 0o7777 == 0o1777
    await export(whole, one, "tar", dest=str(tmp_path / "out.tar"))
    found = gathered((tmp_path / "out.tar").read_bytes())
    assert found["bin/sh"].linkname == "busybox"
    assert {(info.uid, info.gid) for info in found.values()} == {(0, 0)}
    assert one.ref is not None
    await one.ref.release()


async def test_layers_are_passed_on(whole: Parts, accepts: Accepts, tmp_path: Path) -> None:
    """An image that is exported as it was pulled has the layers that it had; another store takes it."""
    one = await pulled(whole, "docker.io/library/busybox:latest")
    answer = await export(whole, one, "image", name="mine")
    named = whole.image_store.get("docker.io/library/mine:latest")
    assert named is not None
    assert named.target.digest == answer["containerimage.digest"]
    there = Manifest.parse(whole.content.read(named.target.digest)).layers
    assert one.ref is not None
    kept = await whole.refs.layers(one.ref, Compression())
    assert [layer.digest for layer in there] == [blob.descriptor.digest for blob in kept]
    again = await pulled(whole, "docker.io/library/mine:latest")
    await export(whole, again, "docker", dest=str(tmp_path / "mine.tar"), name="mine")
    assert accepts.skopeo_config(f"docker-archive:{tmp_path / 'mine.tar'}")["config"]["Cmd"] == ["sh"]
    for result in (one, again):
        assert result.ref is not None
        await result.ref.release()
