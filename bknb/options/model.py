"""What one build was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bknb.options.values import Output, hosts

_REQUESTS = {
    "check": "frontend.lint",
    "lint": "frontend.lint",
    "outline": "frontend.outline",
    "targets": "frontend.targets",
}


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What one build was asked for; every field is named like its option.

    `build_args` maps to None where the value is to be taken from the caller's variables. `context` is "" for the
    current folder. Sizes are bytes.
    """

    context: str = ""
    tags: tuple[str, ...] = ()
    file: str = ""
    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    plan: bool = False
    touch: tuple[str, ...] = ()
    fail_on_miss: bool = False
    progress: str = "auto"
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    build_contexts: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    cgroup_parent: str = ""
    allow: frozenset[str] = frozenset()
    pull: bool = False
    push: bool = False
    load: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    builder: str = ""
    call: str = "build"
    iidfile: str = ""
    metadata_file: str = ""
    annotations: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    max_parallelism: int | None = None
    out: str = ""
    background: bool = False
    llb: bool = False
    quiet: bool = False
    format: str = ""

    def frontend_opts(self) -> dict[str, str]:
        """The options as a frontend receives them (frontend/dockerui/config.go, docker/buildx build/opt.go)."""
        opts: dict[str, str] = {}
        opts.update(
            (f"build-arg:{name}", value) for name, value in self.build_args.items() if value is not None
        )
        opts.update((f"label:{name}", value) for name, value in self.labels.items())
        simple = {
            "target": self.target, "platform": ",".join(self.platforms), "force-network-mode": self.network if self.network != "default" else "",
            "add-hosts": ",".join(hosts(self.add_hosts)), "cgroup-parent": self.cgroup_parent, "ulimit": ",".join(self.ulimits),
            "shm-size": str(self.shm_size) if self.shm_size else "", "image-resolve-mode": "pull" if self.pull else "",
        }  # fmt: skip
        opts.update((key, value) for key, value in simple.items() if value)
        if self.no_cache:
            opts["no-cache"] = ""
        elif self.no_cache_filter:
            opts["no-cache"] = ",".join(self.no_cache_filter)
        if self.call != "build":
            opts["requestid"] = _REQUESTS[self.call]
        return opts
