"""Running one container: trees put in place, the runtime started, everything undone.

What a container is (an OCI config, a bubblewrap command) was decided in `bknb.executor`; the paths in it are
those below `bundle`, which is a directory of the shim's own tmpfs that nobody else sees. Only what needs a
look into the container's root is found out here: the user, the working directory, the stubs.
"""

from __future__ import annotations

import os
import signal
import socket as sockets
import time
from collections.abc import Callable, Sequence
from typing import Any

from bknb import beneath
from bknb.shim import cgroups, mounts, stubs, users
from bknb.shim.server import Context, Failure, Server, children_of

LOG_LIMIT = 1 << 16
GRACE = 1.5  # seconds that a runtime gets to tidy up after its container was killed
USER = '"@user@"'
"""In config.json: replaced by the user as JSON."""


def run(
    context: Context,
    fds: list[int],
    *,
    id: str,
    bundle: str,
    command: list[str],
    env: dict[str, str],
    root: list[dict[str, Any]],
    trees: list[dict[str, Any]],
    files: dict[str, str],
    user: str,
    cwd: str,
    stub_paths: list[str],
    stub_recursive: bool,
    runtime_state: str,
) -> dict[str, Any]:
    """Run a command in a container to its end.

    - `fds`: stdin, stdout and stderr of the runtime, then what it gets as 3, 4...
    - `bundle`: an absolute path below the shim's directory; ``rootfs`` in it becomes the root.
    - `trees`: mounted at ``bundle/TARGET``: ``{"target", "mounts", "selector", "readonly"}``, or a file with
      ``data`` and ``owner_mode``, or an agent's ``socket`` and ``owner_mode``.
    - `files`: texts written into the bundle; `USER` in them is filled in.
    - `command`: may hold ``@uid@`` and ``@gid@``.
    - `runtime_state`: the directory in which the runtime would leave state if it were killed.

    Returns:
        ``code``, ``cpu`` (seconds), ``memory`` (peak bytes), ``log`` (what the runtime itself had to say).
    """
    container = _Container(context, id, bundle)
    try:
        rootfs = container.place_root(root)
        for tree in trees:
            container.place(tree)
        created = stubs.missing(rootfs, stub_paths, recursive=stub_recursive)
        uid, gid, groups = users.lookup(rootfs, user)
        if max(uid, gid) >= context.server.entered.id_range:
            raise Failure(
                "ExecutorError",
                f"user {user} has id {max(uid, gid)}, here are {context.server.entered.id_range} ids only:"
                " apt install uidmap, and a line for you in /etc/subuid and /etc/subgid",
            )
        if not beneath.exists(rootfs, cwd, follow=True):
            users.working_directory(rootfs, cwd, uid, gid)
        gids = "" if gid in groups else f"{gid},"
        as_json = f'{{"uid":{uid},"gid":{gid},"additionalGids":[{gids}{",".join(map(str, groups))}]}}'
        for name, text in files.items():
            container.write(name, text.replace(USER, as_json.replace(",]", "]")))
        words = [word.replace("@uid@", str(uid)).replace("@gid@", str(gid)) for word in command]
        try:
            return container.run(words, env, fds)
        finally:
            stubs.remove(rootfs, created)
    finally:
        container.close(runtime_state)


class _Container:
    """What has been put in place for one container, to be undone in reverse."""

    def __init__(self, context: Context, id: str, bundle: str) -> None:
        if os.path.dirname(bundle) != context.server.directory:
            raise Failure("ExecutorError", f"no bundle of the shim's: {bundle}")
        self.context = context
        self.id = id
        self.bundle = bundle
        self.undo: list[Callable[[], object]] = []
        os.mkdir(bundle, 0o711)

    def place_root(self, root: list[dict[str, Any]]) -> int:
        """Attach the root, writable: runtimes make their mount points first. Returns a descriptor of it."""
        target = self._directory("rootfs")
        mounts.attach(self.context, root, target)
        self.undo.append(lambda: mounts.detach(target, len(root)))
        fd = beneath.open_root(target)
        self.undo.append(lambda: os.close(fd))
        return fd

    def place(self, tree: dict[str, Any]) -> None:
        """Put one mount's source where the configuration expects it."""
        target = f"{self.bundle}/{tree['target']}"
        if tree.get("data") is not None:
            self._secret(target, tree["data"], tree["owner_mode"])
        elif tree.get("socket"):
            self._agent(target, tree["socket"], tree["owner_mode"])
        elif tree["selector"].strip("/"):
            with mounts.open_tree(self.context, tree["mounts"]) as source:
                try:
                    mounts.attach_path(source, tree["selector"], target, readonly=tree["readonly"])
                except OSError as error:
                    raise Failure("PathError", f"{tree['selector']}: {error.strerror}") from None
            self.undo.append(lambda: mounts.detach(target))
        else:
            os.mkdir(target, 0o700)
            mounts.attach(self.context, tree["mounts"], target, readonly=tree["readonly"])
            self.undo.append(lambda: mounts.detach(target, len(tree["mounts"])))

    def write(self, name: str, text: str) -> None:
        """A file of the bundle, readable for all: it may be mounted into the container."""
        fd = os.open(f"{self.bundle}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    def run(self, command: list[str], env: dict[str, str], fds: list[int]) -> dict[str, Any]:
        """Start the runtime and wait for its end; when cancelled, kill the container first."""
        server = self.context.server
        self.context.check()
        pid = server.spawn(command[0], command, env, dict(enumerate(fds)))
        for fd in fds:
            os.close(fd)  # so that the kernel sees the end of the output when the container has ended
        fds.clear()
        self.context.on_cancel(lambda: _kill(server, pid))
        code, usage = server.wait(pid)
        self.context.on_cancel(None)
        self.context.check()
        return {
            "code": code if code >= 0 else 128 - code,
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss * 1024,
            "log": self._log(),
        }

    def close(self, runtime_state: str) -> None:
        """Undo everything; a failure of one part does not keep the others from being undone."""
        if self.context.cancelled and self.context.server.group:
            cgroups.remove(f"{self.context.server.group}/{self.id}")
        while self.undo:
            try:
                self.undo.pop()()
            except OSError:
                continue
        litter = self.context.server.litter
        for directory in (runtime_state, litter):
            if directory and os.path.exists(f"{directory}/{self.id}"):
                mounts.remove(f"{directory}/{self.id}")
        mounts.remove(self.bundle)

    def _directory(self, name: str) -> str:
        path = f"{self.bundle}/{name}"
        os.mkdir(path, 0o755)
        return path

    def _log(self) -> str:
        """The runtime's own complaints; empty if it had none."""
        try:
            with open(f"{self.bundle}/log", "rb") as file:
                return file.read(LOG_LIMIT).decode(errors="replace")
        except OSError:
            return ""

    def _secret(self, target: str, data: bytes, owner_mode: Sequence[int]) -> None:
        """A file on our tmpfs; it is gone with the bundle."""
        uid, gid, mode = owner_mode
        fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            _own(target, uid, gid, mode)
        finally:
            os.close(fd)

    def _agent(self, target: str, path: str, owner_mode: Sequence[int]) -> None:
        """A socket with the owner that was asked for, joined to the agent's own."""
        from bknb.shim import mediate

        uid, gid, mode = owner_mode
        listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        listener.bind(target)
        listener.listen(16)
        _own(target, uid, gid, mode)
        mediator = mediate.Mediator(listener, path)
        self.undo.append(mediator.close)


def _own(path: str, uid: int, gid: int, mode: int) -> None:
    """Owner and mode of a file of ours; an owner that this namespace does not have is left out."""
    os.chmod(path, mode & 0o7777)
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        raise Failure("ExecutorError", f"owner {uid}:{gid} cannot be given here: {error.strerror}") from None


def _kill(server: Server, runtime: int) -> None:
    """Kill a container: first its own processes, so that the runtime can tidy up, then whatever is left.

    The container's init is a child of the runtime, or ours if the runtime is gone; its PID namespace ends
    with it.
    """
    until = time.monotonic() + GRACE
    while _alive(server, runtime):
        below = children_of(runtime)
        late = time.monotonic() > until
        for pid in [*below, runtime] if late or not below else below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


def _alive(server: Server, pid: int) -> bool:
    with server.lock:
        return pid in server.children


OPS: dict[str, Any] = {"run": run}
