"""Running one container: trees put in place, the runtime started, everything undone.

What a container is (an OCI config, a bubblewrap command) was decided in `bknb.executor`; the paths in it are
those below `bundle`, which is a directory of the shim's own tmpfs that nobody else sees. Only what needs a
look into the container's root is found out here: the user, the working directory, the stubs.
"""

from __future__ import annotations

import os
import signal
import socket as sockets
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any

from bknb import beneath
from bknb.shim import cgroups, mounts, stubs, users
from bknb.shim.children import Before, children_of
from bknb.shim.server import Context, Failure, Server
from bknb.shim.words import ROOT_ONLY, USER

LOG_LIMIT = 1 << 16
GRACE = 1.5  # seconds that a runtime gets to tidy up after its container was killed
ELSEWHERE = "/tmp"
"""Where a bundle is for a runtime that is started as an ordinary user, who cannot reach its real place."""


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
    places: list[list[str]],
    rlimits: list[list[Any]],
    switch_user: bool,
) -> dict[str, Any]:
    """Run a command in a container to its end.

    - `fds`: stdin, stdout and stderr of the runtime, then what it gets as 3, 4...
    - `bundle`: an absolute path below the shim's directory; ``rootfs`` in it becomes the root.
    - `trees`: mounted at ``bundle/TARGET``: ``{"target", "mounts", "selector", "readonly"}``, or a file with
      ``data`` and ``owner_mode``, or an agent's ``socket`` and ``owner_mode``.
    - `files`: texts written into the bundle; `USER` in them is filled in.
    - `command`: may hold ``@uid@``, ``@gid@``, ``@N@``,
      ``@path:TARGET@`` and ``@bundle@``; words after `ROOT_ONLY` are for root only.
    - `switch_user`: the runtime itself is started as the container's user.
    - `places`: (path in the container, what will lie there): mount points that are made here, ``@N@``.
    - `rlimits`: (name, soft, hard), for a runtime that sets none itself.
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
        if context.server.isolated:
            stubs.make_usual(rootfs)
        who = _user(context, rootfs, user)
        if not beneath.exists(rootfs, cwd, follow=True):
            users.working_directory(rootfs, cwd, who[0], who[1])
        for name, text in files.items():
            container.write(name, text.replace(USER, _as_json(*who)))
        container.paths |= {str(n): container.make_place(rootfs, *place) for n, place in enumerate(places)}
        try:
            return container.run(command, env, fds, who, rlimits, switch_user)
        finally:
            stubs.remove(rootfs, created)
    finally:
        container.close(runtime_state)


def _user(context: Context, rootfs: int, user: str) -> tuple[int, int, list[int]]:
    """Who runs: (uid, gid, groups).

    Raises:
        Failure: ExecutorError, nobody of this name, or no such id in this namespace.
    """
    uid, gid, groups = users.lookup(rootfs, user)
    ids = context.server.entered.id_range
    if context.server.isolated and max(uid, gid) >= ids:
        raise Failure(
            "ExecutorError",
            f"user {user} has id {max(uid, gid)}, here are {ids} ids only:"
            " apt install uidmap, and a line for you in /etc/subuid and /etc/subgid",
        )
    return uid, gid, groups


def _as_json(uid: int, gid: int, groups: list[int]) -> str:
    """The user of an OCI configuration; the primary group is among the groups, as containerd has it."""
    every = [*([] if gid in groups else [gid]), *groups]
    return f'{{"uid":{uid},"gid":{gid},"additionalGids":[{",".join(map(str, every))}]}}'


class _Container:
    """What has been put in place for one container, to be undone in reverse."""

    def __init__(self, context: Context, id: str, bundle: str) -> None:
        if os.path.dirname(bundle) != context.server.directory:
            raise Failure("ExecutorError", f"no bundle of the shim's: {bundle}")
        self.context = context
        self.id = id
        self.bundle = bundle
        self.undo: list[Callable[[], object]] = []
        self.paths: dict[str, str] = {}
        self._mounted: dict[int, tuple[str, str]] = {}
        os.mkdir(bundle, 0o711)

    def place_root(self, root: list[dict[str, Any]]) -> int:
        """Attach the root, writable: runtimes make their mount points first. Returns a descriptor of it."""
        if not self.context.server.isolated:
            tree = mounts.open_tree(self.context, root)
            self.undo.append(lambda: os.close(tree.fd))
            self.paths["path:rootfs"] = tree.source
            return tree.fd
        target = f"{self.bundle}/rootfs"
        os.mkdir(target, 0o755)
        mounts.attach(self.context, root, target)
        self.undo.append(lambda: mounts.detach(target, len(root)))
        fd = beneath.open_root(target)
        self.undo.append(lambda: os.close(fd))
        return fd

    def place(self, tree: dict[str, Any]) -> None:
        """Put one mount's source where the configuration expects it."""
        target = f"{self.bundle}/{tree['target']}"
        self.paths[f"path:{tree['target']}"] = target
        if tree.get("data") is not None:
            self._secret(target, tree["data"], tree["owner_mode"])
        elif tree.get("socket"):
            self._agent(target, tree["socket"], tree["owner_mode"])
        elif not self.context.server.isolated:
            self.paths[f"path:{tree['target']}"] = self._plain(tree, target)
        elif tree["selector"].strip("/"):
            with mounts.open_tree(self.context, tree["mounts"]) as source:
                try:
                    mounts.attach_path(source, tree["selector"], target, readonly=tree["readonly"])
                except OSError as error:
                    raise Failure("PathError", f"{tree['selector']}: {error.strerror}") from None
            self.undo.append(lambda: mounts.detach(target))
        else:
            os.mkdir(target, 0o755)
            mounts.attach(self.context, tree["mounts"], target, readonly=tree["readonly"])
            self.undo.append(lambda: mounts.detach(target, len(tree["mounts"])))

    def _plain(self, tree: dict[str, Any], target: str) -> str:
        """A mount's source where nothing can be mounted: the host's own path of it."""
        if [mount["type"] for mount in tree["mounts"]] == ["tmpfs"]:
            os.mkdir(target, 0o1777)
            return target
        with mounts.open_tree(self.context, tree["mounts"]) as source:
            try:
                inside = beneath.resolve(source.fd, tree["selector"])
            except OSError as error:
                raise Failure("PathError", f"{tree['selector']}: {error.strerror}") from None
            return source.source + inside.rstrip("/")

    def make_place(self, rootfs: int, path: str, source: str) -> str:
        """Make a mount point, and return its path without links, so that nothing can lead a runtime astray.

        One below another mount is looked for, and made, in what is mounted there.
        """
        where, inside, root = "", path, rootfs
        for number, (outer, tree) in self._mounted.items():
            if tree and path.startswith(outer.rstrip("/") + "/") and os.path.isdir(tree):
                where, inside = self.paths[str(number)], path[len(outer.rstrip("/")) :]
                root = beneath.open_root(tree)
                self.undo.append(lambda root=root: os.close(root))  # type: ignore[misc]
        resolved = beneath.resolve(root, inside, strict=False)
        if not beneath.exists(root, resolved):
            if source and not os.path.isdir(source):
                os.close(beneath.makedirs(root, resolved.rpartition("/")[0], 0o755))
                beneath.mknod(root, resolved, 0o644 | stat.S_IFREG)
            else:
                os.close(beneath.makedirs(root, resolved, 0o755))
        number = len(self._mounted)
        self._mounted[number] = (path, source)
        self.paths[str(number)] = where.rstrip("/") + resolved
        return self.paths[str(number)]

    def write(self, name: str, text: str) -> None:
        """A file of the bundle, readable for all: it may be mounted into the container."""
        fd = os.open(f"{self.bundle}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    def run(
        self, command: list[str], env: dict[str, str], fds: list[int], who: tuple[int, int, list[int]], rlimits: list[list[Any]],
        switch_user: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """Start the runtime and wait for its end; when cancelled, kill the container first."""
        server = self.context.server
        self.context.check()
        before = None
        bundle = self.bundle
        if switch_user or rlimits:
            other = switch_user and any(who[:2])
            bundle = ELSEWHERE if other else bundle
            before = Before(rlimits, who if other else None, (self.bundle, ELSEWHERE))
        words = self._words(command, who, bundle)
        pid = server.children.spawn(words[0], words, env, dict(enumerate(fds)), before)
        for fd in fds:
            os.close(fd)  # so that the kernel sees the end of the output when the container has ended
        fds.clear()
        self.context.on_cancel(lambda: _kill(server, pid))
        code, usage = server.children.wait(pid)
        self.context.on_cancel(None)
        self.context.check()
        return {
            "code": code if code >= 0 else 128 - code,
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss * 1024,
            "log": self._log(),
        }

    def _words(self, command: list[str], who: tuple[int, int, list[int]], bundle: str) -> list[str]:
        """The command with its placeholders filled in."""
        values = {**self.paths, "uid": str(who[0]), "gid": str(who[1]), "bundle": bundle}
        found = []
        for word in command:
            if word.startswith(ROOT_ONLY):
                if who[0]:
                    continue
                word = word[len(ROOT_ONLY) :]
            if "@" in word:
                for name, value in values.items():
                    word = word.replace(f"@{name}@", value)
            found.append(word)
        return found

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
            _own(self.context.server, target, uid, gid, mode)
        finally:
            os.close(fd)

    def _agent(self, target: str, path: str, owner_mode: Sequence[int]) -> None:
        """A socket with the owner that was asked for, joined to the agent's own."""
        from bknb.shim import mediate

        uid, gid, mode = owner_mode
        listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        listener.bind(target)
        listener.listen(16)
        _own(self.context.server, target, uid, gid, mode)
        mediator = mediate.Mediator(listener, path)
        self.undo.append(mediator.close)


def _own(server: Server, path: str, uid: int, gid: int, mode: int) -> None:
    """Owner and mode of a file of ours; without namespaces everything belongs to us and is readable for us."""
    os.chmod(path, mode & 0o7777 if server.isolated else mode & 0o777 | 0o600)
    if not server.isolated:
        return
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
    while runtime in server.children.running:
        below = children_of(runtime)
        late = time.monotonic() > until
        for pid in [*below, runtime] if late or not below else below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


OPS: dict[str, Any] = {"run": run}
