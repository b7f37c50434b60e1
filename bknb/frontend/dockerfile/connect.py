"""From a parsed file to stages that know what they need: bases, ``from=``, the target, ONBUILD triggers.

The first half of BuildKit's dockerfile2llb/convert.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from bknb.errors import BknbError, DockerfileError, Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.gotext import quote
from bknb.frontend.dockerfile.lint import Linter
from bknb.frontend.dockerfile.parser import parse_trigger
from bknb.frontend.dockerfile.places import located, relocated
from bknb.frontend.dockerfile.stages import SCRATCH, BuildStage, Conversion, Step
from bknb.frontend.dockerfile.suggest import search, search_in_order, with_suggestion
from bknb.frontend.dockerfile.words import Result
from bknb.garbage import no_collection
from bknb.platforms import Platform
from bknb.reference import Reference


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
        if suggestion := search_in_order(name, options):
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
            lint.run("UndefinedArgInFrom", head.ranges, name, conversion.hint(name, known, search))


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
            f"target stage {quote(name)} could not be found", search_in_order(name, conversion.stages.names())
        )
    return found


@no_collection()
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
