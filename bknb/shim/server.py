"""The shim itself: reads requests, gives each to a thread, answers."""

from __future__ import annotations

import _queue
import _socket
import _thread
import errno
import os
import resource
import select
import sys

from bknb.shim import calls, cgroups, namespaces, wire
from bknb.shim.children import Children, children_of

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module typing would be a fifth of the start
    from collections.abc import Callable
    from typing import Any

    from bknb.shim.owners import Owners

NOUNS = ("mounts", "containers", "files", "trees", "contexts", "views")
SWITCH_INTERVAL = 0.0005  # seconds: a container must not wait 5 ms for a thread that walks a tree
RECURSION = 100_000  # trees may be deep; Python's own calls take no C stack
DEFAULT_ERROR = {
    "mounts": "SnapshotError",
    "containers": "ExecutorError",
    "files": "PathError",
    "trees": "SnapshotError",
    "contexts": "SourceError",
    "views": "PathError",
}


class Failure(Exception):
    """What an op raises for the kernel to see: the name of a class of `bknb.errors`, and its one line."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Cancelled(BaseException):
    """The kernel does not want the answer any more."""


class Context:
    """What an op may use beside its arguments.

    Attributes:
        server: the shim.
        cancelled: set once the kernel has cancelled.
    """

    __slots__ = ("_on_cancel", "cancelled", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cancelled = False
        self._on_cancel: Callable[[], None] | None = None

    def check(self) -> None:
        """Raises `Cancelled` if the op was cancelled; for loops."""
        if self.cancelled:
            raise Cancelled

    def on_cancel(self, act: Callable[[], None] | None) -> None:
        """Have something done when the op is cancelled, at once if it is already; in another thread.

        What is done may wait for what the op's own thread does next.
        """
        self._on_cancel = act
        if self.cancelled and act is not None:
            self.server.start(act)

    def cancel(self) -> None:
        """Called by the server."""
        self.cancelled = True
        if (act := self._on_cancel) is not None:
            act()


class Server:
    """The state of one shim.

    Attributes:
        litter: where crun leaves a plain directory for each container, "" on most hosts.
        directory: a tmpfs of this process only: mount points, bundles, secrets. "" without namespaces.
        group: name of the cgroup of all containers, "" where none can be made.
        entered: what namespaces there are.
        overlay_style: how overlays are mounted here, found out by `mounts`.
        children: the programs that run.
        looks: what is known of clients' folders, by context; see `contexts`.
    """

    def __init__(self, socket: int, state_dir: str, group: str, entered: namespaces.Entered) -> None:
        self.state_dir = state_dir
        self.entered = entered
        self.group = group
        self.watcher = os.getppid()
        self.directory = ""
        self.litter = ""
        self.overlay_style = ""
        self.lock = _thread.allocate_lock()
        self.children = Children()
        self.looks: dict[str, Any] = {}
        self._socket = _socket.socket(fileno=socket)
        self._sending = _thread.allocate_lock()
        self._running: dict[int, Context] = {}
        self._work: _queue.SimpleQueue[Callable[[], None]] = _queue.SimpleQueue()
        self._idle = 0
        self._names = 0

    @property
    def owners(self) -> Owners:
        """How owners, modes and devices are kept on this machine's disk."""
        from bknb.shim.owners import owners_of

        return owners_of(self.entered.tier, self.entered.id_range)

    @property
    def isolated(self) -> bool:
        """There are namespaces: mounts can be made."""
        return self.entered.tier != "none"

    def fresh_name(self) -> str:
        """A name that is new in `directory`."""
        with self.lock:
            self._names += 1
            return str(self._names)

    # --- starting and ending ---

    def prepare(self) -> None:
        """Namespaces, our tmpfs, limits."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        sys.setrecursionlimit(RECURSION)
        os.umask(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 20), hard))
        if not self.isolated:
            calls.prctl(calls.PR_SET_CHILD_SUBREAPER, 1)
            self.group = ""
            self.directory = private_directory(self.state_dir, self.watcher)
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            return
        namespaces.enter_mounts()
        place = os.path.join(self.state_dir, "shim")
        os.makedirs(place, mode=0o700, exist_ok=True)
        calls.mount("tmpfs", place, "tmpfs", calls.MS_NOSUID | calls.MS_NODEV, "mode=0711")
        self.directory = place
        if cgroups.mode() == "hybrid":
            try:
                cgroups.hide_unified()
                self.litter = f"{cgroups.ROOT}/unified/{self.group}"
            except OSError:
                self.entered.notes.append("cgroups in hybrid mode: crun may refuse to run")
        if not cgroups.make(self.group):
            self.group = ""

    def run(self, watcher: int) -> None:
        """Serve until the kernel or the watcher is gone."""
        decoder = wire.Decoder()
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(watcher, select.POLLIN)
        self.send({"hello": self.describe()})
        while True:
            for fd, _ in poll.poll():
                if fd == watcher:
                    return
                data, ancillary, _, _ = self._socket.recvmsg(
                    wire.CHUNK, _socket.CMSG_SPACE(wire.MAX_FDS * 4), _socket.MSG_CMSG_CLOEXEC
                )
                fds: list[int] = []
                for level, kind, content in ancillary:
                    if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                        fds += memoryview(content).cast("i").tolist()
                if not data:
                    return
                for message, handed in decoder.feed(data, fds):
                    self._receive(message, handed)

    def describe(self) -> dict[str, Any]:
        """The first message: what this machine lets us do."""
        from bknb.shim import mounts

        return {
            "tier": self.entered.tier,
            "id_range": self.entered.id_range,
            "notes": self.entered.notes,
            "overlay": mounts.probe(self),
            "overlay_style": self.overlay_style,
            "cgroups": bool(self.group),
            "group": self.group,
            "directory": self.directory,
        }

    def end(self) -> None:
        """Kill what would outlive us: in a PID namespace the kernel does it, else here."""
        if self.entered.tier == "none" or os.getpid() != 1:
            for _ in range(100):
                found = children_of(os.getpid())
                if not found:
                    break
                for pid in found:
                    try:
                        os.kill(pid, calls.SIGKILL)
                        os.waitpid(pid, os.WNOHANG)
                    except (ProcessLookupError, ChildProcessError):
                        continue

    # --- requests ---

    def send(self, message: dict[str, Any]) -> None:
        """One frame to the kernel; quietly nothing when it is gone."""
        data = memoryview(wire.encode(message))
        try:
            with self._sending:
                while data:
                    data = data[self._socket.send(data) :]
        except OSError:
            return

    def _receive(self, message: dict[str, Any], fds: list[int]) -> None:
        """A frame of the kernel: a request, or the cancelling of one."""
        number = message["id"]
        if message.get("cancel"):
            with self.lock:
                context = self._running.get(number)
            if context is not None:
                self.start(context.cancel)
            return
        context = Context(self)
        with self.lock:
            self._running[number] = context
        self.start(lambda: self._serve(number, context, message["op"], message["args"], fds))

    def start(self, job: Callable[[], None]) -> None:
        """Have a thread do it; a new one if all are busy, since any of them may wait for a container."""
        with self.lock:
            spawn = self._idle <= 0
            self._idle -= 1
        self._work.put(job)
        if spawn:
            _thread.start_new_thread(self._thread, ())

    def _thread(self) -> None:
        try:
            calls.unshare(calls.CLONE_FS)  # a working directory and umask of its own
        except OSError:
            pass
        with self.lock:
            self._idle += 1
        while True:
            job = self._work.get()
            job()
            with self.lock:
                self._idle += 1

    def _serve(self, number: int, context: Context, op: str, args: dict[str, Any], fds: list[int]) -> None:
        """Do one request, and answer it whatever happens."""
        answer: dict[str, Any] = {"id": number}
        try:
            answer["result"] = handler(op)(context, fds, **args)
        except Cancelled:
            answer["error"] = ("Cancelled", "cancelled")
        except Failure as failure:
            answer["error"] = (failure.kind, str(failure))
        except OSError as error:
            kind = "StoreError" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
            noun = op.partition(".")[0]
            answer["error"] = (kind or DEFAULT_ERROR.get(noun, "ExecutorError"), describe(error))
        except Exception as error:
            answer["error"] = ("ExecutorError", f"{op}: {type(error).__name__}: {error} ({where(error)})")
        finally:
            for fd in fds:
                try:
                    os.close(fd)
                except OSError:
                    continue
            with self.lock:
                del self._running[number]
        self.send(answer)


def private_directory(state_dir: str, watcher: int) -> str:
    """Where bundles lie if there is no tmpfs of our own; the watcher removes it."""
    return os.path.join(state_dir, f"shim-{watcher}")


def handler(op: str) -> Callable[..., Any]:
    """The function of an op.

    Raises:
        Failure: there is none of this name.
    """
    noun, _, verb = op.partition(".")
    if noun in NOUNS:
        ops: dict[str, Callable[..., Any]] = __import__(f"bknb.shim.{noun}", fromlist=["OPS"]).OPS
        if verb in ops:
            return ops[verb]
    raise Failure("UnsupportedError", f"the shim knows no op {op!r}")


def describe(error: OSError) -> str:
    """An OSError as one line."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename is not None else text


def where(error: BaseException) -> str:
    """File and line at which an unforeseen error arose."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def serve(socket: int, watcher: int, state_dir: str, group: str, entered: namespaces.Entered) -> None:
    """Be the shim until there is nobody to serve."""
    server = Server(socket, state_dir, group, entered)
    server.prepare()
    try:
        server.run(watcher)
    finally:
        server.end()
        if server.group and select.select([watcher], [], [], 0)[0]:
            cgroups.remove_everywhere(server.group)  # the watcher, which would do it, is gone
