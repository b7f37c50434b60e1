"""The image that a build made, as people hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from bknb.digest import Digest
from bknb.errors import UsageError
from bknb.protocols import SolveResult

if TYPE_CHECKING:
    from bknb.api.client import Client
    from bknb.builder.local import LocalBuilder


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with what it names.

    Attributes:
        digest: of the manifest (or index).
        names: what it is called.
        config: the image config, as JSON values.
        layers: media type, digest and size in bytes of each layer, bottom first.
        manifest: the manifest, as JSON values.
    """

    digest: Digest
    names: tuple[str, ...]
    config: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]
    manifest: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all layers, compressed."""
        return sum(int(layer["size"]) for layer in self.layers)

    def __repr__(self) -> str:
        return f"<Image {', '.join(self.names) or self.digest.short}: {len(self.layers)} layers, {self.size} bytes>"


def image_of(client: Client, result: SolveResult) -> Image:
    """The image of a build.

    Raises:
        UsageError: it was not asked for one.
    """
    response = next((r for r in result.exports if "containerimage.digest" in r), None)
    if response is None:
        raise UsageError("this build made no image: say -t NAME, or -o type=oci,dest=FILE")

    async def look(builder: LocalBuilder) -> Image:
        content = builder.parts.content
        digest = Digest(response["containerimage.digest"])
        manifest = msgspec.json.decode(content.read(digest))
        while "manifests" in manifest:
            manifest = msgspec.json.decode(content.read(Digest(manifest["manifests"][0]["digest"])))
        config = msgspec.json.decode(content.read(Digest(manifest["config"]["digest"])))
        names = tuple(name for name in response.get("image.name", "").split(",") if name)
        return Image(digest, names, config, tuple(manifest["layers"]), manifest)

    return client.call(look)
