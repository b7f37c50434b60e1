"""Results become documents: manifests, configs and an index, in the content store.

What is written, to the byte, is what BuildKit writes of the same layers (exporter/containerimage/writer.go).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from bknb.digest import Digest
from bknb.errors import ContentError, UsageError
from bknb.exporter.options import ImageOptions
from bknb.oci import canonical, times
from bknb.oci.image import Config
from bknb.oci.mutate import AddedLayer, manifest_for, patch_config
from bknb.oci.types import DOCKER_INDEX, OCI_INDEX, Descriptor, Index, layer_type
from bknb.platforms import Platform
from bknb.protocols import Compression, ContentStore, ExportInput, LayerBlob, Progress, RefStore

_INTERNAL: Final = frozenset(("containerd.io/uncompressed", "buildkit/createdat"))
_SOURCES: Final = "containerd.io/distribution.source."
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Assembled:
    """An image in the content store, whole.

    Attributes:
        target: the manifest, or the index where there are several platforms.
        config: the config's digest; None for an index.
        epoch: the time that everything was clamped to, or None.
    """

    target: Descriptor
    config: Digest | None
    epoch: int | None

    def response(self, names: Sequence[str]) -> dict[str, str]:
        """What an exporter answers (exptypes/types.go)."""
        described = base64.b64encode(canonical.dumps(self.target.to_json())).decode()
        answer = {"containerimage.digest": str(self.target.digest), "containerimage.descriptor": described}
        if self.config is not None:
            answer["containerimage.config.digest"] = str(self.config)
        if names:
            answer["image.name"] = ",".join(names)
        return answer


class Clamps(Protocol):
    """Makes a layer whose times are no later than an epoch; what `bknb.layers` has beside its contract."""

    async def clamp(
        self, blob: LayerBlob, compression: Compression, epoch: int, progress: Progress | None = None
    ) -> LayerBlob: ...


class Assembler:
    """Makes images of results.

    Args:
        content: where documents go, and layers are.
        refs: makes the layers.
        layers: rewrites their times.
        options: how.
        progress: told of layers that are made or fetched.
    """

    def __init__(
        self,
        content: ContentStore,
        refs: RefStore,
        layers: Clamps,
        options: ImageOptions,
        progress: Progress | None = None,
    ) -> None:
        self._content = content
        self._refs = refs
        self._layers = layers
        self._options = options
        self._progress = progress

    async def assemble(self, inputs: Sequence[ExportInput]) -> Assembled:
        """One manifest for each result, and an index where there are several.

        Raises:
            UsageError: options that do not go with these results.
            ContentError: the frontend's config is none.
            SnapshotError: a layer could not be made.
        """
        platforms = {name.platform.format_all() for name in inputs if name.platform}
        for _, platform, _ in self._options.annotations:
            if platform and platform not in platforms and len(inputs) > 1:
                raise UsageError(f"invalid annotation: no platform {platform} found in source")
        if len(inputs) == 1:
            return await self._single(inputs[0])
        entries, epochs = [], []
        for one in inputs:
            described, _, epoch = await self._manifest(one, one.platform)
            entries.append(replace(described, platform=one.platform))
            epochs.append(epoch)
        extra = self._options.annotated()
        kind = OCI_INDEX if self._options.oci else DOCKER_INDEX
        raw = Index(kind, tuple(entries), extra.index).encode()
        target = Descriptor(kind, self._content.put(raw), len(raw), extra.index_descriptor)
        return Assembled(target, None, max((e for e in epochs if e is not None), default=None))

    async def _single(self, one: ExportInput) -> Assembled:
        extra = self._options.annotated()
        if extra.index or extra.index_descriptor:
            raise UsageError("index annotations not supported for single platform export")
        described, config, epoch = await self._manifest(one, None)
        platform = Config.parse(self._content.read(config)).platform.normalize()
        return Assembled(replace(described, platform=platform), config, epoch)

    async def _manifest(
        self, one: ExportInput, platform: Platform | None
    ) -> tuple[Descriptor, Digest, int | None]:
        epoch = self._options.epoch.seconds if self._options.epoch else one.epoch
        found = await self._refs.layers(one.ref, self._options.compression, progress=self._progress)
        blobs = [await self._prepared(blob, one, epoch, place) for place, blob in enumerate(found)]
        layers = [self._added(blob) for blob in blobs]
        base = one.base_image_config.encode()
        text = one.image_config.encode() or _default_config(platform or one.platform)
        try:
            config = patch_config(text, layers, epoch=epoch, base=base)
        except ValueError as error:
            raise ContentError(f"the image cannot be written: {error}") from None
        extra = self._options.annotated(platform)
        listed = [layer.descriptor for layer in layers]
        manifest = manifest_for(config, listed, oci=self._options.oci, annotations=extra.manifest)
        raw = manifest.encode()
        written = self._content.put(config)
        digest = self._content.put(raw)
        return Descriptor(manifest.media_type, digest, len(raw), extra.manifest_descriptor), written, epoch

    async def _prepared(self, blob: LayerBlob, one: ExportInput, epoch: int | None, place: int) -> LayerBlob:
        if not self._options.rewrite_timestamp or epoch is None:
            return blob
        base = Config.parse(one.base_image_config.encode()).diff_ids if one.base_image_config else ()
        if blob.diff_id in base[place : place + 1]:
            return blob
        return await self._layers.clamp(blob, self._options.compression, epoch, self._progress)

    def _added(self, blob: LayerBlob) -> AddedLayer:
        described = blob.descriptor
        kind = layer_type(described.media_type, oci=self._options.oci)
        if not self._options.keep_foreign:
            kind = kind.replace("layer.nondistributable.", "layer.").replace("rootfs.foreign.", "rootfs.")
        annotations = {
            key: value
            for key, value in described.annotations.items()
            if key not in _INTERNAL and not key.startswith(_SOURCES)
        }
        created = times.from_seconds(blob.created) if blob.created is not None else None
        text = blob.description or "created by buildkit"
        return AddedLayer(
            replace(described, media_type=kind, annotations=annotations), blob.diff_id, created, text
        )


def _default_config(platform: Platform | None) -> bytes:
    """The config of a result that has none: an LLB build's."""
    here = (platform or Platform.host()).normalize()
    values: dict[str, object] = {"architecture": here.architecture, "os": here.os}
    if here.variant:
        values["variant"] = here.variant
    config: dict[str, object] = {} if here.os == "windows" else {"Env": [f"PATH={_PATH}"]}
    values["config"] = {**config, "WorkingDir": "/"}
    values["rootfs"] = {"type": "layers", "diff_ids": None}
    return canonical.dumps(values)
