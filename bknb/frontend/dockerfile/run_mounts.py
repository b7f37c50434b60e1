"""RUN and its mounts (dockerfile2llb/convert.go dispatchRun, convert_runmount.go, _secrets.go, _ssh.go)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bknb import llb
from bknb.errors import DockerfileError
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.gotext import encode, quote
from bknb.frontend.dockerfile.heredoc import chomped, heredoc_argument
from bknb.frontend.dockerfile.mounts import RunMount, resolve_mount
from bknb.frontend.dockerfile.naming import instruction_name, summary
from bknb.frontend.dockerfile.options import proxy_env
from bknb.frontend.dockerfile.stages import SCRATCH, BuildStage, Step
from bknb.llb.graph import Constraints
from bknb.llb.ops import CacheSharing, NetMode, SecurityMode
from bknb.llb.run import SSH, AnyMount, BindMount, CacheMount, Secret, TmpfsMount
from bknb.llb.values import Env, clean, join

if TYPE_CHECKING:
    from bknb.frontend.dockerfile.lower import Lowering

_SHARING = {"private": CacheSharing.PRIVATE, "locked": CacheSharing.LOCKED}
_NETWORK = {"none": NetMode.NONE, "host": NetMode.HOST}
_PIPES = "/dev/pipes/"
# BuildKit has no limit; no kernel makes so many quickly.
_MAX_MOUNTS = 4_096


@dataclass(slots=True)
class _Mounts:
    """What a RUN mounts, in the order of its flags."""

    mounts: list[AnyMount] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    ssh: list[SSH] = field(default_factory=list)


def lower_run(lowering: Lowering, stage: BuildStage, step: Step, command: ast.Run) -> None:
    """Lower one RUN.

    Raises:
        DockerfileError: a mount that cannot be.
    """
    if len(command.mounts) > _MAX_MOUNTS:
        raise DockerfileError(
            f"{len(command.mounts)} mounts are too many for one step: at most {_MAX_MOUNTS}"
        )
    expand = lowering.expander(stage, step)
    mounts = [resolve_mount(flag, expand) for flag in command.mounts]
    # A command may read everything.
    stage.paths.add("/")
    made = _Mounts()
    args, shown = _command(lowering, stage, command, made)
    if command.shell_form:
        from bknb.frontend.dockerfile.lower import with_shell

        args = with_shell(stage, args)
    for mount, source in zip(mounts, step.sources, strict=True):
        _mount(lowering, stage, step, mount, source, made)
    if command.devices:
        raise DockerfileError("device feature is only supported in Dockerfile frontend 1.14.0-labs or later")
    state = _settings(lowering, stage, command, args)
    name = instruction_name(shown, lowering.naming, _masked(lowering.env(stage), mounts))
    options = lowering.conversion.options
    constraints = lowering.constraints(
        step,
        # A state on scratch has no platform of its own, and the name then shows none.
        lowering.name(stage, step, name, platform=stage.state.values.platform),
        description={"com.docker.dockerfile.v1.command": command.text},
        ignore_cache=lowering.ignores_cache(stage, step),
        resources=options.resources,
    )
    if options.shm_size > 0:
        made.mounts.append(TmpfsMount("/dev/shm", options.shm_size))
    stage.state = stage.state.run(
        mounts=made.mounts,
        secrets=made.secrets,
        ssh=made.ssh,
        proxy=proxy_env(lowering.conversion.build_args),
        using=state,
        constraints=constraints,
    )
    lowering.note(stage, step, stage.state)
    text = _history(args, stage.build_args, lowering.env(stage))
    lowering.commit(stage, f"RUN {text} # buildkit", layer=True)


def _settings(lowering: Lowering, stage: BuildStage, command: ast.Run, args: tuple[str, ...]) -> llb.State:
    """The stage's state as this command alone sees it."""
    options = lowering.conversion.options
    if stage.frozen_env is None:
        stage.frozen_env = Env.of(lowering.env(stage))
    values = replace(
        stage.state.values,
        args=args,
        env=stage.frozen_env,
        ulimits=options.ulimits,
        extra_hosts=options.extra_hosts,
        cgroup_parent=options.cgroup_parent,
    )
    if command.security == "insecure":
        values = replace(values, security=SecurityMode.INSECURE)
    if command.network in _NETWORK:
        values = replace(values, network=_NETWORK[command.network])
    return llb.State(stage.state.output, values)


def _command(
    lowering: Lowering, stage: BuildStage, command: ast.Run, made: _Mounts
) -> tuple[tuple[str, ...], str]:
    """A command's arguments, and its text in the step's name."""
    if not command.files:
        return command.args, command.text
    if len(command.args) != 1 or not command.shell_form:
        words = " ".join(command.args)
        raise DockerfileError(f"parsing produced an invalid run command: [{words}]")
    line = command.args[0]
    if heredoc_argument(line) is None:
        # Several documents, or more on the line: the shell is to read them itself.
        parts = [line, *(f"{file.content}{file.name}" for file in command.files)]
        return ("\n".join(parts),), command.text
    file = command.files[0]
    shown = f"{command.text} ({summary(file.content)})"
    body = chomped(file.content) if file.chomp else file.content
    if stage.image.os == "windows" or not body.startswith("#!"):
        return (body,), shown
    constraints = Constraints(platform=stage.platform, name="[internal] preparing inline document")
    script = llb.scratch().file(llb.mkfile(file.name, encode(body), 0o755), constraints=constraints)
    made.mounts.append(BindMount(_PIPES, script, "/", readonly=True))
    return (join(_PIPES, file.name),), shown


def _mount(
    lowering: Lowering, stage: BuildStage, step: Step, mount: RunMount, source: BuildStage, made: _Mounts
) -> None:
    from_ = mount.from_ or (SCRATCH if mount.type == "cache" else "")
    if from_ and not source.dispatched:
        raise DockerfileError(
            f"cannot mount from stage {quote(from_)} to {quote(mount.target)}, stage needs to be defined "
            "before current command"
        )
    if mount.type == "secret":
        made.secrets.append(_secret(stage, step, mount))
        return
    if mount.type == "ssh":
        made.ssh.append(_ssh(stage, step, mount))
        return
    state = source.state if from_ else lowering.context
    target = mount.target
    if not clean(target).startswith("/"):
        target = join("/", stage.state.values.dir, target)
    if target == "/":
        raise DockerfileError(f"invalid mount target {quote(target)}")
    path = join("/", mount.source)
    selector = "" if path == "/" else path
    owned = (mount.uid, mount.gid, mount.mode) != (None, None, None)
    if not selector and owned and mount.type == "cache":
        state, selector = _owned_cache(state, mount), "/cache"
    made.mounts.append(_as_mount(lowering, mount, target, state, selector))
    if from_:
        source.paths.add(path)
    else:
        stage.context_paths.add(path)
        lowering.uses_context |= mount.type != "tmpfs"


def _as_mount(lowering: Lowering, mount: RunMount, target: str, state: llb.State, selector: str) -> AnyMount:
    match mount.type:
        case "tmpfs":
            return TmpfsMount(target, mount.size, selector, mount.readonly)
        case "cache":
            namespace = lowering.conversion.options.cache_namespace
            id = f"{namespace}/{mount.id or clean(mount.target)}"
            sharing = _SHARING.get(mount.sharing, CacheSharing.SHARED)
            return CacheMount(target, id, sharing, state, selector, mount.readonly)
        case _:
            return BindMount(target, state, selector, mount.readonly, discard=not mount.readonly)


def _owned_cache(state: llb.State, mount: RunMount) -> llb.State:
    """A folder with the owner and mode that a new cache shall have."""
    mode = 0o755 if mount.mode is None else mount.mode
    action = llb.mkdir("/cache", mode, owner=(mount.uid or 0, mount.gid or 0))
    return state.file(action, name="[internal] setting cache mount permissions")


def _secret(stage: BuildStage, step: Step, mount: RunMount) -> Secret:
    id = mount.source or mount.id
    if not id:
        if not mount.target:
            raise DockerfileError("one of source, target required")
        id = _base(mount.target)
    target: str | None = mount.target or None
    if mount.env is None and target is None:
        target = f"/run/secrets/{_base(id)}"
    stage.needs.secrets.setdefault(id, (mount.required, step.ranges))
    return Secret(
        id,
        target,
        mount.env,
        mount.uid or 0,
        mount.gid or 0,
        0o400 if mount.mode is None else mount.mode,
        not mount.required,
    )


def _ssh(stage: BuildStage, step: Step, mount: RunMount) -> SSH:
    if mount.source:
        raise DockerfileError("ssh does not support source")
    stage.needs.ssh.setdefault(mount.id or "default", (mount.required, step.ranges))
    mode = 0o600 if mount.mode is None else mount.mode
    return SSH(mount.id, mount.target, mount.uid or 0, mount.gid or 0, mode, not mount.required)


def _base(path: str) -> str:
    """Go's path.Base."""
    return posixpath.basename(path.rstrip("/")) or ("/" if path else ".")


def _masked(env: Mapping[str, str], mounts: Sequence[RunMount]) -> Mapping[str, str]:
    """Variables as a step's name shows them: those that are secrets are not known here anyway."""
    secrets = {mount.env: "****" for mount in mounts if mount.type == "secret" and mount.env is not None}
    return {**env, **secrets} if secrets else env


def _history(args: tuple[str, ...], build_args: Sequence[ast.ArgDefinition], env: Mapping[str, str]) -> str:
    """The command as history has it: the arguments that it could see, then its words."""
    shown: dict[str, str] = {}
    for definition in build_args:
        value = env.get(definition.key)
        shown[definition.key] = definition.value or "" if value is None else value
    words = [f"{key}={value}" for key, value in shown.items()]
    return " ".join([*([f"|{len(words)}"] if words else []), *words, *args])
