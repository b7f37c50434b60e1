"""Which exporter an output asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from bknb.content.images import ImageStore
from bknb.errors import UnsupportedError, did_you_mean
from bknb.exporter.assemble import Clamps
from bknb.exporter.image import ImageExporter
from bknb.exporter.local import LocalExporter
from bknb.exporter.oci import DockerExporter, OCIExporter
from bknb.exporter.options import parse_image, parse_tree
from bknb.exporter.tar import TarExporter
from bknb.protocols import ContentStore, Exporter, ExportInput, ExportRequest, Job, RefStore, Shim
from bknb.registry.client import RegistryClient

TYPES: Final = ("image", "registry", "oci", "docker", "local", "tar", "cacheonly")


class ExportParts(Protocol):
    """What exporters work with; a builder has it."""

    @property
    def content(self) -> ContentStore: ...

    @property
    def refs(self) -> RefStore: ...

    @property
    def layers(self) -> Clamps: ...

    @property
    def shim(self) -> Shim: ...

    @property
    def image_store(self) -> ImageStore: ...

    @property
    def client(self) -> RegistryClient: ...


class CacheOnlyExporter:
    """``type=cacheonly``: the result stays in the cache, and nothing is written."""

    name = "cacheonly"

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """Nothing."""

        async def publish() -> Mapping[str, str]:
            return {}

        return publish


def open_exporter(request: ExportRequest, parts: ExportParts) -> Exporter:
    """The exporter for one output, its attributes checked.

    Raises:
        UsageError: attributes that are not understood.
        UnsupportedError: a type that is not known.
    """
    match request.type:
        case "image" | "registry":
            attrs = {**request.attrs, "push": "true"} if request.type == "registry" else request.attrs
            return ImageExporter(
                parse_image(attrs), parts.content, parts.refs, parts.layers, parts.image_store, parts.client
            )
        case "oci":
            return OCIExporter(parse_image(request.attrs), parts.content, parts.refs, parts.layers)
        case "docker":
            return DockerExporter(parse_image(request.attrs), parts.content, parts.refs, parts.layers)
        case "tar":
            return TarExporter(parse_tree(request.attrs), parts.shim)
        case "local":
            return LocalExporter(parse_tree(request.attrs), parts.shim)
        case "cacheonly":
            return CacheOnlyExporter()
    hint = did_you_mean(request.type, TYPES)
    raise UnsupportedError(f"output type {request.type[:40]!r} is not known{hint}: use {', '.join(TYPES)}")
