"""What an output's attributes mean, in BuildKit's words (exporter/containerimage/opts.go, local/fs.go)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bknb.errors import InvalidReference, UnsupportedError, UsageError, did_you_mean
from bknb.platforms import Platform
from bknb.protocols import Compression
from bknb.reference import Reference

_ANNOTATION: Final = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)\Z")
_KINDS: Final = ("manifest", "manifest-descriptor", "index", "index-descriptor")
_LEVELS: Final = {"gzip": 9, "zstd": 22}
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_IMAGE_KEYS: Final = frozenset(
    "dest tar name push push-by-digest registry.insecure unpack store dangling-name-prefix "
    "danging-name-empty-only name-canonical oci-mediatypes oci-artifact attestation-inline "
    "prefer-nondist-layers source-date-epoch compression compression-level force-compression "
    "rewrite-timestamp compatibility-version".split()
)
_TREE_KEYS: Final = frozenset("dest platform-split attestation-prefix mode source-date-epoch".split())


@dataclass(frozen=True, slots=True)
class Epoch:
    """SOURCE_DATE_EPOCH as an output's own attribute: `seconds` None is "none, whatever the build says"."""

    seconds: int | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations for one platform, or for all of them."""

    manifest: Mapping[str, str] = field(default_factory=dict)
    manifest_descriptor: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, str] = field(default_factory=dict)
    index_descriptor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How an image is written.

    Attributes:
        names: whole names.
        oci: OCI's media types, else Docker's.
        annotations: (kind, platform or "", key) -> value.
        epoch: overrides that of the build.
        dangling: prefix of a name by digest; `dangling_only_unnamed` where there is no other.
        keep_foreign: layers that may not be distributed keep that type.
    """

    names: tuple[str, ...] = ()
    push: bool = False
    push_by_digest: bool = False
    insecure: bool = False
    store: bool = True
    oci: bool = True
    tar: bool = True
    dest: str = ""
    compression: Compression = field(default_factory=Compression)
    annotations: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    epoch: Epoch | None = None
    rewrite_timestamp: bool = False
    name_canonical: bool = False
    dangling: str = ""
    dangling_only_unnamed: bool = False
    keep_foreign: bool = False

    def annotated(self, platform: Platform | None = None) -> Annotations:
        """The annotations that hold for a platform, those for all of them first (annotations.go)."""
        wanted = {""} | ({platform.format_all()} if platform else set())

        def of(kind: str, everywhere: frozenset[str] | None) -> dict[str, str]:
            return {
                key: value
                for (its_kind, its_platform, key), value in sorted(self.annotations.items())
                if its_kind == kind and (everywhere is None or its_platform in everywhere)
            }

        these = frozenset(wanted)
        return Annotations(
            of("manifest", these), of("manifest-descriptor", these), of("index", None),
            of("index-descriptor", None),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How files are written: `split` None is a folder for each platform where there are several.

    `delete`: what is in the folder and not in the result is removed.
    """

    dest: str
    split: bool | None = None
    delete: bool = False
    epoch: Epoch | None = None


def parse_image(attrs: Mapping[str, str]) -> ImageOptions:
    """Read the attributes of an image output.

    Raises:
        UsageError: one that is not known or not understood.
        UnsupportedError: a compression that is not there yet.
    """
    annotations = {}
    for key, value in attrs.items():
        found = _ANNOTATION.match(key)
        if found is not None:
            annotations[_annotation(found)] = value
        elif key not in _IMAGE_KEYS:
            raise UsageError(f"output option {key!r} is not known{did_you_mean(key, _IMAGE_KEYS)}")
    compression = _compression(attrs)
    oci = _bool(attrs, "oci-mediatypes", True)
    if compression.type == "zstd" and not oci:
        raise UsageError('exporter option "compression=zstd" conflicts with "oci-mediatypes=false"')
    if not oci and any(kind != "manifest" for kind, _, _ in annotations):
        raise UsageError('cannot export annotations with "oci-mediatypes=false"')
    rewrite = _bool(attrs, "rewrite-timestamp", False)
    if rewrite and _flag(attrs, "unpack", False):
        raise UsageError('exporter option "rewrite-timestamp" conflicts with "unpack"')
    names, push = _names(attrs.get("name", "")), _flag(attrs, "push", False)
    if push and not names:
        raise UsageError("push needs a name: say -t REGISTRY/NAME, or name=REGISTRY/NAME")
    return ImageOptions(
        names=names,
        push=push,
        push_by_digest=_flag(attrs, "push-by-digest", False),
        insecure=_flag(attrs, "registry.insecure", False),
        store=_flag(attrs, "store", True),
        oci=oci,
        tar=_flag(attrs, "tar", True),
        dest=attrs.get("dest", ""),
        compression=compression,
        annotations=annotations,
        epoch=_epoch(attrs),
        rewrite_timestamp=rewrite,
        name_canonical=_flag(attrs, "name-canonical", False),
        dangling=attrs.get("dangling-name-prefix", ""),
        dangling_only_unnamed=_flag(attrs, "danging-name-empty-only", False),
        keep_foreign=_bool(attrs, "prefer-nondist-layers", False),
    )


def parse_tree(attrs: Mapping[str, str]) -> TreeOptions:
    """Read the attributes of a local or tar output.

    Raises:
        UsageError: one that is not known or not understood.
    """
    for key in attrs:
        if key not in _TREE_KEYS:
            raise UsageError(f"output option {key!r} is not known{did_you_mean(key, _TREE_KEYS)}")
    mode = attrs.get("mode", "") or "copy"
    if mode not in ("copy", "delete"):
        raise UsageError(f"invalid local exporter mode {mode!r}: use copy or delete")
    split = _bool(attrs, "platform-split", False) if "platform-split" in attrs else None
    return TreeOptions(attrs.get("dest", ""), split, mode == "delete", _epoch(attrs))


def _names(text: str) -> tuple[str, ...]:
    names = []
    for name in text.split(","):
        if name.strip():
            try:
                names.append(str(Reference.parse(name.strip())))
            except InvalidReference as error:
                raise UsageError(f"name={name.strip()[:200]}: {error}") from None
    return tuple(dict.fromkeys(names))


def _annotation(found: re.Match[str]) -> tuple[str, str, str]:
    kind, platform, key = found[1] or "manifest", found[2] or "", found[3]
    if kind not in _KINDS:
        raise UsageError(f"unrecognized annotation type {kind}{did_you_mean(kind, _KINDS)}")
    if platform:
        try:
            platform = Platform.parse(platform).normalize().format_all()
        except ValueError as error:
            raise UsageError(f"{found[0]}: {error}") from None
    return kind, platform, key


def _compression(attrs: Mapping[str, str]) -> Compression:
    kind = attrs.get("compression", "gzip")
    if kind in ("estargz", "nydus", "overlaybd"):
        raise UnsupportedError(f"compression={kind} is not there yet: use gzip, zstd or uncompressed")
    if kind not in ("gzip", "zstd", "uncompressed"):
        known = ("gzip", "zstd", "uncompressed")
        raise UsageError(f"unsupported compression type {kind}{did_you_mean(kind, known)}")
    level, text = None, attrs.get("compression-level")
    if text is not None:
        top = _LEVELS.get(kind, 9)
        if not re.fullmatch(r"\d{1,2}", text, re.ASCII) or int(text) > top:
            raise UsageError(f"compression-level={text[:20]} is not a level: {kind} has 0 to {top}")
        level = int(text)
    return Compression(kind, level, _bool(attrs, "force-compression", False))


def _epoch(attrs: Mapping[str, str]) -> Epoch | None:
    text = attrs.get("source-date-epoch")
    if text is None:
        return None
    if text and not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise UsageError(f"invalid source-date-epoch {text[:40]!r}: seconds since 1970")
    return Epoch(int(text) if text else None)


def _flag(attrs: Mapping[str, str], key: str, default: bool) -> bool:
    """A switch that may stand alone: ``push`` is ``push=true``."""
    return True if attrs.get(key) == "" else _bool(attrs, key, default)


def _bool(attrs: Mapping[str, str], key: str, default: bool) -> bool:
    text = attrs.get(key)
    if text is None:
        return default
    if text not in _TRUE | _FALSE:
        raise UsageError(f"non-bool value specified for {key}: {text[:40]!r}")
    return text in _TRUE
