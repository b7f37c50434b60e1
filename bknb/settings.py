"""The settings of a builder, frozen.

What ``%config Bknb`` and the command line set now, and what ``buildkitd.toml`` sets on a machine, arrive here in
one form. A builder is made from one `Settings` and never looks at the environment itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How one registry host is reached (``[registry."host"]`` of buildkitd.toml).

    Attributes:
        mirrors: asked first, in order; each ``host[:port][/path]``.
        http: plain HTTP; None is automatic (loopback hosts only).
        insecure: do not check certificates.
        ca: paths of CA bundles.
        keypairs: (key path, certificate path) pairs for mutual TLS.
        exclusive: only the mirrors are asked, never the host itself.
    """

    mirrors: tuple[str, ...] = ()
    http: bool | None = None
    insecure: bool = False
    ca: tuple[str, ...] = ()
    keypairs: tuple[tuple[str, str], ...] = ()
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """An amount of disk: bytes, or a percentage of the whole disk where `bytes` is 0."""

    bytes: int = 0
    percentage: int = 0


@dataclass(frozen=True, slots=True)
class GCPolicy:
    """One rule for what is removed by itself (``[[worker.oci.gcpolicy]]`` of buildkitd.toml).

    With none of the three amounts, everything that the rule may take goes.

    Attributes:
        reserved_space: never removed below this.
        max_used_space: removed down to this.
        min_free_space: removed until so much of the disk is free.
        keep_duration: seconds; what was used since is too young.
        filters: each a list of conditions with commas between; a record has to meet one of them. None: any.
        all: also internal records, those of frontends, and those that a named image shares.
    """

    reserved_space: DiskSpace = DiskSpace()
    max_used_space: DiskSpace = DiskSpace()
    min_free_space: DiskSpace = DiskSpace()
    keep_duration: float = 0.0
    filters: tuple[str, ...] = ()
    all: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a builder is told once.

    Attributes:
        root: the state folder, absolute.
        max_parallelism: steps that may run at once; 0 is no limit.
        registries: by host name.
        max_registry_concurrency: connections to one registry; one more is kept for metadata.
        note: what a person should know about these settings; said with the first build.
        snapshotter: ``auto``, ``overlayfs`` or ``native``.
        runtime: ``auto``, ``crun``, ``runc``, ``bubblewrap`` or ``proot``; ``none`` to only compile: no
            process is started.
        offline: reach no registry; docker.io is served from this machine.
        entitlements: ``network.host``, ``security.insecure``, ``device``: what a build may ask for.
        dns: nameservers, search domains and options of a step's resolv.conf; empty for the host's.
        gc: remove by itself, after builds, what the policies take.
        gc_policies: in order; None for BuildKit's four, with the amounts below.
        gc_reserved_space: of the default policies; where all three are 0, chosen by the size of the disk.
        gc_max_used_space: likewise.
        gc_min_free_space: likewise.
    """

    root: str
    max_parallelism: int = 0
    registries: Mapping[str, HostSettings] = field(default_factory=dict)
    max_registry_concurrency: int = 4
    snapshotter: str = "auto"
    runtime: str = "auto"
    offline: bool = False
    note: str = ""
    entitlements: frozenset[str] = frozenset()
    dns_nameservers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    gc: bool = True
    gc_policies: tuple[GCPolicy, ...] | None = None
    gc_reserved_space: DiskSpace = DiskSpace()
    gc_max_used_space: DiskSpace = DiskSpace()
    gc_min_free_space: DiskSpace = DiskSpace()

    def host(self, name: str) -> HostSettings:
        """The settings of a registry; the defaults where nothing was said."""
        return self.registries.get(name, HostSettings())
