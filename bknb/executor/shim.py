"""The kernel's end of the shim process: started when first needed, started again if it died.

It is posix_spawn'ed, so that a kernel with a large heap is never forked, and it hangs on one socket: when the
last copy of the kernel's end closes, it ends. Requests are answered in any order.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bknb
from bknb import errors
from bknb.protocols import Isolation
from bknb.shim import wire

BOOT = (
    "import sys; bknb = type(sys)('bknb'); bknb.__path__ = [sys.argv[1]]; sys.modules['bknb'] = bknb\n"
    "from bknb.shim.main import main; main(sys.argv[2])"
)
"""The package without its front door, and without the site-packages around it: only `bknb.shim` and below."""
SOCKET = 3  # the shim's end of the socket, in its own numbering
RECEIVE = 1 << 18
CLOSE_DEADLINE = 2.0  # seconds


class ShimProcess:
    """Implements `protocols.Shim`. One for each kernel; all calls come from one event loop at a time.

    ::

        async with ShimProcess(state_dir) as shim:
            await shim.call("trees.stat", mounts=[...], path="/etc")
    """

    def __init__(self, state_dir: Path | str) -> None:
        self.state_dir = Path(state_dir)
        self.directory = ""
        """A tmpfs that only the shim sees."""
        self.probed = False
        """Whether `isolation` says which runtime works."""
        self._isolation: Isolation | None = None
        self._hello: dict[str, Any] = {}
        self._connection: _Connection | None = None
        self._starting: asyncio.Lock | None = None

    async def __aenter__(self) -> ShimProcess:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @property
    def isolation(self) -> Isolation:
        """What this machine lets us do.

        Raises:
            ExecutorError: the shim was never started.
        """
        if self._isolation is None:
            raise errors.ExecutorError("the shim has not been started yet")
        return self._isolation

    @property
    def hello(self) -> dict[str, Any]:
        """What the shim said about itself: tier, id_range, notes, overlay, cgroups, group, directory."""
        return self._hello

    @property
    def pid(self) -> int | None:
        """The watcher's process id, while it runs."""
        return self._connection.pid if self._connection is not None else None

    async def start(self) -> None:
        """Start the process unless it runs.

        Raises:
            ExecutorError: it could not be started.
            UnsupportedError: this is not Linux.
        """
        if self._connection is not None and self._connection.alive:
            return
        if not sys.platform.startswith("linux"):
            raise errors.UnsupportedError("RUN needs Linux; use a remote builder")
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._connection is not None and self._connection.alive:
                return
            if self._connection is not None:
                await self._connection.aclose()
            self.state_dir.mkdir(parents=True, exist_ok=True)
            connection = _Connection(str(self.state_dir.resolve()))
            self._hello = await connection.hello()
            self._connection = connection
            self.directory = self._hello["directory"]
            self.probed = False
            self._isolation = Isolation(
                tier=self._hello["tier"],
                overlay=self._hello["overlay"],
                cgroups=self._hello["cgroups"],
                id_range=self._hello["id_range"],
                notes=tuple(self._hello["notes"]),
            )

    def found_runtime(self, isolation: Isolation) -> None:
        """Keep what `isolation.probe` found out beyond the shim's own words."""
        self._isolation = isolation
        self.probed = True

    async def call(self, op: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Have one op done; see `protocols.Shim`."""
        await self.start()
        assert self._connection is not None
        return await self._connection.call(op, fds, arguments)

    async def aclose(self) -> None:
        """End the process, and wait until it and all that it started is gone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


class _Connection:
    """One life of the process."""

    def __init__(self, state_dir: str) -> None:
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stderr = os.memfd_create("bknb-shim")
        try:
            self.pid = self._spawn(theirs.fileno(), state_dir)
        except BaseException:
            ours.close()
            os.close(self._stderr)
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._decoder = wire.Decoder()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._greeting: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._unsent: list[tuple[memoryview, list[int]]] = []
        self._number = 0
        self.alive = True
        self._loop.add_reader(ours.fileno(), self._readable)

    def _spawn(self, theirs: int, state_dir: str) -> int:
        package = str(Path(bknb.__file__).resolve().parent)
        # Isolated (-I -S): neither the user's site-packages nor PYTHON* variables change what runs.
        arguments = [sys.executable, "-I", "-S", "-c", BOOT, package, state_dir, _zstd_path()]
        high = max(theirs, self._stderr, SOCKET) + 1
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, theirs, high),
            (os.POSIX_SPAWN_DUP2, self._stderr, 2),
            (os.POSIX_SPAWN_DUP2, high, SOCKET),
            (os.POSIX_SPAWN_CLOSE, high),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        ]
        try:
            return os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions, setsid=True)
        except OSError as error:
            raise errors.ExecutorError(f"cannot start {sys.executable}: {error.strerror}") from None

    async def hello(self) -> dict[str, Any]:
        """Wait for the first message."""
        try:
            return await self._greeting
        except BaseException:
            await self.aclose()
            raise

    async def call(self, op: str, fds: Sequence[int], arguments: dict[str, Any]) -> Any:
        """Send a request and wait for its answer; when cancelled, cancel it and wait for its end."""
        if not self.alive:
            raise self._death()
        self._number += 1
        number = self._number
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = answer
        self._send({"id": number, "op": op, "args": arguments}, fds)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            self._send({"id": number, "cancel": True}, ())
            await _settle(answer)
            raise

    def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        """Write a frame; what the socket does not take is kept, with duplicates of its descriptors."""
        frame = memoryview(wire.encode(message, len(fds)))
        if self._unsent:
            self._unsent.append((frame, [os.dup(fd) for fd in fds]))
            return
        sent = self._write(frame, fds)
        if sent < len(frame) and self.alive:
            self._unsent.append((frame[sent:], [] if sent else [os.dup(fd) for fd in fds]))
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _write(self, frame: memoryview, fds: Sequence[int]) -> int:
        """How many bytes the socket took; 0 if none."""
        try:
            return socket.send_fds(self._socket, [frame], list(fds)) if fds else self._socket.send(frame)
        except BlockingIOError:
            return 0
        except OSError:
            self._died()
            return 0

    def _writable(self) -> None:
        while self._unsent and self.alive:
            frame, fds = self._unsent[0]
            sent = self._write(frame, fds)
            if sent == 0:
                return
            for fd in fds:
                os.close(fd)
            if sent < len(frame):
                self._unsent[0] = (frame[sent:], [])
                return
            del self._unsent[0]
        if self.alive:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        for message, _ in self._decoder.feed(data, []):
            if "hello" in message:
                if not self._greeting.done():
                    self._greeting.set_result(message["hello"])
                continue
            answer = self._pending.pop(message["id"], None)
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(error_of(*message["error"]))
            else:
                answer.set_result(message["result"])

    def _died(self) -> None:
        """The other end is closed: nothing will be answered any more."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
        waiting = [*self._pending.values(), self._greeting]
        self._pending.clear()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self._death())
                answer.exception()  # it may be that nobody asks any more

    def _death(self) -> errors.ExecutorError:
        """What killed it, in its own last words if there are any."""
        said = b""
        with contextlib.suppress(OSError):
            said = os.pread(self._stderr, 4096, 0)
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        return errors.ExecutorError(
            "the process that runs containers ended"
            + (f": {last[0]}" if last else "; the next build starts it again")
        )

    async def aclose(self) -> None:
        """Close the socket and wait for the watcher's end."""
        self._died()
        if self.pid:
            pid, self.pid = self.pid, 0
            await _reaped(pid)
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1


def _zstd_path() -> str:
    """Where the shim, which sees no site-packages, finds backports.zstd; "" where Python has zstd itself."""
    try:
        found = importlib.util.find_spec("backports.zstd")
    except ImportError:
        return ""
    origin = found.origin if found is not None else None
    return str(Path(origin).parents[2]) if origin else ""


async def _settle(answer: asyncio.Future[Any]) -> None:
    """Wait for an answer that nobody wants; a second cancelling does not cut this short."""
    while not answer.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([answer])
    if not answer.cancelled():
        answer.exception()


async def _reaped(pid: int) -> None:
    """Wait until a child has ended and is buried, at most `CLOSE_DEADLINE`."""
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return
    ended = loop.create_future()
    loop.add_reader(fd, _finish, ended)
    try:
        async with asyncio.timeout(CLOSE_DEADLINE):
            await ended
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    except TimeoutError:
        return
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def error_of(kind: str, message: str) -> errors.BknbError:
    """The error that the shim names."""
    if kind == "Cancelled":
        return errors.ExecutorError("cancelled")
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, errors.BknbError):
        return found(message)
    return errors.ExecutorError(message)
