"""The frontend's options, as ``buildctl build --opt k=v`` sends them (frontend/dockerui)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.commas import fields_of
from bknb.frontend.dockerfile.gotext import lower, parse_bool, quote
from bknb.frontend.dockerfile.limits import integer, resources_of, ulimits_of
from bknb.frontend.dockerfile.lint import LintConfig
from bknb.llb.ops import HostIP, NetMode, ProxyEnv, Ulimit
from bknb.llb.vertex import LinuxResources
from bknb.platforms import Platform

T = TypeVar("T")

_CHECK: Final = "build-arg:BUILDKIT_DOCKERFILE_CHECK"
_MODES: Final = {"": "default", "default": "default", "pull": "pull", "local": "local"}
_NETWORKS: Final = {"": NetMode.UNSET, "sandbox": NetMode.UNSET, "none": NetMode.NONE, "host": NetMode.HOST}


_RENAMED: Final = {
    "build-arg:BUILDKIT_MULTI_PLATFORM": "multi-platform", "build-arg:BUILDKIT_SANDBOX_HOSTNAME": "hostname",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FrontendOptions:
    """Everything that a request says beside the Dockerfile.

    Attributes:
        platforms: those asked for, normalised; empty for the worker's own.
        build_platform: the worker's.
        multi_platform: results are named by platform, even a single one.
        no_cache: stages, and steps as ``STAGE:LINE``, that are always run; None for none, empty for all.
        build_args: by name.
        check: what BUILDKIT_DOCKERFILE_CHECK says, None if it is not given.
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
    check: LintConfig | None = None

    @classmethod
    def parse(cls, opts: Mapping[str, str], build_platform: Platform) -> FrontendOptions:
        """Read the options.

        Raises:
            DockerfileError: one of them has a wrong value.
        """
        opts = renamed(opts)
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
        hosts = _named("additional hosts", lambda: _hosts(opts.get("add-hosts", "")))
        shm_size = _named("shm size", lambda: integer(opts.get("shm-size", "") or "0"))
        ulimits = _named("ulimit", lambda: ulimits_of(opts.get("ulimit", "")))
        resources = _named("resource limits", lambda: resources_of(opts))
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
            hostname=opts.get("hostname", ""),
            cache_namespace=opts.get("build-arg:BUILDKIT_CACHE_MOUNT_NS", ""),
            no_cache=None if no_cache is None else tuple(no_cache.split(",")) if no_cache else (),
            check=_named(_CHECK, lambda: LintConfig.parse(opts[_CHECK])) if _CHECK in opts else None,
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


def renamed(opts: Mapping[str, str]) -> dict[str, str]:
    """The options, with those that build arguments stand for."""
    return {**opts, **{option: opts[arg] for arg, option in _RENAMED.items() if opts.get(arg)}}


def _named(what: str, read: Callable[[], T]) -> T:
    """What is read from an option; an error names it."""
    try:
        return read()
    except DockerfileError as error:
        raise DockerfileError(f"failed to parse {what}: {error.message}") from None


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
    text = opts.get("multi-platform", "")
    if not text:
        return many
    asked = parse_bool(text)
    if asked is None:
        raise DockerfileError(f"invalid boolean value for multi-platform: {text}")
    if many and not asked:
        raise DockerfileError("conflicting config: returning multiple target platforms is not allowed")
    return asked


def _hosts(text: str) -> tuple[HostIP, ...]:
    found = []
    for entry in fields_of(text) if text else ():
        host, sign, ip = lower(entry).partition("=")
        if not sign:
            raise DockerfileError(f"invalid key-value pair {entry}")
        try:
            address = ipaddress.ip_address(ip.replace("%", " "))  # net.ParseIP takes no zones
        except ValueError:
            raise DockerfileError(f"failed to parse IP {ip}") from None
        mapped = getattr(address, "ipv4_mapped", None)
        found.append(HostIP(host, str(mapped or address)))
    return tuple(found)


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
