"""Read-only views: what an image's config says, and which manifest of an index is meant.

The platform rules are those of containerd's ``platforms`` package (``Only``): a platform also takes what it
can run natively, the closest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from bknb.digest import Digest
from bknb.oci import canonical
from bknb.oci.types import MANIFEST_TYPES, MAX_DOCUMENT, MAX_ENTRIES, Descriptor, Index, Manifest
from bknb.platforms import Platform

ATTESTATION: Final = "vnd.docker.reference.type"
_ARM64: Final = {f"v8.{minor}" if minor else "v8": ((8, minor),) for minor in range(10)} | {
    f"v9.{minor}" if minor else "v9": ((9, minor), (8, min(minor + 5, 9))) for minor in range(8)
}


@dataclass(frozen=True, slots=True)
class History:
    """One line of an image's history; `created` is RFC 3339 text, None where nothing is said."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The part of an image config that building needs; `raw` has all of it."""

    platform: Platform
    rootfs_type: str
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]
    raw: bytes

    @classmethod
    def parse(cls, data: bytes) -> Config:
        """Read one.

        Raises:
            ValueError: not an image config; one line.
        """
        if len(data) > MAX_DOCUMENT:
            raise ValueError(f"an image config of {len(data)} bytes: the limit is {MAX_DOCUMENT}")
        try:
            wire = msgspec.json.decode(data, type=_Config)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not an image config: {error}") from None
        rootfs = wire.rootfs or _RootFS()
        diff_ids = tuple(Digest.parse(text) for text in rootfs.diff_ids or ())
        history = tuple(
            History(h.created, h.created_by, h.author, h.comment, h.empty_layer) for h in wire.history or ()
        )
        if max(len(diff_ids), len(history)) > MAX_ENTRIES:
            raise ValueError(f"an image config of more than {MAX_ENTRIES} layers or history lines")
        platform = Platform(
            wire.os, wire.architecture, wire.variant, wire.os_version, tuple(wire.os_features or ())
        )
        return cls(platform, rootfs.type, diff_ids, history, data)

    @property
    def labels(self) -> dict[str, str]:
        """The labels of ``config.Labels``, or none."""
        try:
            return msgspec.json.decode(self.raw, type=_Labelled).config.labels or {}
        except (msgspec.DecodeError, AttributeError):
            return {}


@dataclass(frozen=True, slots=True)
class Image:
    """One image, whole, as documents.

    >>> empty = Config.parse(b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers"}}')
    >>> str(empty.platform)
    'linux/amd64'
    """

    manifest: Manifest
    config: Config

    @classmethod
    def parse(cls, manifest: bytes, config: bytes, media_type: str = "") -> Image:
        """Read both, and see that they are of one image.

        Raises:
            ValueError: one of them is wrong, or they do not belong together.
        """
        read = cls(Manifest.parse(manifest, media_type), Config.parse(config))
        if (
            Digest.of(config) != read.manifest.config.digest
            and read.manifest.config.digest.algorithm == "sha256"
        ):
            raise ValueError("the image config is not the one that the manifest names")
        if len(read.manifest.layers) != len(read.config.diff_ids):
            counts = len(read.manifest.layers), len(read.config.diff_ids)
            raise ValueError("the manifest has {} layers, the image config {}".format(*counts))
        return read

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return Digest.of(self.manifest.encode())

    @property
    def layers(self) -> tuple[tuple[Descriptor, Digest], ...]:
        """Each layer's blob and diff id, bottom first."""
        return tuple(zip(self.manifest.layers, self.config.diff_ids, strict=True))


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The identity of a stack of layers (image-spec config.md, "Layer ChainID").

    >>> chain_id([Digest("sha256:a")])
    'sha256:a'
    """
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of_text(f"{chain} {diff_id}")
    return chain


def candidates(platform: Platform) -> tuple[Platform, ...]:
    """What a platform runs without emulation, the best first (containerd platforms, ``platformVector``)."""
    wanted = platform.normalize()
    system, variant = wanted.os, wanted.variant
    digits = variant.removeprefix("v")
    version = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 3 else 0
    found = [wanted]
    if wanted.architecture == "amd64":
        found += [replace(wanted, variant=f"v{n}") for n in range(version - 1, 0, -1)]
        found.append(replace(wanted, architecture="386", variant=""))
    elif wanted.architecture == "arm":
        found += [replace(wanted, variant=f"v{n}") for n in range(version - 1, 4, -1)]
    elif wanted.architecture == "arm64":
        found = [
            replace(wanted, variant=f"v{major}.{minor}" if minor else f"v{major}")
            for major, top in _ARM64.get(variant or "v8", ())
            for minor in range(top, -1, -1)
        ]
        if found:
            found += candidates(Platform(system, "arm", "v8", wanted.os_version, wanted.os_features))
    return tuple(found)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether an image for `offered` is one for `wanted`, both normalized; windows by its build number."""
    ours, theirs = wanted.normalize(), offered.normalize()
    if (ours.os, ours.architecture, ours.variant) != (theirs.os, theirs.architecture, theirs.variant):
        return False
    if ours.os == "windows" and ours.os_version and theirs.os_version:
        return ours.os_version.split(".")[:3] == theirs.os_version.split(".")[:3]
    return True


def select(index: Index, platform: Platform) -> Descriptor | None:
    """The manifest of an index that is the best for a platform; None if none is.

    Entries that say no platform come last, in their order; attestations are never meant.
    """
    entries = [
        e for e in index.manifests if e.media_type in MANIFEST_TYPES and ATTESTATION not in e.annotations
    ]
    for wanted in candidates(platform):
        for entry in entries:
            if entry.platform is not None and entry.platform.os and matches(wanted, entry.platform):
                return entry
    return next((entry for entry in entries if entry.platform is None or not entry.platform.os), None)


def offered(index: Index) -> str:
    """The platforms of an index, for people."""
    names = (
        str(e.platform)
        for e in index.manifests
        if e.platform and e.platform.os and ATTESTATION not in e.annotations
    )
    return ", ".join(dict.fromkeys(names)) or "none"


def manifest_key(digest: Digest, platform: Platform, layer_limit: int | None = None) -> Digest:
    """The first, cheap cache key of an image: by its manifest or index (source/containerimage/pull.go)."""
    normal = platform.normalize()
    values: dict[str, object] = {"Digest": digest, "OS": normal.os, "Arch": normal.architecture}
    optional = {
        "Variant": normal.variant,
        "OSVersion": normal.os_version,
        "OSFeatures": list(normal.os_features),
    }
    values |= {key: value for key, value in optional.items() if value}
    if layer_limit is not None:
        values["Limit"] = layer_limit
    return Digest.of(canonical.dumps(values))


def config_key(config: bytes, layer_limit: int | None = None) -> Digest | None:
    """The second cache key: the chain id of the layers; None where the first one stays (pull.go).

    Raises:
        ValueError: a layer limit that the config has not the layers for.
    """
    try:
        read = Config.parse(config)
    except ValueError:
        if layer_limit is not None:
            raise
        return Digest.of(config)
    diff_ids = read.diff_ids
    if layer_limit is not None:
        if len(diff_ids) < layer_limit:
            raise ValueError(f"image has {len(diff_ids)} layers, limit is {layer_limit}")
        diff_ids = diff_ids[:layer_limit]
    return chain_id(diff_ids) if read.rootfs_type == "layers" and diff_ids else None


class _RootFS(msgspec.Struct):
    type: str = ""
    diff_ids: list[str] | None = None


class _History(msgspec.Struct):
    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class _Config(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    variant: str = ""
    rootfs: _RootFS | None = None
    history: list[_History] | None = None


class _Labels(msgspec.Struct):
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")


class _Labelled(msgspec.Struct):
    config: _Labels
