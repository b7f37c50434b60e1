"""Stages: what they stand on, what they need, and which of them the target reaches.

The first half of BuildKit's dockerfile2llb/convert.go. A `BuildStage` is a FROM with its instructions, or
something that an instruction names with ``from=`` and that is no stage (an image, a context): those are
stages without instructions, added to the list as they are met, since stages are also numbered by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bknb import llb
from bknb.errors import BknbError, DockerfileError, Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.args import ArgInfo, Platforms
from bknb.frontend.dockerfile.contexts import Contexts, NamedContext
from bknb.frontend.dockerfile.gotext import lower, quote
from bknb.frontend.dockerfile.image import ImageConfig
from bknb.frontend.dockerfile.lint import Linter
from bknb.frontend.dockerfile.options import FrontendOptions
from bknb.frontend.dockerfile.places import located, relocated
from bknb.frontend.dockerfile.suggest import search, with_suggestion
from bknb.frontend.dockerfile.words import Lex, Result
from bknb.llb.graph import Pending
from bknb.llb.values import Env
from bknb.llb.vertex import SourceInfo
from bknb.platforms import Platform
from bknb.reference import Reference

SCRATCH: Final = "scratch"
_MAX_COMPARISONS: Final = 100_000


@dataclass(slots=True)
class Needs:
    """What the outline shows of a stage: arguments, secrets and agents, and where they are named."""

    args: dict[str, ArgInfo] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    secrets: dict[str, tuple[bool, tuple[Range, ...]]] = field(default_factory=dict)
    ssh: dict[str, tuple[bool, tuple[Range, ...]]] = field(default_factory=dict)

    def clone(self) -> Needs:
        """A copy that grows on its own."""
        return Needs(self.args.copy(), self.used.copy(), self.secrets.copy(), self.ssh.copy())


@dataclass(slots=True, eq=False)
class Step:
    """An instruction, and the stages that its ``from=`` name: one for COPY, one for each mount of RUN."""

    command: ast.Command
    sources: tuple[BuildStage, ...] = ()
    on_build: bool = False
    ranges: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        """Work out the lines once: they are asked for by every vertex of the instruction."""
        self.ranges = self.command.ranges


@dataclass(slots=True, eq=False)
class BuildStage:
    """One stage while it is compiled; compared by identity.

    Attributes:
        base_name: what stands after FROM, expanded, and a full image name once it is resolved.
        head: the FROM; None for something named by ``from=``.
        name: the AS name, in lower case.
        shown: the name in step names.
        ranges: of the FROM, or of what names it.
        base: the stage that it stands on.
        deps: the stages that its instructions name, and one instruction that does.
        paths: what is used of it; shared with the stage it stands on.
        context_paths: what it uses of the main context.
        env: variables, in the order of their last assignment; `frozen_env` is a copy until the next one.
        resolved: its base image was looked up.
        dispatched: it is lowered, or has nothing to lower.
        build_args, declared: its ARGs and those of what it stands on; their names.
        steps_total, steps_done: for the numbers in step names.
    """

    base_name: str
    head: ast.From | None = None
    name: str = ""
    shown: str = ""
    ranges: tuple[Range, ...] = ()
    commands: tuple[ast.Command, ...] = ()
    steps: list[Step] = field(default_factory=list)
    state: llb.State = field(default_factory=llb.State)
    image: ImageConfig = field(default_factory=ImageConfig)
    base_image: ImageConfig | None = None
    platform: Platform | None = None
    context: NamedContext | None = None
    base: BuildStage | None = None
    deps: dict[BuildStage, ast.Command] = field(default_factory=dict)
    build_args: list[ast.ArgDefinition] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    needs: Needs = field(default_factory=Needs)
    paths: set[str] = field(default_factory=set)
    context_paths: set[str] = field(default_factory=set)
    env: dict[str, str] | None = None
    frozen_env: Env | None = None
    ignore_cache: bool = False
    resolved: bool = False
    dispatched: bool = False
    triggers_read: bool = False
    workdir_set: bool = False
    steps_total: int = 0
    steps_done: int = 0
    seen: dict[str, tuple[Range, ...]] = field(default_factory=dict)
    number: str = ""

    @property
    def label(self) -> str:
        """The name that people know it by; "" for what is no stage of the file."""
        return "" if self.head is None else self.name or self.number

    @property
    def registered(self) -> bool:
        """Whether it is a stage of the file."""
        return self.head is not None

    def inherit(self) -> None:
        """Take over what the stage below has become."""
        base = self.base
        if base is None:
            return
        self.state, self.platform = base.state, base.platform
        self.image = base.image.clone()
        self.image.on_build = ()
        self.base_image = None if base.base_image is None else base.base_image.clone()
        self.paths, self.workdir_set = base.paths, base.workdir_set
        self.env = None if base.env is None else dict(base.env)
        self.frozen_env = None
        self.build_args.extend(base.build_args)
        self.declared |= base.declared


class StageList:
    """All stages, in the order in which they are numbered."""

    def __init__(self) -> None:
        self.stages: list[BuildStage] = []
        self._names: dict[str, BuildStage] = {}

    def add(self, stage: BuildStage) -> None:
        """Append one, and put it on the stage that its base names."""
        self.stages.append(stage)
        base = self._names.get(stage.base_name)
        if base is not None:
            stage.base, stage.needs = base, base.needs.clone()
        if stage.name:
            self._names[lower(stage.name)] = stage

    def named(self, name: str) -> BuildStage | None:
        """The last stage of that name so far, in any case."""
        return self._names.get(lower(name))

    def numbered(self, index: int) -> BuildStage:
        """The stage of that number.

        Raises:
            DockerfileError: there is none.
        """
        if not 0 <= index < len(self.stages):
            raise DockerfileError(f"invalid stage index {index}")
        return self.stages[index]

    def names(self) -> list[str]:
        """The names in step names."""
        return [stage.shown for stage in self.stages if stage.shown]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a pending vertex was made for."""

    stage: str
    command: str
    ranges: tuple[Range, ...]


@dataclass(slots=True)
class Conversion:
    """What all passes over one Dockerfile for one platform share.

    Attributes:
        args: the arguments before the first FROM and the predefined ones.
        epoch: unix seconds of SOURCE_DATE_EPOCH.
        all_stages: lower every stage, for the build checks.
        origins: what the pending vertices made so far are for.
    """

    options: FrontendOptions
    contexts: Contexts
    dockerfile: ast.Dockerfile
    source: SourceInfo
    platforms: Platforms
    lint: Linter
    lex: Lex
    args: dict[str, str]
    arg_infos: Mapping[str, ArgInfo]
    build_args: Mapping[str, str]
    epoch: int | None = None
    all_stages: bool = False
    stages: StageList = field(default_factory=StageList)
    origins: list[tuple[Pending, Origin]] = field(default_factory=list)
    comparisons: int = 0

    def hint(self, name: str, known: Collection[str]) -> str:
        """The known name nearest to one that is not, or "".

        Comparing every unknown name with every known one takes time that grows with the square of the file,
        so a file may ask for only so many comparisons; after that there are no hints.
        """
        self.comparisons += len(known)
        return search(name, known) if self.comparisons <= _MAX_COMPARISONS else ""

    def note(self, stage: BuildStage, command: str, ranges: tuple[Range, ...], state: llb.State) -> None:
        """Remember what the newest vertex of a state was made for."""
        if state.output is not None:
            self.origins.append((state.output.pending, Origin(stage.label, command, ranges)))

    def named_context(self, name: str, platform: Platform | None) -> NamedContext | None:
        """The named context of that name; ``scratch`` and ``context`` have none."""
        if lower(name) in (SCRATCH, "context"):
            return None
        target = None if self.platforms.implicit else self.platforms.target
        return self.contexts.named(name, platform or target)


def build_stages(conversion: Conversion) -> None:
    """Make the stages of a file, with bases and platforms expanded.

    Raises:
        DockerfileError: a FROM that cannot be.
    """
    for index, parsed in enumerate(conversion.dockerfile.stages):
        stage = _build_stage(conversion, parsed, index)
        if stage.context is not None:
            stage.base = None
            continue
        total = 1 if stage.base_name != SCRATCH and stage.base is None else 0
        counted = ast.Add | ast.Copy | ast.Run | ast.Workdir
        stage.steps_total = total + sum(isinstance(command, counted) for command in stage.commands)
        stage.ignore_cache = conversion.options.ignores_cache(stage.name)


def _build_stage(conversion: Conversion, parsed: ast.Stage, index: int) -> BuildStage:
    head = parsed.head
    lint = conversion.lint.for_comments(head.comments)
    try:
        base = conversion.lex.process_word(head.base, conversion.args)
    except DockerfileError as error:
        _report_unknown_args(conversion, lint, getattr(error, "unmatched", ()), head)
        raise located(error, head.ranges) from None
    _report_unknown_args(conversion, lint, base.unmatched, head)
    if not base.text:
        raise DockerfileError(f"base name ({head.base}) should not be blank", head.ranges)
    used = set(base.matched)
    stage = BuildStage(
        base.text,
        head,
        head.name,
        head.name,
        head.ranges,
        parsed.commands,
    )
    if head.platform:
        stage.platform = _stage_platform(conversion, lint, head, used)
    if head.name:
        stage.context = conversion.named_context(head.name, stage.platform)
    else:
        stage.shown = f"stage-{index}"
    stage.number = f"stage-{index}"
    conversion.stages.add(stage)
    if stage.context is None:
        stage.needs.used |= used
    return stage


def _stage_platform(conversion: Conversion, lint: Linter, head: ast.From, used: set[str]) -> Platform:
    try:
        found = conversion.lex.process_word(head.platform, conversion.args)
    except DockerfileError as error:
        message = f"failed to process arguments for platform : {error.message}"
        raise located(DockerfileError(message), head.ranges) from None
    _report_unknown_args(conversion, lint, found.unmatched, head)
    _report_platform(conversion, lint, found, head)
    if not found.text:
        message = f"empty platform value from expression {head.platform}"
        raise _suggest_any(message, found.unmatched, conversion.args, head.ranges)
    try:
        platform = Platform.parse(found.text)
    except ValueError as error:
        message = f"failed to parse platform {head.platform}: {error}"
        problem = _suggest_any(message, found.unmatched, conversion.args, head.ranges)
        raise located(problem, head.ranges) from None
    used.update(found.matched)
    return platform


def _suggest_any(
    message: str, names: Iterable[str], options: Iterable[str], ranges: tuple[Range, ...]
) -> DockerfileError:
    for name in names:
        if suggestion := search(name, options):
            return located(
                DockerfileError(f"{message} (did you mean {suggestion}?)", suggestion=suggestion), ranges
            )
    return DockerfileError(message, ranges)


def _report_unknown_args(
    conversion: Conversion, lint: Linter, unmatched: Iterable[str], head: ast.From
) -> None:
    for name in unmatched:
        if name not in conversion.arg_infos and name not in conversion.args:
            known = {**conversion.arg_infos, **conversion.args}
            lint.run("UndefinedArgInFrom", head.ranges, name, conversion.hint(name, known))


def _report_platform(conversion: Conversion, lint: Linter, found: Result, head: ast.From) -> None:
    only_target = found.matched == ("TARGETPLATFORM",) and not found.unmatched
    if only_target and found.text == conversion.args.get("TARGETPLATFORM", ""):
        lint.run("RedundantTargetPlatform", head.ranges, head.platform)
    if found.matched or found.unmatched:
        return
    try:
        platform = Platform.parse(found.text)
    except ValueError:
        return
    # A stage that is named after its platform means it.
    if platform.os not in head.name and platform.architecture not in head.name:
        lint.run("FromPlatformFlagConstDisallowed", head.ranges, found.text)


def find_target(conversion: Conversion) -> BuildStage:
    """The stage that is asked for.

    Raises:
        DockerfileError: there is none of that name.
    """
    name = conversion.options.target
    if not name:
        return conversion.stages.stages[-1]
    found = conversion.stages.named(name)
    if found is None:
        raise with_suggestion(
            f"target stage {quote(name)} could not be found", name, conversion.stages.names()
        )
    return found


def connect_stages(conversion: Conversion) -> None:
    """Find what each instruction names with ``from=``.

    Raises:
        DockerfileError: a stage that does not exist, or stages that need each other.
    """
    stages = conversion.stages
    # The list grows with what is no stage; those have no instructions.
    for stage in stages.stages.copy():
        for command in stage.commands:
            step = make_step(conversion, command)
            stage.steps.append(step)
            _depend(conversion, stage, step)
    _check_circles(stages.stages)
    if len(stages.stages) == 1:
        stages.stages[0].shown = ""


def _depend(conversion: Conversion, stage: BuildStage, step: Step) -> None:
    for source in step.sources:
        stage.deps[source] = step.command
        if not source.registered:
            conversion.stages.add(source)


def make_step(conversion: Conversion, command: ast.Command) -> Step:
    """An instruction and the stages that it names.

    Raises:
        DockerfileError: COPY --from has a variable, or a number that is no stage's.
    """
    stages = conversion.stages
    if isinstance(command, ast.Copy) and command.from_:
        if conversion.lex.process_word(command.from_, {}).text != command.from_:
            raise DockerfileError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG "
                "from global scope as a workaround"
            )
        number = _integer(command.from_)
        if number is not None:
            return Step(command, (stages.numbered(number),))
        found = stages.named(command.from_)
        return Step(command, (found or BuildStage(command.from_, ranges=command.ranges),))
    if isinstance(command, ast.Run) and command.mounts:
        names = [mount.from_ or SCRATCH for mount in command.mounts]
        return Step(command, tuple(stages.named(name) or BuildStage(name) for name in names))
    return Step(command)


def _integer(text: str) -> int | None:
    """strconv.Atoi."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        return None
    return int(text)


def _check_circles(stages: list[BuildStage]) -> None:
    """Stages must not need each other. Only names count here; a base always comes earlier."""
    done: set[BuildStage] = set()
    for first in stages:
        if first in done:
            continue
        path: dict[BuildStage, ast.Command | None] = {first: None}
        stack = [(first, iter(first.deps.items()))]
        done.add(first)
        while stack:
            stage, rest = stack[-1]
            below = next(rest, None)
            if below is None:
                stack.pop()
                del path[stage]
                continue
            dep, command = below
            if dep in path:
                commands = [each for each in path.values() if each is not None] + [command]
                error = DockerfileError(f"circular dependency detected on stage: {first.shown}")
                for each in commands:
                    error = located(error, each.ranges)
                raise error
            if dep not in done:
                done.add(dep)
                path[dep] = command
                stack.append((dep, iter(dep.deps.items())))


def reachable(target: BuildStage) -> set[BuildStage]:
    """Every stage that one needs, and itself."""
    found: set[BuildStage] = set()
    stack = [target]
    while stack:
        stage = stack.pop()
        if stage in found:
            continue
        found.add(stage)
        stack += [] if stage.base is None else [stage.base]
        stack += stage.deps
    return found


def add_triggers(conversion: Conversion, stage: BuildStage, triggers: Iterable[str]) -> bool:
    """Put ONBUILD triggers before a stage's own instructions.

    Returns:
        Whether they name stages or images, which are then to be resolved too.

    Raises:
        DockerfileError: a trigger that is no instruction; its place is the FROM.
    """
    from bknb.frontend.dockerfile.parser import parse_trigger

    steps: list[Step] = []
    first, last = _span(stage.ranges)
    try:
        for expression in triggers:
            step = make_step(conversion, parse_trigger(expression, first, last))
            step.on_build = True
            steps.append(step)
            _depend(conversion, stage, step)
    except DockerfileError as error:
        raise relocated(error, stage.ranges) from None
    stage.steps[:0] = steps
    stage.steps_total += len(steps)
    return any(step.sources for step in steps)


def _span(ranges: tuple[Range, ...]) -> tuple[int, int]:
    if not ranges:
        return 0, 0
    return min(part.start_line for part in ranges), max(part.end_line for part in ranges)


def parse_reference(name: str) -> Reference:
    """An image name after FROM.

    Raises:
        DockerfileError: it is none.
    """
    try:
        return Reference.parse(name)
    except BknbError as error:
        raise DockerfileError(f"failed to parse stage name {quote(name)}: {error}") from None
