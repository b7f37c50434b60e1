"""Stages while they are compiled, and what all passes over them share.

A `BuildStage` is a FROM with its instructions, or
something that an instruction names with ``from=`` and that is no stage (an image, a context): those are
stages without instructions, added to the list as they are met, since stages are also numbered by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bknb import llb
from bknb.errors import DockerfileError, Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.args import ArgInfo, Platforms
from bknb.frontend.dockerfile.commits import Moment
from bknb.frontend.dockerfile.contexts import Contexts
from bknb.frontend.dockerfile.gotext import lower
from bknb.frontend.dockerfile.image import ImageConfig
from bknb.frontend.dockerfile.lint import Linter
from bknb.frontend.dockerfile.named import NamedContext
from bknb.frontend.dockerfile.options import FrontendOptions
from bknb.frontend.dockerfile.suggest import search_in_order
from bknb.frontend.dockerfile.words import Lex
from bknb.llb.graph import Pending
from bknb.llb.values import Env
from bknb.llb.vertex import SourceInfo
from bknb.platforms import Platform

SCRATCH: Final = "scratch"
_MAX_COMPARISONS: Final = 100_000
_MAX_CHARACTERS: Final = 32 << 20


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
        epoch: what SOURCE_DATE_EPOCH says.
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
    epoch: Moment | None = None
    all_stages: bool = False
    stages: StageList = field(default_factory=StageList)
    origins: list[tuple[Pending, Origin]] = field(default_factory=list)
    comparisons: int = 0
    characters: int = 0

    def hint(
        self, name: str, known: Collection[str], find: Callable[[str, Iterable[str]], str] = search_in_order
    ) -> str:
        """The known name nearest to one that is not, or "", as `find` finds it.

        Comparing every unknown name with every known one takes time that grows with the square of the file,
        so a file may ask for only so many comparisons; after that there are no hints.
        """
        self.comparisons += len(known)
        return find(name, known) if self.comparisons <= _MAX_COMPARISONS else ""

    def spend(self, text: str) -> str:
        """Count a text that was made, and give it back.

        Raises:
            DockerfileError: all of them are longer than any build needs: a few lines can ask for terabytes
                (``ENV a=$a$a``).
        """
        self.characters += len(text)
        if self.characters > _MAX_CHARACTERS:
            raise DockerfileError(f"expanded variables take more than {_MAX_CHARACTERS >> 20} MiB")
        return text

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
