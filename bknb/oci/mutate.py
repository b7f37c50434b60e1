"""New documents from old ones: layers and history into a config, members changed one by one.

How history lines and layers are fitted to each other, and which times they get, is BuildKit's
(exporter/containerimage/writer.go); with the same layers the config has the same digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bknb.digest import Digest
from bknb.oci import times
from bknb.oci.canonical import dumps, from_members, members
from bknb.oci.image import Config, History, Image
from bknb.oci.types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    layer_type,
)

EXPORTER: Final = "buildkit.exporter.image.v0"


@dataclass(frozen=True, slots=True)
class AddedLayer:
    """A layer on its way into an image. `created` is RFC 3339 text, `description` its history line."""

    descriptor: Descriptor
    diff_id: Digest
    created: str | None = None
    description: str = ""


def fit_history(history: Sequence[History], layers: Sequence[AddedLayer]) -> tuple[History, ...]:
    """One line for each layer, and a time for each line.

    Lines too many lose their layer, from the bottom up; layers without a line get one; times that are
    missing are the layer's, else those of the next new layer, else of the last one that has any.
    """
    fitted: list[History] = []
    used = 0
    for line in history:
        fitted.append(replace(line, empty_layer=line.empty_layer or used >= len(layers)))
        used += not fitted[-1].empty_layer
    fitted += [History(a.created, a.description, comment=EXPORTER) for a in layers[used:]]
    position = 0
    for number, line in enumerate(fitted):
        if not line.empty_layer:
            fitted[number] = replace(line, created=line.created or layers[position].created)
            position += 1
    return _fill_times(fitted)


def _fill_times(history: Sequence[History]) -> tuple[History, ...]:
    created, missing = None, False
    for line in history:
        if line.created:
            created = line.created
            if missing:
                break
        else:
            missing = True
    filled, missing = [], False
    for line in history:
        if line.created:
            created = line.created if missing else created
        else:
            missing = True
            line = replace(line, created=created)
        filled.append(line)
    return tuple(filled)


def patch_config(
    config: bytes,
    layers: Sequence[AddedLayer],
    *,
    epoch: int | None = None,
    base: bytes = b"",
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    """The config of the image that has these layers, as BuildKit writes it: keys sorted, no spaces.

    Args:
        config: what the frontend made, its history without times.
        layers: all of them, bottom first.
        epoch: SOURCE_DATE_EPOCH in seconds: no time is later, save those of the base image.
        base: the base image's own config, if known.
        extra: further members, such as ``moby.buildkit.cache.v0``.

    Raises:
        ValueError: the config is none, or says neither os nor architecture.
    """
    read, values = Config.parse(config), members(config)
    if not read.platform.os or not read.platform.architecture:
        missing = "os" if not read.platform.os else "architecture"
        raise ValueError(f"invalid image config for export: missing {missing}")
    history = [replace(h, created=times.normalize(h.created) if h.created else None) for h in read.history]
    fitted = list(fit_history(history, layers))
    if epoch is not None:
        fitted = _clamp(fitted, epoch, Config.parse(base).history if base else ())
    nothing = values.get("history", b"null").strip() == b"null"
    values["rootfs"] = dumps({"type": "layers", "diff_ids": [layer.diff_id for layer in layers] or None})
    values["history"] = dumps([_line(line) for line in fitted] or (None if nothing else []))
    created = next((line.created for line in reversed(fitted) if line.created), None)
    if "created" not in values:
        values["created"] = dumps(created)
    elif epoch is not None:
        said = values["created"].strip(b'" \t\r\n').decode(errors="replace")
        if said != "null" and times.parse(said) > epoch * times.NANO:
            values["created"] = dumps(times.render(epoch * times.NANO))
    values.update(extra or {})
    return from_members(values)


def _clamp(history: Sequence[History], epoch: int, base: Sequence[History]) -> list[History]:
    limit, clamped, diverged = times.render(epoch * times.NANO), [], False
    for number, line in enumerate(history):
        diverged = diverged or number >= len(base) or not _same_line(line, base[number])
        if diverged and (line.created is None or times.parse(line.created) > epoch * times.NANO):
            line = replace(line, created=limit)
        clamped.append(line)
    return clamped


def _same_line(one: History, other: History) -> bool:
    def moment(line: History) -> int | None:
        return times.parse(line.created) if line.created else None

    return moment(one) == moment(other) and replace(one, created=None) == replace(other, created=None)


def _line(line: History) -> dict[str, Any]:
    values: dict[str, Any] = {"created": line.created, "created_by": line.created_by, "author": line.author}
    values |= {"comment": line.comment, "empty_layer": line.empty_layer}
    return {key: value for key, value in values.items() if value}


def manifest_for(
    config: bytes, layers: Sequence[Descriptor], *, oci: bool, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """The manifest of a config and its layers, in OCI's or Docker's media types."""
    kind = OCI_CONFIG if oci else DOCKER_CONFIG
    listed = tuple(
        Descriptor(
            layer_type(layer.media_type, oci=oci), layer.digest, layer.size,
            layer.annotations if oci else {}, urls=layer.urls,
        )
        for layer in layers
    )  # fmt: skip
    return Manifest(
        OCI_MANIFEST if oci else DOCKER_MANIFEST,
        Descriptor(kind, Digest.of(config), len(config)),
        listed,
        dict(annotations or {}),
    )


def append(image: Image, layers: Sequence[AddedLayer], history: Sequence[History] = ()) -> Image:
    """An image with further layers and history lines on top; unknown fields of both documents stay.

    `history` are the lines of the added layers, empty ones among them; without it each layer gets its own
    line.
    """
    lines = tuple(history) or tuple(History(a.created, a.description) for a in layers)
    config = members(image.config.raw)
    diff_ids = [*image.config.diff_ids, *(layer.diff_id for layer in layers)]
    config["rootfs"] = dumps({"type": "layers", "diff_ids": diff_ids})
    config["history"] = dumps([_line(line) for line in (*image.config.history, *lines)])
    return _with(image, from_members(config), [layer.descriptor for layer in layers])


def with_members(image: Image, changes: Mapping[str, Any]) -> Image:
    """An image whose config's ``config`` object has other values (``Cmd``, ``Labels``...); None removes."""
    config = members(image.config.raw)
    inner = members(config["config"]) if config.get("config", b"null").strip() != b"null" else {}
    for key, value in changes.items():
        if value is None:
            inner.pop(key, None)
        else:
            inner[key] = dumps(value)
    config["config"] = from_members(inner)
    return _with(image, from_members(config), [])


def _with(image: Image, config: bytes, added: Sequence[Descriptor]) -> Image:
    old = image.manifest
    described = replace(old.config, digest=Digest.of(config), size=len(config))
    values = members(old.encode())
    layers = members(b'{"layers":%s}' % values.get("layers", b"null"))["layers"].strip()
    kept = [] if layers == b"null" else [layer.to_json() for layer in old.layers]
    values["config"] = dumps(described.to_json())
    values["layers"] = dumps([*kept, *(layer.to_json() for layer in added)])
    return Image.parse(from_members(values), config, old.media_type)
