"""Commands: what `State.run` makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bknb.errors import DefinitionError
from bknb.llb.graph import Constraints, Defaults, Edges, Inputs, Output, Pending
from bknb.llb.ops import (
    CacheOpt,
    CacheSharing,
    CDIDevice,
    ExecOp,
    Meta,
    Mount,
    MountContentCache,
    MountType,
    NetMode,
    ProxyEnv,
    SecretEnv,
    SecretOpt,
    SecurityMode,
    SSHOpt,
    TmpfsOpt,
)
from bknb.llb.vertex import Edge, Vertex

if TYPE_CHECKING:
    from bknb.llb.state import State

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class BindMount:
    """A state's files (or nothing: an empty folder) at `target`.

    Attributes:
        target: where, in the container.
        source: what, None for scratch.
        path: folder of the source that is mounted.
        readonly: it cannot be written, and is no output.
        discard: it can be written, and what was written is thrown away.
        content_cache: whether the step is keyed by the mount's content too.
    """

    target: str
    source: State | None = None
    path: str = ""
    readonly: bool = False
    discard: bool = False
    content_cache: MountContentCache = MountContentCache.DEFAULT


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A folder that lasts from build to build."""

    target: str
    id: str
    sharing: CacheSharing = CacheSharing.SHARED
    source: State | None = None
    path: str = ""
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """Memory; `size` in bytes, 0 for no limit."""

    target: str
    size: int = 0
    path: str = ""
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as a file at `target`, or as the variable `env`, or both."""

    id: str
    target: str | None = None
    env: str | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0o400
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SSH:
    """The client's ssh agent as a socket; without a target it is ``/run/buildkit/ssh_agent.N``."""

    id: str = ""
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o600
    optional: bool = False


AnyMount = BindMount | CacheMount | TmpfsMount


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a command has beside its state's settings."""

    mounts: tuple[AnyMount, ...] = ()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[SSH, ...] = ()
    devices: tuple[CDIDevice, ...] = ()
    proxy: ProxyEnv | None = None
    readonly_root: bool = False


@dataclass(eq=False, slots=True)
class _Mounted:
    """A mount with its place among the outputs; `what` None is the root."""

    target: str
    what: AnyMount | None
    source: Output | None
    output: Output | None = field(default=None)

    @property
    def readonly(self) -> bool:
        return self.what is not None and self.what.readonly

    @property
    def is_output(self) -> bool:
        if isinstance(self.what, BindMount):
            return not self.what.readonly and not self.what.discard
        return self.what is None


class PendingExec(Pending):
    """A command that has no bytes yet."""

    __slots__ = ("_mounted", "base", "options", "root")

    def __init__(self, base: State, options: RunOptions, constraints: Constraints) -> None:
        super().__init__(constraints)
        self.base = base
        self.options = options
        root = _Mounted("/", BindMount("/", readonly=True) if options.readonly_root else None, base.output)
        mounted = [root]
        for mount in options.mounts:
            source = None if isinstance(mount, TmpfsMount) or mount.source is None else mount.source.output
            mounted.append(_Mounted(mount.target, mount, source))
        # BuildKit orders mounts by target; their outputs count in that order.
        self._mounted = sorted(mounted, key=lambda each: each.target.encode("utf-8", "surrogateescape"))
        index = 0
        for each in self._mounted:
            if each.is_output:
                each.output = Output(self, index, platform=constraints.platform)
                index += 1
            elif each.readonly:
                each.output = each.source
            else:
                kind = (
                    "tmpfs mount for" if isinstance(each.what, TmpfsMount) else "mount marked no-output and"
                )
                each.output = Output(self, error=f"{kind} {each.target} can't be used as a parent")
        self.root = root.output

    def output_at(self, target: str) -> Output | None:
        """The output of the mount at a target.

        Raises:
            DefinitionError: there is no such mount.
        """
        for each in self._mounted:
            if each.target == target:
                return each.output
        raise DefinitionError(f"nothing is mounted at {target}")

    def sources(self) -> Iterable[Output]:
        found = {id(each.source): each.source for each in self._mounted if each.source is not None}
        return found.values()

    def states(self) -> Iterable[State]:
        return (self.base,)

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        values = self.base.values
        if not values.args:
            raise DefinitionError("arguments are required")
        if not values.dir:
            raise DefinitionError("working directory is required")
        platform = self.constraints.platform or values.platform or defaults.platform
        ssh = tuple(
            socket if socket.target else replace(socket, target=f"/run/buildkit/ssh_agent.{index}")
            for index, socket in enumerate(self.options.ssh)
        )
        caps = set(self._caps())
        env = values.env
        if ssh and env.get("SSH_AUTH_SOCK") is None:
            env = env.set("SSH_AUTH_SOCK", ssh[0].target)
        if defaults.caps is not None:
            if "exec.meta.setsdefaultpath" in defaults.caps:
                caps.add("exec.meta.setsdefaultpath")
            elif platform.os != "windows" and env.get("PATH") is None:
                env = env.set("PATH", DEFAULT_PATH)
        meta = Meta(
            args=values.args,
            env=env.entries(),
            cwd=values.dir,
            user=values.user,
            proxy_env=self.options.proxy,
            extra_hosts=values.extra_hosts,
            hostname=values.hostname,
            ulimit=values.ulimits,
            cgroup_parent=values.cgroup_parent,
            remove_mount_stubs_recursive=True,
            valid_exit_codes=values.valid_exit_codes or (),
        )
        inputs, mounts = self._mounts(edges)
        op = ExecOp(
            meta,
            (*mounts, *self._secret_mounts(), *map(_ssh_mount, ssh)),
            values.network,
            values.security,
            tuple(SecretEnv(s.id, s.env, s.optional) for s in self.options.secrets if s.env is not None),
            self.options.devices,
        )
        return self.finish(op, inputs, edges, defaults, caps, platform)

    def _mounts(self, edges: Edges) -> tuple[list[Edge], list[Mount]]:
        inputs = Inputs()
        mounts = []
        for each in self._mounted:
            index = -1 if each.source is None else inputs.index(edges.of(each.source))
            output = each.output.index if each.is_output and each.output is not None else -1
            mount = Mount(input=index, dest=each.target, output=output, readonly=each.readonly)
            match each.what:
                case BindMount(path=path, content_cache=content_cache):
                    mount = replace(mount, selector=path, content_cache=content_cache)
                case CacheMount(id=cache, sharing=sharing, path=path):
                    opt = CacheOpt(cache, sharing)
                    mount = replace(mount, selector=path, type=MountType.CACHE, cache_opt=opt)
                case TmpfsMount(size=size, path=path):
                    opts = TmpfsOpt(size)
                    mount = replace(mount, selector=path, type=MountType.TMPFS, tmpfs_opt=opts)
            mounts.append(mount)
        return inputs.edges, mounts

    def _secret_mounts(self) -> list[Mount]:
        return [
            Mount(
                input=-1,
                dest=secret.target,
                type=MountType.SECRET,
                secret_opt=SecretOpt(secret.id, secret.uid, secret.gid, secret.mode, secret.optional),
            )
            for secret in self.options.secrets
            if secret.target is not None
        ]

    def _caps(self) -> Iterable[str]:
        values, options = self.base.values, self.options
        yield "exec.meta.base"
        wanted = {
            "exec.validexitcode": values.valid_exit_codes is not None,
            "exec.meta.ulimit": bool(values.ulimits),
            "exec.meta.linux.resources": self.constraints.resources is not None,
            "exec.meta.network": values.network != NetMode.UNSET,
            "exec.meta.security": values.security != SecurityMode.SANDBOX,
            "exec.meta.proxyenv": options.proxy is not None,
            "exec.mount.secret": bool(options.secrets),
            "exec.secretenv": any(secret.env is not None for secret in options.secrets),
            "exec.mount.ssh": bool(options.ssh),
            "exec.meta.cdi": bool(options.devices),
        }
        yield from (cap for cap, needed in wanted.items() if needed)
        for each in self._mounted:
            match each.what:
                case CacheMount():
                    yield from ("exec.mount.cache", "exec.mount.cache.sharing")
                case TmpfsMount(size=size):
                    yield "exec.mount.tmpfs"
                    if size > 0:
                        yield "exec.mount.tmpfs.size"
                case _ if each.source is not None:
                    yield "exec.mount.bind"
            if each.what is not None and each.what.path:
                yield "exec.mount.selector"
            if isinstance(each.what, BindMount) and each.what.content_cache != MountContentCache.DEFAULT:
                yield "exec.mount.cache.content"


def _ssh_mount(socket: SSH) -> Mount:
    opt = SSHOpt(socket.id, socket.uid, socket.gid, socket.mode, socket.optional)
    return Mount(input=-1, dest=socket.target, type=MountType.SSH, ssh_opt=opt)


def split_words(command: str | Sequence[str]) -> tuple[str, ...]:
    """Arguments of a command: a text is cut like a shell's words, without expanding anything."""
    if not isinstance(command, str):
        return tuple(command)
    import shlex

    try:
        return tuple(shlex.split(command, comments=True))
    except ValueError as error:
        raise DefinitionError(f"{command!r}: {error}") from None
