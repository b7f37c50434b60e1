"""`State`: a filesystem to be, and how the next command on it runs.

States are immutable: each method gives a new one, and nothing happens until the graph is marshalled and
solved. A state is an output of a vertex to be (None is scratch) and `Values`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bknb.errors import DefinitionError
from bknb.llb.combine import PendingBuild, PendingDiff, PendingMerge, PendingPassthrough
from bknb.llb.file import FileAction, PendingFile
from bknb.llb.graph import Constraints, Defaults, Deferred, Edges, Existing, Output, build
from bknb.llb.marshal import Definition
from bknb.llb.ops import CDIDevice, HostIP, NetMode, ProxyEnv, SecurityMode, Ulimit
from bknb.llb.run import SSH, AnyMount, PendingExec, RunOptions, Secret, split_words
from bknb.llb.values import Values
from bknb.llb.vertex import Edge
from bknb.platforms import Platform

_Change = Callable[[Values], Values]
_NONE = Constraints()


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A filesystem, and the settings for commands on it.

    >>> from bknb.llb import image
    >>> state = image("alpine").with_dir("/src").run("make all")
    >>> len(state.marshal(platform="linux/amd64").ops)
    3
    """

    output: Output | None = field(default=None, repr=False)
    fixed: Values | None = field(default=Values(dir="/"))
    deferred: Deferred | None = field(default=None, repr=False)
    changes: tuple[_Change, ...] = field(default=(), repr=False)

    @property
    def values(self) -> Values:
        """Environment, folder, user and so on.

        Raises:
            DefinitionError: the state is made by a coroutine that was not awaited yet.
        """
        if self.deferred is None:
            assert self.fixed is not None
            return self.fixed
        values = self.deferred.result.values
        for change in self.changes:
            values = change(values)
        return values

    def _with(self, change: _Change) -> State:
        if self.fixed is not None:
            return State(self.output, change(self.fixed))
        return State(self.output, None, self.deferred, (*self.changes, change))

    def with_output(self, output: Output | None) -> State:
        """The same settings over another output, and that output's platform if it has one."""
        changed = State(output, self.fixed, self.deferred, self.changes)
        if output is None or output.platform is None:
            return changed
        platform = output.platform.normalize()
        return changed._with(lambda values: replace(values, platform=platform))

    # --- settings ---

    def with_env(self, key: str, value: str | None) -> State:
        """Set a variable; None removes it."""
        return self._with(lambda values: replace(values, env=values.env.set(key, value)))

    def with_dir(self, path: str) -> State:
        """Set the working folder; relative to the present one."""
        return self._with(lambda values: values.with_dir(path))

    def with_user(self, user: str) -> State:
        """Set the user that commands run as: ``name``, ``uid``, ``name:group``."""
        return self._with(lambda values: replace(values, user=user))

    def with_hostname(self, name: str) -> State:
        """Set the host name that commands see."""
        return self._with(lambda values: replace(values, hostname=name))

    def add_host(self, host: str, ip: str) -> State:
        """Add a line to the /etc/hosts that commands see."""
        return self._with(lambda values: replace(values, extra_hosts=(*values.extra_hosts, HostIP(host, ip))))

    def add_ulimit(self, name: str, soft: int, hard: int) -> State:
        """Set a resource limit of commands."""
        return self._with(lambda values: replace(values, ulimits=(*values.ulimits, Ulimit(name, soft, hard))))

    def with_cgroup_parent(self, path: str) -> State:
        """Set the cgroup that commands run below."""
        return self._with(lambda values: replace(values, cgroup_parent=path))

    def with_network(self, mode: NetMode) -> State:
        """Set which network commands see."""
        return self._with(lambda values: replace(values, network=mode))

    def with_security(self, mode: SecurityMode) -> State:
        """Set how far commands are confined."""
        return self._with(lambda values: replace(values, security=mode))

    def with_platform(self, platform: Platform | str) -> State:
        """Set the platform that commands run on."""
        normal = _platform(platform).normalize()
        return self._with(lambda values: replace(values, platform=normal))

    def with_valid_exit_codes(self, *codes: int) -> State:
        """Set the exit codes that are no failure."""
        return self._with(lambda values: replace(values, valid_exit_codes=codes))

    def with_image_config(self, config: bytes | str) -> State:
        """Take environment, folder and platform from an image config (JSON).

        Raises:
            DefinitionError: it is not one.
        """
        try:
            image = json.loads(config)
            settings = image.get("config") or {}
            entries = [entry.partition("=") for entry in settings.get("Env") or ()]
            folder = str(settings.get("WorkingDir") or "")
            system, machine = image.get("os") or "", image.get("architecture") or ""
            features = tuple(image.get("os.features") or ())
            variant, version = image.get("variant") or "", image.get("os.version") or ""
        except (ValueError, AttributeError, TypeError) as error:
            raise DefinitionError(f"not an image config: {error}") from None
        state = self
        for key, _, value in entries:
            state = state.with_env(key, value) if key else state
        state = state.with_dir(folder)
        if system and machine:
            state = state.with_platform(Platform(system, machine, variant, version, features))
        return state

    def reset(self, other: State) -> State:
        """This filesystem with another state's settings, but in "/"."""
        return other.with_output(self.output)._with(lambda values: replace(values, dir="/"))

    # --- ops ---

    def run(
        self,
        command: str | Sequence[str] | None = None,
        *,
        mounts: Iterable[AnyMount] = (),
        secrets: Iterable[Secret] = (),
        ssh: Iterable[SSH] = (),
        devices: Iterable[CDIDevice] = (),
        proxy: ProxyEnv | None = None,
        readonly_root: bool = False,
        using: State | None = None,
        name: str = "",
        constraints: Constraints = _NONE,
    ) -> ExecState:
        """Run a command over this filesystem.

        Args:
            command: arguments, or a text that is cut into words (there is no shell: say ``sh -c``).
            mounts: further filesystems in it.
            secrets: of the client.
            ssh: the client's agent.
            devices: by CDI name.
            proxy: variables that do not count for the cache.
            readonly_root: "/" cannot be written, and the command changes only its mounts.
            using: settings for this command alone, as a state: ``using=state.with_user("1")``.
            name: shown for the step.
            constraints: what can be said of any op.
        """
        base = self if using is None else State(self.output, using.fixed, using.deferred, using.changes)
        if command is not None:
            args = split_words(command)
            base = base._with(lambda values: replace(values, args=args))
        options = RunOptions(tuple(mounts), tuple(secrets), tuple(ssh), tuple(devices), proxy, readonly_root)
        pending = PendingExec(base, options, constraints.named(name))
        after = self.with_output(pending.root)
        return ExecState(after.output, after.fixed, after.deferred, after.changes, pending)

    def file(self, action: FileAction, *, name: str = "", constraints: Constraints = _NONE) -> State:
        """Do file actions on this filesystem."""
        return self.with_output(PendingFile(self, action, constraints.named(name)).output)

    def build(self, filename: str = "", *, name: str = "", constraints: Constraints = _NONE) -> State:
        """Build the definition in this filesystem's file (``buildkit.llb.definition`` when not named)."""
        if self.output is None:
            raise DefinitionError("scratch has no definition to build")
        return self.with_output(PendingBuild(self.output, filename, constraints.named(name)).output)

    def requires(self, id: str, *states: State, constraints: Constraints = _NONE) -> State:
        """This filesystem, once the other states are built too."""
        if not states:
            return self
        return self.with_output(passthrough(id, [self], states, constraints=constraints)[0].output)

    def then(self, make_state: Callable[[State], Awaitable[State]]) -> State:
        """A state that a coroutine makes of this one; it runs when the graph is marshalled."""
        deferred = Deferred(make_state, self)
        return State(Output(deferred), None, deferred)

    # --- the way out ---

    def marshal(
        self,
        *,
        platform: Platform | str | None = None,
        constraints: Constraints = _NONE,
        caps: Collection[str] | None = None,
        unique_id: str = "",
    ) -> Definition:
        """The definition of this state.

        Args:
            platform: for ops that have none of their own; the host's when absent.
            constraints: apply to every op.
            caps: what the solver can do; None when not known.
            unique_id: goes into local sources that name no session.

        Raises:
            DefinitionError: the graph does not hold together, or a part is made by a coroutine.
        """
        edge = self.edge(platform=platform, constraints=constraints, caps=caps, unique_id=unique_id)
        return Definition.from_edge(edge)

    def edge(
        self,
        *,
        platform: Platform | str | None = None,
        constraints: Constraints = _NONE,
        caps: Collection[str] | None = None,
        unique_id: str = "",
    ) -> Edge | None:
        """As `marshal`, but the graph itself; None is scratch."""
        chosen = constraints.platform or (_platform(platform) if platform else Platform.host())
        made = self.build_graph(Defaults(chosen, constraints, caps, unique_id))
        return None if made is None else made[0]

    def build_graph(self, defaults: Defaults) -> tuple[Edge, Edges] | None:
        """As `edge`, with the vertex of every pending one, for who made those; None is scratch."""
        output = self.output
        while output is not None and isinstance(output.pending, Deferred):
            output = output.pending.result.output
        return None if output is None else build(output, defaults)

    async def marshal_async(self, **options: Any) -> Definition:
        """As `marshal`, after the coroutines that make parts of it have run."""
        from bknb.llb.resolve import resolve

        await resolve(self)
        return self.marshal(**options)

    @classmethod
    def from_edge(cls, edge: Edge | None) -> State:
        """A state of an existing graph, as `Definition.to_edge` gives it."""
        if edge is None:
            return cls()
        output = Output(Existing(edge.vertex), edge.index, platform=edge.vertex.platform)
        return cls().with_output(output)

    @classmethod
    def from_definition(cls, definition: Definition) -> State:
        """A state of a definition.

        Raises:
            DefinitionError: it does not hold together.
        """
        return cls.from_edge(definition.to_edge())


@dataclass(frozen=True, slots=True, eq=False)
class ExecState(State):
    """The root filesystem after a command; its mounts are states of their own."""

    exec: PendingExec | None = None

    def at(self, target: str) -> State:
        """What the mount at `target` became.

        Raises:
            DefinitionError: nothing is mounted there, or it is no output.
        """
        assert self.exec is not None
        return State().with_output(self.exec.output_at(target))


def merge(states: Iterable[State], *, name: str = "", constraints: Constraints = _NONE) -> State:
    """States laid over each other, the first at the bottom. Scratch has no effect."""
    filled = [state for state in states if state.output is not None]
    if len(filled) < 2:
        return filled[0] if filled else State()
    outputs = tuple(state.output for state in filled if state.output is not None)
    return filled[0].with_output(PendingMerge(outputs, constraints.named(name)).output)


def diff(lower: State, upper: State, *, name: str = "", constraints: Constraints = _NONE) -> State:
    """What `upper` has over `lower`, deletions included; made for `merge`."""
    if lower.output is None:
        return upper
    return lower.with_output(PendingDiff(lower.output, upper.output, constraints.named(name)).output)


def passthrough(
    id: str, outputs: Iterable[State], also: Iterable[State] = (), *, constraints: Constraints = _NONE
) -> tuple[State, ...]:
    """States handed on as they are, once those in `also` are built too."""
    flagged = [(state.output, True) for state in outputs] + [(state.output, False) for state in also]
    inputs = tuple((output, shown) for output, shown in flagged if output is not None)
    return tuple(
        State().with_output(output) for output in PendingPassthrough(id, inputs, constraints).outputs
    )


def _platform(platform: Platform | str) -> Platform:
    return Platform.parse(platform).normalize() if isinstance(platform, str) else platform
