"""The documents as typed values, read from bytes of any origin.

Reading is strict about what bknb relies on and silent about the rest. Each document that was read keeps its
`raw` bytes: its digest, and every field that is not known here, are in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from bknb.digest import Digest
from bknb.oci.canonical import dumps_indented
from bknb.platforms import Platform

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"

INDEX_TYPES: Final = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFEST_TYPES: Final = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))

MAX_DOCUMENT: Final = 4 << 20
"""Bytes of the largest manifest, index or config that is read, as registries have it."""
MAX_ENTRIES: Final = 4096
"""Layers of a manifest, or manifests of an index."""

_LAYERS: Final = (
    (OCI_LAYER, DOCKER_LAYER),
    (OCI_LAYER + "+gzip", DOCKER_LAYER + ".gzip"),
    (OCI_LAYER + "+zstd", DOCKER_LAYER + ".zstd"),
    (OCI_NONDISTRIBUTABLE, DOCKER_FOREIGN),
    (OCI_NONDISTRIBUTABLE + "+gzip", DOCKER_FOREIGN + ".gzip"),
    (OCI_NONDISTRIBUTABLE + "+zstd", DOCKER_FOREIGN + ".zstd"),
)
LAYER_TYPES: Final = frozenset(type_ for pair in _LAYERS for type_ in pair)
_TO_OCI: Final = {docker: oci for oci, docker in _LAYERS}
_TO_DOCKER: Final = dict(_LAYERS)
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_TYPE: Final = re.compile(rf"{_NAME}/{_NAME}(;.*)?\Z")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as a manifest names it (OCI descriptor.md); `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values, in the order of Go's struct."""
        values: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            values["urls"] = list(self.urls)
        if self.annotations:
            values["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            values["platform"] = platform_to_json(self.platform)
        if self.artifact_type:
            values["artifactType"] = self.artifact_type
        return values


@dataclass(frozen=True, slots=True)
class Manifest:
    """What makes one image: a config and layers, bottom first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    subject: Descriptor | None = None
    raw: bytes = b""

    @classmethod
    def parse(cls, data: bytes, media_type: str = "") -> Manifest:
        """Read one.

        Raises:
            ValueError: not a manifest; one line.
        """
        wire = _decode(data, _Manifest)
        kind = wire.mediaType or media_type or OCI_MANIFEST
        if kind not in MANIFEST_TYPES:
            raise ValueError(f"{kind[:80]!r} is not an image manifest")
        if wire.config is None:
            raise ValueError("an image manifest without a config")
        layers = tuple(_descriptor(layer) for layer in _bounded(wire.layers or [], "layers"))
        subject = _descriptor(wire.subject) if wire.subject else None
        annotations = wire.annotations or {}
        return cls(kind, _descriptor(wire.config), layers, annotations, wire.artifactType, subject, data)

    def encode(self) -> bytes:
        """The bytes that were read, or those that BuildKit would write."""
        if self.raw:
            return self.raw
        values: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            values["artifactType"] = self.artifact_type
        values["config"] = self.config.to_json()
        # A nil slice: BuildKit writes an image of no layers so.
        values["layers"] = [layer.to_json() for layer in self.layers] or None
        return _finish(values, self.subject, self.annotations)


@dataclass(frozen=True, slots=True)
class Index:
    """A choice of manifests, by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    subject: Descriptor | None = None
    raw: bytes = b""

    @classmethod
    def parse(cls, data: bytes, media_type: str = "") -> Index:
        """Read one.

        Raises:
            ValueError: not an index; one line.
        """
        wire = _decode(data, _Index)
        kind = wire.mediaType or media_type or OCI_INDEX
        if kind not in INDEX_TYPES:
            raise ValueError(f"{kind[:80]!r} is not an image index")
        entries = tuple(_descriptor(entry) for entry in _bounded(wire.manifests or [], "manifests"))
        subject = _descriptor(wire.subject) if wire.subject else None
        return cls(kind, entries, wire.annotations or {}, wire.artifactType, subject, data)

    def encode(self) -> bytes:
        """The bytes that were read, or those that BuildKit would write."""
        if self.raw:
            return self.raw
        values: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            values["artifactType"] = self.artifact_type
        values["manifests"] = [entry.to_json() for entry in self.manifests] or None
        return _finish(values, self.subject, self.annotations)


def media_type_of(data: bytes, said: str = "") -> str:
    """The media type of a manifest or index: its own word for it, else the transport's, else by its shape.

    Raises:
        ValueError: neither; one line.
    """
    wire = _decode(data, _Any)
    if wire.schemaVersion == 1:
        raise ValueError("a Docker schema 1 manifest, which nobody writes any more: push the image again")
    said = said.partition(";")[0].strip()
    kind = wire.mediaType or (said if said in INDEX_TYPES | MANIFEST_TYPES else "")
    if not kind:
        kind = OCI_INDEX if wire.manifests is not None else OCI_MANIFEST if wire.config is not None else ""
    if kind not in INDEX_TYPES | MANIFEST_TYPES:
        raise ValueError(f"{(kind or said)[:80]!r} is neither an image manifest nor an index")
    return kind


def parse_document(data: bytes, said: str = "") -> Manifest | Index:
    """A manifest or an index, whichever it is.

    Raises:
        ValueError: neither; one line.
    """
    kind = media_type_of(data, said)
    return Index.parse(data, kind) if kind in INDEX_TYPES else Manifest.parse(data, kind)


def layer_type(media_type: str, *, oci: bool) -> str:
    """A layer's media type in OCI's or in Docker's words; unknown ones stay (util/compression)."""
    return (_TO_OCI if oci else _TO_DOCKER).get(media_type, media_type)


def compression_of(media_type: str) -> str:
    """``gzip``, ``zstd`` or ``uncompressed``, as a layer's media type says; "" if it is no layer's.

    >>> compression_of("application/vnd.docker.image.rootfs.diff.tar.gzip")
    'gzip'
    """
    if media_type not in LAYER_TYPES:
        return ""
    return next((kind for kind in ("gzip", "zstd") if media_type.endswith(kind)), "uncompressed")


def platform_to_json(platform: Platform) -> dict[str, Any]:
    """A platform as a descriptor holds it."""
    values: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        values["os.version"] = platform.os_version
    if platform.os_features:
        values["os.features"] = list(platform.os_features)
    if platform.variant:
        values["variant"] = platform.variant
    return values


def _finish(values: dict[str, Any], subject: Descriptor | None, annotations: Mapping[str, str]) -> bytes:
    if subject is not None:
        values["subject"] = subject.to_json()
    if annotations:
        values["annotations"] = dict(sorted(annotations.items()))
    return dumps_indented(values)


class _Platform(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    version: str = msgspec.field(default="", name="os.version")
    features: list[str] | None = msgspec.field(default=None, name="os.features")
    variant: str = ""


class _Descriptor(msgspec.Struct):
    digest: str
    size: int
    mediaType: str = ""  # noqa: N815 - the wire's name
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None
    urls: list[str] | None = None
    artifactType: str = ""  # noqa: N815


class _Manifest(msgspec.Struct):
    mediaType: str = ""  # noqa: N815
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    annotations: dict[str, str] | None = None
    artifactType: str = ""  # noqa: N815
    subject: _Descriptor | None = None


class _Index(msgspec.Struct):
    mediaType: str = ""  # noqa: N815
    manifests: list[_Descriptor] | None = None
    annotations: dict[str, str] | None = None
    artifactType: str = ""  # noqa: N815
    subject: _Descriptor | None = None


class _Any(msgspec.Struct):
    schemaVersion: int = 0  # noqa: N815
    mediaType: str = ""  # noqa: N815
    manifests: Any = None
    config: Any = None


_T = TypeVar("_T", bound=msgspec.Struct)


def _decode(data: bytes, type_: type[_T]) -> _T:
    if len(data) > MAX_DOCUMENT:
        raise ValueError(f"a document of {len(data)} bytes: the limit is {MAX_DOCUMENT}")
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not what it should be: {error}") from None


def _bounded(entries: list[_Descriptor], what: str) -> list[_Descriptor]:
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{len(entries)} {what}: the limit is {MAX_ENTRIES}")
    return entries


def _descriptor(wire: _Descriptor) -> Descriptor:
    if wire.size < 0:
        raise ValueError(f"a size of {wire.size}")
    if wire.mediaType and not _TYPE.match(wire.mediaType):
        raise ValueError(f"{wire.mediaType[:80]!r} is not a media type")
    platform = None
    if wire.platform is not None:
        known = wire.platform
        features = tuple(known.features or ())
        platform = Platform(known.os, known.architecture, known.variant, known.version, features)
    return Descriptor(
        wire.mediaType, Digest.parse(wire.digest), wire.size, wire.annotations or {}, platform,
        tuple(wire.urls or ()), wire.artifactType,
    )  # fmt: skip
