"""What this machine can do, and what would let it do more: ``bknb doctor`` and ``%bknb doctor``."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bknb import __version__
from bknb.api import Client
from bknb.builder.local import LocalBuilder
from bknb.config.root import file_system, state_folder
from bknb.display.graph import program
from bknb.errors import BknbError
from bknb.protocols import Isolation

_TIERS = {
    "root": "root: everything, raw devices and cgroups included",
    "user": "an ordinary user with user namespaces: everything but raw devices and cgroups",
    "none": "no namespaces: compile, graph, cache, COPY-only builds, pull and export",
    "foreign": "not Linux: compile, graph and recorded builds",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``+`` works, ``-`` is missing, ``·`` is a remark."""

    sign: str
    subject: str
    text: str


def examine(client: Client) -> str:
    """The report, as text."""
    findings = [
        Finding(
            "·",
            "bknb",
            f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}",
        )
    ]
    try:
        findings += _store(client)
        findings += client.call(_machine)
    except BknbError as error:
        findings.append(Finding("-", "builder", str(error)))
    findings += _tools()
    width = max(len(finding.subject) for finding in findings)
    return "\n".join(f"{f.sign} {f.subject:<{width}}  {f.text}" for f in findings)


def _store(client: Client) -> list[Finding]:
    folder = state_folder(client.preferences.root)
    free = shutil.disk_usage(folder.path).free
    found = [
        Finding(
            "+",
            "state",
            f"{folder.path} on {file_system(folder.path) or 'an unknown file system'}, {free >> 30} GiB free",
        )
    ]
    return [*found, Finding("·", "state", folder.note)] if folder.note else found


async def _machine(builder: LocalBuilder) -> Sequence[Finding]:
    isolation = await builder.parts.executor.probe()
    found = [
        Finding(
            "+" if isolation.tier in ("root", "user") else "-",
            "isolation",
            _TIERS.get(isolation.tier, isolation.tier),
        )
    ]
    if isolation.runtime:
        version = f" {isolation.runtime_version}" if isolation.runtime_version else ""
        label = ", no isolation" if isolation.runtime == "proot" else ""
        found.append(
            Finding("+", "runtime", f"{isolation.runtime}{version} ({isolation.runtime_path}){label}")
        )
    else:
        found.append(Finding("-", "runtime", "none: RUN steps cannot run here; apt-get install crun"))
    found.append(_snapshots(isolation))
    found.append(
        Finding(
            "+" if isolation.cgroups else "-",
            "cgroups",
            "each step gets one"
            if isolation.cgroups
            else "none can be made: limits of memory and CPU are not enforced",
        )
    )
    if isolation.tier == "user":
        found.append(
            Finding(
                "+" if isolation.id_range > 1 else "-",
                "user ids",
                f"{isolation.id_range} (/etc/subuid, newuidmap)"
                if isolation.id_range > 1
                else "only your own: owners are kept beside the files; apt-get install uidmap for real ones",
            )
        )
    found += [Finding("·", "note", note) for note in isolation.notes]
    return found


def _snapshots(isolation: Isolation) -> Finding:
    if isolation.overlay:
        return Finding("+", "snapshots", "overlayfs")
    return Finding(
        "·", "snapshots", "plain copies: overlayfs cannot be mounted here, which costs disk and time"
    )


def _tools() -> list[Finding]:
    found = []
    layout = program()
    found.append(
        Finding(
            "+" if layout else "-",
            "graphs",
            f"laid out by {layout}" if layout else "as text only: apt-get install graphviz",
        )
    )
    for tool, use in (
        ("git", "git contexts"),
        ("skopeo", "looking at images"),
        ("newuidmap", "real owners for ordinary users"),
    ):
        path = shutil.which(tool)
        if path is None and tool == "newuidmap" and _is_root():
            continue
        package = {"newuidmap": "uidmap"}.get(tool, tool)
        found.append(
            Finding("+" if path else "·", tool, path or f"not there; apt-get install {package} for {use}")
        )
    if sys.platform.startswith("linux") and shutil.which("busybox") is None:
        found.append(Finding("·", "busybox", "not there; apt-get install busybox-static for offline builds"))
    return found


def _is_root() -> bool:
    import os

    return hasattr(os, "geteuid") and os.geteuid() == 0
