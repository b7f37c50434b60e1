"""Runs a `Process` through the shim, with whatever runtime this machine has.

The container writes into pipes whose other ends are here, so that a log flows without passing through the
shim.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

from bknb.errors import ExecutorError
from bknb.executor import bubblewrap, etc, isolation, proot, runc, seccomp
from bknb.executor.shim import ShimProcess
from bknb.protocols import ExitStatus, Isolation, Output, Process

READ = 1 << 16
SIGKILLED = 137
SILENCE = 1.0  # seconds
COMPLAINT = 4096  # bytes of stderr that are looked at for a runtime's own last words
RUNTIME_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
MISSING_PROGRAM = (
    "executable file",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
    "not found",
)


class ShimExecutor:
    """Implements `protocols.Executor`.

    ::

        executor = ShimExecutor(shim)
        status = await executor.run(process, lambda stream, data: print(data))
    """

    def __init__(self, shim: ShimProcess, runtime: str = "auto") -> None:
        self.shim = shim
        self._runtime = runtime
        self._probing: asyncio.Lock | None = None
        self._early: asyncio.Task[Isolation] | None = None

    async def __aenter__(self) -> ShimExecutor:
        """Begin to find the runtime out, so that no step waits for it; until the context ends."""
        self._early = asyncio.create_task(self.probe())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._early is not None:
            self._early.cancel()
            await asyncio.gather(self._early, return_exceptions=True)

    async def probe(self) -> Isolation:
        """What this machine lets us do, the runtime included; found out once for each life of the shim."""
        await self.shim.start()
        found = self.shim.isolation
        if found.runtime or self.shim.probed:
            return found
        if self._probing is None:
            self._probing = asyncio.Lock()
        async with self._probing:
            if not self.shim.probed:
                self.shim.found_runtime(await isolation.probe(self.shim, self.attempt, self._runtime))
        return self.shim.isolation

    async def run(self, process: Process, output: Output, *, stdin: bytes = b"") -> ExitStatus:
        """Run to the end; see `protocols.Executor`."""
        found = await self.probe()
        if not found.runtime:
            raise ExecutorError("; ".join(found.notes))
        status, complaint = await self.attempt(found, process, output, stdin=stdin)
        if complaint and not _program_is_missing(complaint):
            raise ExecutorError(f"{found.runtime}: {complaint}")
        return status

    async def attempt(
        self, found: Isolation, process: Process, output: Output, *, stdin: bytes = b""
    ) -> tuple[ExitStatus, str]:
        """Run with a given runtime; the second is what the runtime complained about, "" if nothing."""
        request = self._request(found, process, f"{self.shim.directory}/c-{process.id}")
        last = b""

        def watch(stream: int, data: bytes) -> None:
            nonlocal last
            if stream == 2:
                last = (last + data)[-COMPLAINT:]
            output(stream, data)

        async with _Streams(watch, stdin) as streams:
            if found.runtime == "bubblewrap":
                streams.theirs.append(_memory_file(seccomp.default().program))
            result = await self.shim.call("containers.run", fds=streams.theirs, **request)
            await streams.drained()
        code, limit = result["code"], process.resources.memory if process.resources is not None else 0
        # Its cgroup is gone by now; who is killed while a limit holds has met it.
        status = ExitStatus(code, result["cpu"], result["memory"], oom=bool(limit) and code == SIGKILLED)
        if not status.code:
            return status, ""
        return status, _complaint(result["log"]) or _said_itself(found, last)

    def _request(self, found: Isolation, process: Process, bundle: str) -> dict[str, Any]:
        """The arguments of ``containers.run``."""
        meta, resolv = process.meta, process.resolv_conf
        request: dict[str, Any] = {
            "id": process.id,
            "bundle": bundle,
            "root": [mount.to_json() for mount in process.root],
            "trees": _trees(process, every=found.runtime == "proot"),
            "files": {
                "hosts": etc.hosts(meta.hostname, _unique(meta.extra_hosts + process.extra_hosts)),
                "resolv.conf": etc.resolv_conf(process.network) if resolv is None else resolv,
            },
            "user": meta.user,
            "cwd": meta.cwd or "/",
            "stub_paths": [mount.dest for mount in process.mounts],
            "stub_recursive": meta.remove_mount_stubs_recursive,
            "runtime_state": f"{self.shim.directory}/{runc.STATE}",
            "places": [],
            "rlimits": [],
            "switch_user": False,
        }
        if found.runtime in ("crun", "runc"):
            group, filter = self.shim.hello["group"], seccomp.default()
            request["env"] = RUNTIME_ENV
            request["command"] = runc.command(found, self.shim.directory, bundle, process.id)
            request["files"]["config.json"] = runc.config(
                process, found, bundle=bundle, group=group, filter=filter
            )
            return request
        request["env"] = dict(entry.partition("=")[::2] for entry in (*meta.env, *process.env))
        request["rlimits"] = [
            [r["type"], _signed(r["soft"]), _signed(r["hard"])] for r in runc.rlimits(process)
        ]
        if found.runtime == "bubblewrap":
            request["command"] = bubblewrap.command(process, found)
            request["places"] = bubblewrap.places(process, bundle)
            request["switch_user"] = True
        else:
            request["command"] = proot.command(process, found)
            request["env"] |= proot.environment(bundle)
        return request


def _trees(process: Process, *, every: bool) -> list[dict[str, Any]]:
    """What the shim puts in place; a tmpfs is made by the runtime itself, unless `every` one is wanted."""
    return [
        {
            "target": target,
            "mounts": [each.to_json() for each in mount.mounts],
            "selector": mount.selector,
            "readonly": mount.readonly,
            "data": mount.data,
            "owner_mode": mount.owner_mode,
            "socket": mount.socket,
        }
        for mount, target in zip(process.mounts, runc.mount_targets(process), strict=True)
        if every or not runc.is_tmpfs(mount)
    ]


def _signed(limit: int) -> int:
    """A limit as Python's resource module has it: -1 is none."""
    return -1 if limit >= 2**63 else limit


def _memory_file(data: bytes) -> int:
    """A descriptor of a file with some bytes, positioned at its start."""
    fd = os.memfd_create("seccomp")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _said_itself(found: Isolation, last: bytes) -> str:
    """The complaint of a runtime that has no log of its own: among its last lines on the step's stderr."""
    lines = last.decode(errors="replace").strip().splitlines()[-3:]
    name = {"bubblewrap": "bwrap: ", "proot": "proot error: "}.get(found.runtime)
    return next((line for line in lines if name and line.startswith(name)), "")


def _unique(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(entries))


def _complaint(log: str) -> str:
    """The last error in a runtime's log, which has one JSON object a line."""
    said = ""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            said = str(entry.get("msg", ""))
    return said


def _program_is_missing(complaint: str) -> bool:
    """Whether a container stood and only its program could not be started: then the step failed, not we."""
    lowered = complaint.lower()
    about = ("exec", "chdir", "cwd", "executable", "proot error: '")
    return any(word in lowered for word in about) and any(word in lowered for word in MISSING_PROGRAM)


class _Streams:
    """Three pipes: `theirs` are the ends for the container, in the order 0, 1, 2."""

    def __init__(self, output: Output, stdin: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._output = output
        self._stdin = memoryview(stdin)
        self.theirs: list[int] = []
        self._ours: dict[int, int] = {}
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._received = 0

    async def __aenter__(self) -> _Streams:
        if self._stdin:
            read, write = os.pipe()
            self.theirs.append(read)
            os.set_blocking(write, False)
            self._ours[0] = write
            self._loop.add_writer(write, self._writable)
        else:
            self.theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for stream in (1, 2):
            read, write = os.pipe()
            self.theirs.append(write)
            os.set_blocking(read, False)
            self._ours[stream] = read
            self._ended[stream] = self._loop.create_future()
            self._loop.add_reader(read, self._readable, stream)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._close_theirs()
        for stream in list(self._ours):
            self._end(stream)

    async def drained(self) -> None:
        """Wait until everything that was written has been read.

        A process outside of the container that has inherited an end (a fork of the kernel at the wrong
        moment) cannot hold this up: when nothing more comes, that is all.
        """
        self._close_theirs()
        waiting = set(self._ended.values())
        while waiting:
            before = self._received
            done, waiting = await asyncio.wait(waiting, timeout=SILENCE)
            if not done and self._received == before:
                return

    def _close_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.pop())

    def _readable(self, stream: int) -> None:
        try:
            data = os.read(self._ours[stream], READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += len(data)
        if data:
            self._output(stream, data)
        else:
            self._end(stream)

    def _writable(self) -> None:
        try:
            self._stdin = self._stdin[os.write(self._ours[0], self._stdin) :]
        except BlockingIOError:
            return
        except OSError:
            self._stdin = memoryview(b"")  # it does not want to read on
        if not self._stdin:
            self._end(0)

    def _end(self, stream: int) -> None:
        fd = self._ours.pop(stream, None)
        if fd is None:
            return
        with contextlib.suppress(ValueError):
            (self._loop.remove_writer if stream == 0 else self._loop.remove_reader)(fd)
        os.close(fd)
        if stream in self._ended and not self._ended[stream].done():
            self._ended[stream].set_result(None)
