"""Values of single options: sizes, pairs, outputs, limits, hosts."""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bknb.errors import UnsupportedError, UsageError, did_you_mean

_SIZES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "t": 1 << 40,
    "tb": 1 << 40,
}


@dataclass(frozen=True, slots=True)
class Output:
    """One ``--output``: its type and attributes."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


def size(text: str, option: str) -> int:
    """Bytes of ``64m``, ``1g``, ``1048576``.

    Raises:
        UsageError: not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)\s*", text, re.IGNORECASE)
    unit = found[2].lower().replace("i", "") if found else ""
    if found is None or unit not in _SIZES:
        raise UsageError(f"{option} {text}: it is not a size; write 64m or 1g")
    return int(float(found[1]) * _SIZES[unit])


def pairs(values: Sequence[str], option: str, *, lone: bool = False) -> dict[str, str | None]:
    """``NAME=VALUE`` of a repeated option; `lone` names have no value."""
    found: dict[str, str | None] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name or not (equals or lone):
            raise UsageError(f"{option} {text}: write NAME=VALUE")
        found[name] = value if equals else None
    return found


def output(text: str) -> Output:
    """One ``--output``: CSV fields, or a folder, or ``-``."""
    fields = next(csv.reader(io.StringIO(text))) if text else []
    if len(fields) == 1 and "=" not in fields[0]:
        if fields[0] == "-":
            return Output("tar", {"dest": "-"})
        return Output("local", {"dest": os.path.abspath(os.path.expanduser(fields[0]))})
    attrs: dict[str, str] = {}
    for part in fields:
        key, equals, value = part.strip().partition("=")
        if not equals:
            raise UsageError(f"--output {text}: {part!r} is not key=value; write type=oci,dest=image.tar")
        attrs[key.lower()] = value
    kind = attrs.pop("type", "")
    if kind == "registry":
        kind, attrs = "image", {**attrs, "push": "true"}
    known = ("image", "oci", "docker", "local", "tar", "cacheonly")
    if kind not in known:
        raise UsageError(f"--output {text}: type is one of {', '.join(known)}{did_you_mean(kind, known)}")
    if kind in ("oci", "docker", "local", "tar") and not attrs.get("dest"):
        if kind != "docker":
            raise UsageError(f"--output {text}: say where it goes: dest=PATH")
        raise UnsupportedError(
            "--output type=docker without dest= loads into a Docker Engine, which is not there yet; write dest=image.tar and docker load it"
        )
    if attrs.get("dest") not in (None, "-"):
        attrs["dest"] = os.path.abspath(os.path.expanduser(attrs["dest"]))
    return Output(kind, attrs)


def ulimit(text: str) -> str:
    """``NAME=SOFT[:HARD]``, checked."""
    if not re.fullmatch(r"[a-z]+=-?\d+(:-?\d+)?", text):
        raise UsageError(f"--ulimit {text}: write NAME=SOFT[:HARD], such as nofile=1024:2048")
    name, _, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    return f"{name}={soft}:{hard if colon else soft}"


def entitlement(text: str) -> str:
    """What ``--allow`` names, checked."""
    known = ("network.host", "security.insecure")
    if text not in known:
        raise UsageError(
            f"--allow {text}: it is network.host or security.insecure{did_you_mean(text, known)}"
        )
    return text


def hosts(texts: Sequence[str]) -> list[str]:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS``, as BuildKit's option has them."""
    out = []
    for text in texts:
        host, separator, address = text.partition("=") if "=" in text else text.partition(":")
        if not host or not separator or not address:
            raise UsageError(f"--add-host {text}: write HOST:IP")
        out.append(f"{host}={address.strip('[]')}")
    return out


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not a whole number") from None


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)
