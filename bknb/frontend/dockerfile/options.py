"""The frontend's options, as ``buildctl build --opt k=v`` sends them (frontend/dockerui)."""

from __future__ import annotations

import csv
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import parse_bool, quote
from bknb.llb.ops import HostIP, NetMode, ProxyEnv, Ulimit
from bknb.llb.vertex import LinuxResources
from bknb.platforms import Platform

_LIMITS: Final = "failed to parse resource limits"
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_CPUSET: Final = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
_MODES: Final = {"": "default", "default": "default", "pull": "pull", "local": "local"}
_NETWORKS: Final = {"": NetMode.UNSET, "sandbox": NetMode.UNSET, "none": NetMode.NONE, "host": NetMode.HOST}
_ULIMITS: Final = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


@dataclass(frozen=True, slots=True)
class FrontendOptions:
    """Everything that a request says beside the Dockerfile.

    Attributes:
        platforms: those asked for, normalised; empty for the worker's own.
        build_platform: the worker's.
        multi_platform: results are named by platform, even a single one.
        no_cache: stages, and steps as ``STAGE:LINE``, that are always run; None for none, empty for all.
        build_args: by name.
        check: the value of BUILDKIT_DOCKERFILE_CHECK, None if not given.
        raw: the options themselves.
    """

    raw: Mapping[str, str]
    build_platform: Platform
    platforms: tuple[Platform, ...] = ()
    multi_platform: bool = False
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    resolve_mode: str = "default"
    network: NetMode = NetMode.UNSET
    extra_hosts: tuple[HostIP, ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    resources: LinuxResources | None = None
    cgroup_parent: str = ""
    hostname: str = ""
    cache_namespace: str = ""
    no_cache: tuple[str, ...] | None = None
    check: str | None = None

    @classmethod
    def parse(cls, opts: Mapping[str, str], build_platform: Platform) -> FrontendOptions:
        """Read the options.

        Raises:
            DockerfileError: one of them has a wrong value.
        """
        if opts.get("override-copy-image"):
            raise DockerfileError('support for "override-copy-image" was removed in BuildKit 0.11')
        if parse_bool(opts.get("build-arg:BUILDKIT_DISABLE_FILEOP", "")):
            raise DockerfileError(
                'support for "BUILDKIT_DISABLE_FILEOP" build-arg was removed in BuildKit 0.11'
            )
        platforms = _platforms(opts.get("platform", ""))
        mode = opts.get("image-resolve-mode", "")
        if mode not in _MODES:
            raise DockerfileError(f"invalid image-resolve-mode: {mode}")
        network = opts.get("force-network-mode", "")
        hosts = _hosts(opts.get("add-hosts", ""))
        shm_size = _number("failed to parse shm size", opts.get("shm-size", ""))
        ulimits = _ulimits(opts.get("ulimit", ""))
        resources = _resources(opts)
        if network not in _NETWORKS:
            raise DockerfileError(f"invalid netmode {network}")
        no_cache = opts.get("no-cache")
        multi = _multi_platform(opts, many=len(platforms) > 1)
        _check_cache_imports(opts.get("cache-imports", ""))
        return cls(
            raw=opts,
            build_platform=build_platform,
            platforms=platforms,
            multi_platform=multi,
            target=opts.get("target", ""),
            build_args=_below(opts, "build-arg:"),
            labels=_below(opts, "label:"),
            resolve_mode=_MODES[mode],
            network=_NETWORKS[network],
            extra_hosts=hosts,
            shm_size=shm_size,
            ulimits=ulimits,
            resources=resources,
            cgroup_parent=opts.get("cgroup-parent", ""),
            hostname=opts.get("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "") or opts.get("hostname", ""),
            cache_namespace=opts.get("build-arg:BUILDKIT_CACHE_MOUNT_NS", ""),
            no_cache=None if no_cache is None else tuple(no_cache.split(",")) if no_cache else (),
            check=opts.get("build-arg:BUILDKIT_DOCKERFILE_CHECK"),
        )

    def ignores_cache(self, stage: str) -> bool:
        """Whether the steps of a stage are always run; "" is a stage without a name."""
        if self.no_cache is None:
            return False
        return not self.no_cache or stage.lower() in (name.lower() for name in self.no_cache)

    def ignores_line(self, names: Collection[str], first: int, last: int) -> bool:
        """Whether the step with these lines, in a stage with these names, is always run: ``STAGE:LINE``."""
        for word in self.no_cache or ():
            stage, colon, line = word.rpartition(":")
            if colon and line.isdecimal() and stage.lower() in names and first <= int(line[:9]) <= last:
                return True
        return False

    def session_of(self, local: str, session: str) -> str:
        """The session that a local folder comes from."""
        return self.raw.get(f"local-sessionid:{local}", session)


def _below(opts: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in opts.items() if key.startswith(prefix)}


def _platforms(text: str) -> tuple[Platform, ...]:
    found = []
    for word in text.split(",") if text else ():
        try:
            found.append(Platform.parse(word).normalize())
        except ValueError as error:
            raise DockerfileError(f"failed to parse target platform {word}: {error}") from None
    return tuple(found)


def _multi_platform(opts: Mapping[str, str], *, many: bool) -> bool:
    text = opts.get("build-arg:BUILDKIT_MULTI_PLATFORM", "") or opts.get("multi-platform", "")
    if not text:
        return many
    asked = parse_bool(text)
    if asked is None:
        raise DockerfileError(f"invalid boolean value for multi-platform: {text}")
    if many and not asked:
        raise DockerfileError("conflicting config: returning multiple target platforms is not allowed")
    return asked


def _fields(text: str) -> list[str]:
    return next(csv.reader([text])) if text else []


def _hosts(text: str) -> tuple[HostIP, ...]:
    found = []
    for entry in _fields(text):
        host, sign, ip = entry.lower().partition("=")
        if not sign:
            raise DockerfileError(f"failed to parse additional hosts: invalid key-value pair {entry}")
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            raise DockerfileError(f"failed to parse additional hosts: failed to parse IP {ip}") from None
        mapped = getattr(address, "ipv4_mapped", None)
        found.append(HostIP(host, str(mapped or address)))
    return tuple(found)


def _number(what: str, text: str) -> int:
    if not text:
        return 0
    if not _INTEGER.fullmatch(text) or len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        reason = "value out of range" if _INTEGER.fullmatch(text) else "invalid syntax"
        raise DockerfileError(f"{what}: strconv.ParseInt: parsing {quote(text)}: {reason}")
    return int(text)


def _ulimits(text: str) -> tuple[Ulimit, ...]:
    found = []
    for entry in _fields(text):
        try:
            found.append(parse_ulimit(entry))
        except ValueError as error:
            raise DockerfileError(f"failed to parse ulimit: {error}") from None
    return tuple(found)


def parse_ulimit(text: str) -> Ulimit:
    """Read ``name=soft[:hard]`` (docker/go-units).

    Raises:
        ValueError: in the words of BuildKit.

    >>> parse_ulimit("nofile=1024:2048")
    Ulimit(name='nofile', soft=1024, hard=2048)
    """
    name, sign, limits = text.partition("=")
    if not sign:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    numbers = []
    for part in parts:
        if not _INTEGER.fullmatch(part) or len(part) > 20:
            raise ValueError(f"strconv.ParseInt: parsing {quote(part)}: invalid syntax")
        numbers.append(int(part))
    soft, hard = numbers[0], numbers[-1]
    if len(parts) == 2:
        wrong = "ulimit soft limit must be less than or equal to hard limit"
        if hard != -1 and soft == -1:
            raise ValueError(f"{wrong}: soft: -1 (unlimited), hard: {hard}")
        if hard != -1 and soft > hard:
            raise ValueError(f"{wrong}: {soft} > {hard}")
    return Ulimit(name, soft, hard)


def _resources(opts: Mapping[str, str]) -> LinuxResources | None:
    values: dict[str, int] = {}
    for key, signed, wanted in (
        ("memory", True, "must be > 0"),
        ("memswap", True, "must be -1 (unlimited) or > 0"),
        ("cpushares", False, "must be > 0"),
        ("cpuperiod", False, "must be > 0"),
        ("cpuquota", True, "must be > 0"),
    ):
        text = opts.get(key, "")
        if not text:
            continue
        if not _INTEGER.fullmatch(text) or (not signed and not text.isdigit()) or len(text) > 20:
            parse = "ParseInt" if signed else "ParseUint"
            raise DockerfileError(
                f"{_LIMITS}: invalid {key} value: {text}: strconv.{parse}: parsing {quote(text)}: invalid syntax"
            )
        number = int(text)
        if number <= 0 and not (key == "memswap" and number == -1):
            raise DockerfileError(f"{_LIMITS}: invalid {key} value: {text}: {wanted}")
        values[key] = number
    sets = {}
    for key in ("cpusetcpus", "cpusetmems"):
        sets[key] = opts.get(key, "")
        if sets[key] and not _CPUSET.fullmatch(sets[key]):
            raise DockerfileError(f"{_LIMITS}: invalid {key} value: {sets[key]}")
    found = LinuxResources(
        memory=values.get("memory", 0),
        memory_swap=values.get("memswap", 0),
        cpu_shares=values.get("cpushares", 0),
        cpu_period=values.get("cpuperiod", 0),
        cpu_quota=values.get("cpuquota", 0),
        cpuset_cpus=sets["cpusetcpus"],
        cpuset_mems=sets["cpusetmems"],
    )
    return found if found != LinuxResources() else None


def _check_cache_imports(text: str) -> None:
    if not text:
        return
    try:
        json.loads(text)
    except ValueError as error:
        raise DockerfileError(f"failed to unmarshal cache-imports ({quote(text)}): {error}") from None


def proxy_env(build_args: Mapping[str, str]) -> ProxyEnv | None:
    """The proxies among the build arguments; of two spellings of one, the later in byte order wins."""
    found = {}
    for key in sorted(build_args):
        if key.lower() in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"):
            found[key.lower()] = build_args[key]
    return ProxyEnv(**found) if found else None
