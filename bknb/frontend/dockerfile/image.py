"""The image config that a stage grows, read and written as Go's struct of it.

The field order, and which empty values are left out, are those of docker-image-spec's ``DockerOCIImage``: the
text goes into the image, and its digest is the image's id.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from bknb import gojson
from bknb.errors import DockerfileError
from bknb.llb.run import DEFAULT_PATH
from bknb.platforms import Platform

HISTORY_COMMENT: Final = "buildkit.dockerfile.v0"
_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:[.,](\d{1,9})\d*)?(Z|[+-]\d{2}:\d{2})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class History:
    """One line of an image's history."""

    created_by: str = ""
    created: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, Any]:
        """As Go writes it."""
        return _filled({
            "created": self.created, "created_by": self.created_by, "author": self.author,
            "comment": self.comment, "empty_layer": self.empty_layer,
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """How the container's health is asked; durations in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    def to_json(self) -> dict[str, Any]:
        """As Go writes it."""
        return _filled({
            "Test": list(self.test), "Interval": self.interval, "Timeout": self.timeout,
            "StartPeriod": self.start_period, "StartInterval": self.start_interval, "Retries": self.retries,
        })  # fmt: skip


class EnvList:
    """``KEY=value`` entries: a variable that is set again keeps its place."""

    __slots__ = ("_places", "entries")

    def __init__(self, entries: list[str]) -> None:
        self.entries = entries
        self._places: dict[str, int] = {}
        for place, entry in enumerate(entries):
            self._places.setdefault(entry.partition("=")[0], place)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def set(self, key: str, value: str) -> None:
        """Set one variable."""
        place = self._places.setdefault(key, len(self.entries))
        if place == len(self.entries):
            self.entries.append("")
        self.entries[place] = f"{key}={value}"

    def pairs(self) -> list[tuple[str, str]]:
        """Keys and values, in order."""
        return [(key, value) for key, _, value in (entry.partition("=") for entry in self.entries)]


@dataclass(slots=True)
class ImageConfig:
    """An image config while its stage is lowered."""

    architecture: str = ""
    os: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    variant: str = ""
    created: str = ""
    author: str = ""
    rootfs_type: str = ""
    diff_ids: tuple[str, ...] | None = None
    history: list[History] = field(default_factory=list)
    user: str = ""
    exposed_ports: set[str] = field(default_factory=set)
    env: EnvList = field(default_factory=lambda: EnvList([]))
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: set[str] = field(default_factory=set)
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: HealthConfig | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()

    @classmethod
    def empty(cls, platform: Platform) -> ImageConfig:
        """The config of scratch."""
        env = [] if platform.os == "windows" else [f"PATH={DEFAULT_PATH}"]
        return cls(
            architecture=platform.architecture,
            os=platform.os,
            os_version=platform.os_version,
            os_features=platform.os_features,
            variant=platform.variant,
            rootfs_type="layers",
            working_dir="/",
            env=EnvList(env),
        )

    @classmethod
    def parse(cls, text: bytes) -> ImageConfig:
        """Read the JSON of a config.

        Raises:
            DockerfileError: it is none.
        """
        try:
            return _parse(_folded(json.loads(text)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DockerfileError(f"failed to parse image config: {error}") from None

    @property
    def platform(self) -> Platform:
        """What it says of the platform."""
        return Platform(self.os, self.architecture, self.variant, self.os_version, self.os_features)

    @platform.setter
    def platform(self, platform: Platform) -> None:
        self.os, self.architecture, self.variant = platform.os, platform.architecture, platform.variant
        self.os_version, self.os_features = platform.os_version, platform.os_features

    def clone(self) -> ImageConfig:
        """A copy that grows on its own."""
        return ImageConfig(
            self.architecture, self.os, self.os_version, self.os_features, self.variant, self.created,
            self.author, self.rootfs_type, self.diff_ids, self.history.copy(), self.user,
            self.exposed_ports.copy(), EnvList(self.env.entries.copy()), self.entrypoint, self.cmd,
            self.volumes.copy(), self.working_dir, self.labels.copy(), self.stop_signal, self.args_escaped,
            self.healthcheck, self.on_build, self.shell,
        )  # fmt: skip

    def to_json(self) -> str:
        """The exact text."""
        config = _filled({
            "User": self.user,
            "ExposedPorts": {port: {} for port in _sorted(self.exposed_ports)},
            "Env": self.env.entries,
            "Entrypoint": list(self.entrypoint or ()),
            "Cmd": list(self.cmd or ()),
            "Volumes": {volume: {} for volume in _sorted(self.volumes)},
            "WorkingDir": self.working_dir,
            "Labels": {key: self.labels[key] for key in _sorted(self.labels)},
            "StopSignal": self.stop_signal,
            "ArgsEscaped": self.args_escaped,
        })  # fmt: skip
        if self.healthcheck is not None:
            config["Healthcheck"] = self.healthcheck.to_json()
        config |= _filled({"OnBuild": list(self.on_build), "Shell": list(self.shell)})
        image = _filled({"created": self.created, "author": self.author})
        image |= {"architecture": self.architecture, "os": self.os}
        image |= _filled({
            "os.version": self.os_version, "os.features": list(self.os_features), "variant": self.variant,
        })  # fmt: skip
        diff_ids = None if self.diff_ids is None else list(self.diff_ids)
        image["rootfs"] = {"type": self.rootfs_type, "diff_ids": diff_ids}
        image |= _filled({"history": [line.to_json() for line in self.history]})
        image["config"] = config
        return gojson.dumps(image)


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Without the empty ones, as ``omitempty`` has it."""
    return {key: value for key, value in values.items() if value}


def _sorted(names: Any) -> list[str]:
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def _folded(value: Any) -> dict[str, Any]:
    """A JSON object as Go reads it into a struct: names in any case, null is nothing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"json: cannot unmarshal {type(value).__name__} into Go value of type v1.Image")
    return {key.lower(): item for key, item in value.items() if item is not None}


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("json: cannot unmarshal into a list of texts")
    return tuple(_text(item) for item in value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("json: cannot unmarshal into a text")
    return value


def _time(value: Any) -> str:
    """A time as Go writes it back: no trailing zeros, UTC as Z."""
    found = _TIME.fullmatch(_text(value))
    if found is None:
        raise ValueError(f'parsing time "{value}": not a time')
    fraction = (found[2] or "").rstrip("0")
    zone = "Z" if found[3] in ("Z", "+00:00", "-00:00") else found[3]
    return found[1] + (f".{fraction}" if fraction else "") + zone


def _keys(value: Any) -> set[str]:
    if not isinstance(value, dict):
        raise TypeError("json: cannot unmarshal into a set")
    return set(value)


def _parse(image: dict[str, Any]) -> ImageConfig:
    found = ImageConfig(
        architecture=_text(image.get("architecture")),
        os=_text(image.get("os")),
        os_version=_text(image.get("os.version")),
        os_features=_texts(image.get("os.features", [])),
        variant=_text(image.get("variant")),
        author=_text(image.get("author")),
        created=_time(image["created"]) if "created" in image else "",
    )
    rootfs = _folded(image.get("rootfs"))
    found.rootfs_type = _text(rootfs.get("type"))
    found.diff_ids = _texts(rootfs["diff_ids"]) if "diff_ids" in rootfs else None
    for line in map(_folded, image.get("history", [])):
        found.history.append(History(
            _text(line.get("created_by")), _time(line["created"]) if "created" in line else "",
            _text(line.get("author")), _text(line.get("comment")), line.get("empty_layer") is True,
        ))  # fmt: skip
    _parse_config(found, _folded(image.get("config")))
    return found


def _parse_config(found: ImageConfig, config: dict[str, Any]) -> None:
    found.user = _text(config.get("user"))
    found.exposed_ports = _keys(config.get("exposedports", {}))
    found.env = EnvList(list(_texts(config.get("env", []))))
    found.entrypoint = _texts(config["entrypoint"]) if "entrypoint" in config else None
    found.cmd = _texts(config["cmd"]) if "cmd" in config else None
    found.volumes = _keys(config.get("volumes", {}))
    found.working_dir = _text(config.get("workingdir"))
    labels = config.get("labels", {})
    found.labels = {key: _text(labels[key]) for key in _keys(labels)}
    found.stop_signal = _text(config.get("stopsignal"))
    found.args_escaped = config.get("argsescaped") is True
    found.on_build = _texts(config.get("onbuild", []))
    found.shell = _texts(config.get("shell", []))
    if "healthcheck" in config:
        health = _folded(config["healthcheck"])
        found.healthcheck = HealthConfig(
            _texts(health.get("test", [])),
            *(
                int(health.get(key, 0))
                for key in ("interval", "timeout", "startperiod", "startinterval", "retries")
            ),
        )
