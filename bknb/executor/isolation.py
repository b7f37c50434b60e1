"""Which runtime works here: found out by starting a container with each in turn.

A version or a file name tells little: crun 1.8 is installed and refuses hosts with both kinds of cgroups,
runc is there and a sandbox denies it a mount. So an empty root is made, and a program that is not in it is
asked for: the complaint that it is missing comes from inside of a container that stood.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterator

from bknb.errors import BknbError
from bknb.executor import bubblewrap
from bknb.executor.shim import ShimProcess
from bknb.llb.ops import Meta
from bknb.protocols import ExitStatus, Isolation, Mount, Output, Process

MISSING = "/bknb-probe"
SEARCH_PATH = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
)
RUNTIMES = ("crun", "runc", "bubblewrap", "proot")
REMARKS = {
    "bubblewrap": "bubblewrap runs steps: no cgroups, no setuid programs (apt install crun)",
    "proot": "RUN has no isolation here: it runs through proot",
}

Attempt = Callable[[Isolation, Process, Output], Awaitable[tuple[ExitStatus, str]]]


def find(program: str) -> str | None:
    """A program on PATH or in a system directory."""
    return shutil.which(program, path=SEARCH_PATH)


def candidates(base: Isolation, wanted: str = "auto") -> Iterator[tuple[str, str | None]]:
    """Runtimes in order of preference, each with its path, None where it is not installed; `wanted` is the only one."""
    for name in RUNTIMES:
        if (name == "proot") != (base.tier == "none") or wanted not in ("auto", name):
            continue
        yield name, bubblewrap.bundled() or find("bwrap") if name == "bubblewrap" else find(name)


async def probe(shim: ShimProcess, attempt: Attempt, wanted: str = "auto") -> Isolation:
    """The shim's isolation with the first runtime that really works; notes say what is missing otherwise."""
    base = shim.isolation
    notes = list(base.notes)
    for name, path in candidates(base, wanted):
        if path is None:
            continue
        candidate = dataclasses.replace(base, runtime=name, runtime_path=path)
        refusal = await _try(candidate, attempt)
        if refusal:
            notes.append(f"{name} does not work here: {refusal}")
            continue
        if name in REMARKS:
            notes.append(REMARKS[name])
        return dataclasses.replace(candidate, runtime_version=await version(path), notes=tuple(notes))
    if wanted != "auto":
        notes.append(f"{wanted} was asked for and cannot run steps here: install it, or set %config Bknb.runtime to auto")
        return dataclasses.replace(base, notes=tuple(notes))
    package = "proot, and RUN works without isolation" if base.tier == "none" else "crun (or runc)"
    notes.append(f"no container runtime: apt install {package}")
    return dataclasses.replace(base, notes=tuple(notes))


async def _try(candidate: Isolation, attempt: Attempt) -> str:
    """Start a container; the reason why that does not work, or ""."""
    process = Process(
        id=f"probe-{uuid.uuid4().hex[:12]}",
        meta=Meta(args=(MISSING,), cwd="/"),
        root=(Mount("tmpfs", options=("mode=755",)),) if candidate.tier != "none" else (),
    )
    said: list[bytes] = []
    try:
        status, complaint = await attempt(candidate, process, lambda _, data: said.append(data))
    except BknbError as error:
        return str(error)
    text = complaint or b"".join(said).decode(errors="replace").strip()
    return "" if status.code and MISSING in text else text or f"exit code {status.code}"


async def version(path: str) -> str:
    """The first line of ``--version``, without the program's name."""
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        out, _ = await process.communicate()
    except OSError:
        return ""
    words = out.decode(errors="replace").split()
    return next((word for word in words if word[:1].isdigit()), "")
