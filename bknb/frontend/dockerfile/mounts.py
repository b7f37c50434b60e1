"""`RUN --mount=` and `RUN --device=` (frontend/dockerfile/instructions/commands_runmount.go, _rundevice.go).

A mount is read twice. When the file is parsed its variables have no value yet: only the form of the list and
`from`, which takes no variables, are looked at (`parse_mount`). When its stage is lowered every value is
expanded and then means something (`resolve_mount`); so `--mount=type=bnd` in a stage that nobody needs is
no error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.ast import Device, MountFlag
from bknb.frontend.dockerfile.commas import fields_of
from bknb.frontend.dockerfile.gotext import lower, parse_bool, parse_uint, quote
from bknb.frontend.dockerfile.suggest import search, search_in_order, with_suggestion

Expand = Callable[[str], str]
MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]

KEYS: Final = (
    "type from source target readonly id sharing required size mode uid gid "
    "src dst destination ro rw readwrite env"
).split()

_SIZE = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?) ?([a-z]*)", re.IGNORECASE | re.ASCII
)
_MULTIPLES = {unit: 1024**power for power, unit in enumerate("kmgtp", 1)}
_PLAIN_FIELDS = {
    "source": "source", "src": "source", "target": "target", "dst": "target", "destination": "target",
    "from": "from_", "id": "id", "env": "env",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunMount:
    """A `RUN --mount=` with its variables expanded: `resolve_mount` makes it.

    Attributes:
        id: of a cache, secret or ssh mount; "" means that the default applies.
        sharing: of a cache mount; "" means shared.
        size: of a tmpfs, in bytes; 0 means no limit.
        env: a secret's environment variable; None if it has none, "" for the default name.
        mode: permission bits as written; None if not given. uid and gid likewise.
    """

    type: MountType = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = False
    size: int = 0
    id: str = ""
    sharing: Sharing | Literal[""] = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def parse_mount(text: str) -> MountFlag:
    """Reads a mount as far as that is possible before its variables have values.

    Raises:
        DockerfileError: it is no comma-separated list, or `from` has a variable.
    """
    fields = _fields(text, "mounts")
    from_ = ""
    for field in fields:
        key, sign, value = field.partition("=")
        key = lower(key)
        if key == "from" and sign:
            if "$" in value[:-1]:
                raise DockerfileError(
                    f"'{key}' doesn't support variable expansion, define alias stage instead"
                )
            from_ = value
    return MountFlag(text, tuple(fields), from_)


def resolve_mount(flag: MountFlag, expand: Expand) -> RunMount:
    """Gives a mount its meaning.

    Args:
        flag: as parsed.
        expand: puts the values of variables into a text.

    Raises:
        DockerfileError: a field that does not exist, does not fit the type of mount, or has a wrong value.
    """
    mount: dict[str, Any] = {"type": "bind"}
    for field in flag.fields:
        key, sign, value = field.partition("=")
        if sign:
            _set_field(mount, lower(key), expand(value), field)
        else:
            _set_switch(mount, field)
    mount.setdefault("readonly", mount["type"] not in ("cache", "tmpfs"))
    resolved = RunMount(**mount)
    _check(resolved)
    return resolved


def _set_switch(mount: dict[str, Any], field: str) -> None:
    match lower(field):
        case "readonly" | "ro":
            mount["readonly"] = True
        case "readwrite" | "rw":
            mount["readonly"] = False
        case "required":
            _only_for(mount, "required", "secret", "ssh")
            mount["required"] = True
        case _:
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")


def _set_field(mount: dict[str, Any], key: str, value: str, field: str) -> None:
    if key in _PLAIN_FIELDS:
        mount[_PLAIN_FIELDS[key]] = value
        return
    match key:
        case "type":
            mount["type"] = _choice(value, get_args(MountType), "mount type")
        case "sharing":
            mount["sharing"] = _choice(value, get_args(Sharing), "sharing value")
        case "readonly" | "ro":
            mount["readonly"] = _boolean(key, value)
        case "readwrite" | "rw":
            mount["readonly"] = not _boolean(key, value)
        case "required":
            _only_for(mount, key, "secret", "ssh")
            mount["required"] = _boolean(key, value)
        case "size":
            _only_for(mount, key, "tmpfs")
            if (size := parse_size(value)) is None:
                raise DockerfileError(f"invalid value for {key}: {value}")
            mount["size"] = size
        case "mode" | "uid" | "gid":
            number = parse_uint(value, 8 if key == "mode" else 10, 32)
            if number is None:
                raise DockerfileError(f"invalid value {value} for {key}")
            mount[key] = number
        case _:
            raise with_suggestion(f"unexpected key '{key}' in '{field}'", search_in_order(key, KEYS))


def _check(mount: RunMount) -> None:
    """What does not go together."""
    if mount.type in ("bind", "tmpfs"):
        for name in ("mode", "uid", "gid"):
            if getattr(mount, name) is not None:
                raise DockerfileError(f'{name} not allowed for "{mount.type}" type mounts')
    if mount.type == "secret":
        if mount.from_:
            raise DockerfileError("secret mount should not have a from")
        if mount.sharing:
            raise DockerfileError("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise DockerfileError("both source and id can't be set")
    if mount.sharing and mount.type != "cache":
        raise DockerfileError(f"invalid cache sharing set for {mount.type} mount")


def _only_for(mount: dict[str, Any], key: str, *types: MountType) -> None:
    if mount["type"] not in types:
        raise DockerfileError(f"unexpected key '{key}' for mount type '{mount['type']}'")


def _choice(value: str, choices: tuple[str, ...], what: str) -> str:
    if (found := lower(value)) not in choices:
        raise with_suggestion(f"unsupported {what} {quote(value)}", search(value, choices))
    return found


def _boolean(key: str, value: str) -> bool:
    if (found := parse_bool(value)) is None:
        raise DockerfileError(f"invalid value for {key}: {value}")
    return found


def parse_size(text: str) -> int | None:
    """Bytes of a size such as `64m`; units are powers of 1024 (docker/go-units RAMInBytes). None if wrong.

    >>> parse_size("64m"), parse_size("1.5 KiB"), parse_size("-1"), parse_size("1x")
    (67108864, 1536, None, None)
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    size, suffix = float(found[1]), found[2].lower()
    if size < 0 or size == float("inf"):
        return None
    if suffix not in ("", "b"):
        if suffix[0] not in _MULTIPLES or suffix[1:] not in ("", "b", "ib"):
            return None
        size *= _MULTIPLES[suffix[0]]
    # What a float too large for an int64 becomes on amd64.
    return int(size) if size < 1 << 63 else -(1 << 63)


def parse_device(text: str) -> Device:
    """Reads a `--device`.

    Raises:
        DockerfileError: its fields cannot be understood.
    """
    name, required = "", False
    for field in _fields(text, "devices"):
        key, sign, value = field.partition("=")
        key = lower(key)
        if key == "required":
            required = _boolean(key, value) if sign else True
        elif sign and key == "name":
            if name:
                raise DockerfileError(f"device name already set to {name}")
            name = value
        elif not name:
            name = field
        elif not sign:
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
        else:
            raise with_suggestion(
                f"unexpected key '{key}' in '{field}'", search_in_order(key, ("name", "required"))
            )
    return Device(name, required)


def _fields(text: str, what: str) -> list[str]:
    try:
        return fields_of(text)
    except DockerfileError as error:
        raise DockerfileError(f"failed to parse csv {what}: {error.message}") from None
