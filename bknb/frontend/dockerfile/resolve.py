"""Base images: looked up side by side, each once, and only for stages that the target needs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from bknb import llb
from bknb.digest import Digest
from bknb.errors import BknbError, DockerfileError
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.connect import add_triggers, parse_reference, reachable
from bknb.frontend.dockerfile.image import ImageConfig
from bknb.frontend.dockerfile.named import NamedContext
from bknb.frontend.dockerfile.naming import step_name
from bknb.frontend.dockerfile.places import located, wrapped
from bknb.frontend.dockerfile.stages import SCRATCH, BuildStage, Conversion
from bknb.frontend.dockerfile.suggest import search_in_order
from bknb.llb.graph import Constraints
from bknb.llb.vertex import Location
from bknb.platforms import Platform
from bknb.protocols import ImageConfigAnswer

# A trigger may name an image that has triggers; each round looks up what the one before named.
_MAX_ROUNDS: Final = 32
_MAX_TRIGGERED: Final = 10_000
_COMMON = "alpine busybox centos debian golang ubuntu fedora".split()
# "docker.io/libraryalpine" is BuildKit's own slip; a suggestion shows only names close to what was written.
_COMMON_IMAGES = [
    f"{before}{repo}{tag}"
    for repo in _COMMON
    for tag in ("", ":latest")
    for before in ("", "docker.io/library")
]


async def resolve_stages(conversion: Conversion, target: BuildStage) -> set[BuildStage]:
    """Resolve what the target needs, ONBUILD triggers of its bases included.

    Returns:
        The stages that it needs.

    Raises:
        DockerfileError: an image that is not there, or a trigger that is no instruction.
    """
    first = len(conversion.stages.stages)
    for _ in range(_MAX_ROUNDS):
        needed = reachable(target)
        await _resolve_bases(conversion, needed)
        more = False
        for stage in [each for each in conversion.stages.stages if each in needed]:
            stage.inherit()
            triggers = list(stage.image.on_build)
            if stage.base is not None and not stage.triggers_read:
                triggers += [
                    step.command.expression
                    for step in stage.base.steps
                    if isinstance(step.command, ast.Onbuild)
                ]
                stage.triggers_read = True
            if triggers:
                more |= add_triggers(conversion, stage, triggers)
                stage.image.on_build = ()
        if not more:
            return needed
        if len(conversion.stages.stages) > first + _MAX_TRIGGERED:
            break
    # Such a file keeps BuildKit busy for ever.
    raise located(DockerfileError("ONBUILD triggers bring in images whose triggers never end"), target.ranges)


async def _resolve_bases(conversion: Conversion, needed: set[BuildStage]) -> None:
    waiting: list[tuple[BuildStage, bool]] = []
    for stage in conversion.stages.stages:
        if stage.base is not None or stage.dispatched or stage.resolved:
            continue
        stage.resolved = stage in needed or conversion.all_stages
        if stage.base_name == SCRATCH and stage.context is None:
            stage.state = llb.scratch()
            stage.image = ImageConfig.empty(conversion.platforms.target)
            stage.platform = conversion.platforms.target
            stage.dispatched |= not stage.registered
        else:
            waiting.append((stage, stage.resolved))
    answers: dict[BuildStage, _Answer] = {}
    try:
        async with asyncio.TaskGroup() as group:
            # Of several wrong bases BuildKit mostly tells the last: Go runs the newest goroutine first.
            for stage, wanted in waiting[-1:] + waiting[:-1]:
                group.create_task(_look_up(conversion, stage, wanted, answers))
    except BaseExceptionGroup as errors:
        # What was found all the same is still checked: its warnings are told beside the error.
        with contextlib.suppress(DockerfileError):
            _settle_all(conversion, waiting, answers)
        raise _first(errors) from None
    _settle_all(conversion, waiting, answers)


def _settle_all(
    conversion: Conversion, waiting: list[tuple[BuildStage, bool]], answers: dict[BuildStage, _Answer]
) -> None:
    """Steps are counted and named in the file's order, whichever answer came first."""
    for stage, wanted in waiting:
        if stage in answers:
            _settle(conversion, stage, wanted, answers[stage])


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


class _Answer:
    """What was found for a stage's base: a context's state, or an image."""

    def __init__(self) -> None:
        self.written = ""
        self.platform: Platform | None = None
        self.context: tuple[llb.State, ImageConfig | None] | None = None
        self.image: ImageConfigAnswer | None = None


async def _look_up(
    conversion: Conversion, stage: BuildStage, wanted: bool, answers: dict[BuildStage, _Answer]
) -> None:
    try:
        answers[stage] = await _ask(conversion, stage, wanted)
    except BknbError as error:
        raise located(error, stage.ranges) from error
    finally:
        stage.dispatched |= not stage.registered


async def _ask(conversion: Conversion, stage: BuildStage, wanted: bool) -> _Answer:
    answer = _Answer()
    answer.written = stage.base_name
    stage.base_name = str(parse_reference(stage.base_name))
    answer.platform = stage.platform or conversion.platforms.target
    if not wanted:
        return answer
    context: NamedContext | None = stage.context
    if context is None:
        context = conversion.named_context(stage.base_name, answer.platform)
    if context is not None:
        answer.context = await context.load(lambda: stage.paths)
        return answer
    shown = f"{answer.platform.format_all()} " if conversion.options.multi_platform else ""
    try:
        answer.image = await conversion.contexts.resolve_image(
            stage.base_name,
            answer.platform,
            conversion.options.resolve_mode,
            f"[{shown}internal] load metadata for {stage.base_name}",
        )
    except BknbError as error:
        options = conversion.stages.names() + _COMMON_IMAGES
        problem = wrapped(answer.written, error)
        if suggestion := search_in_order(answer.written, options):
            problem.message += f" (did you mean {suggestion}?)"
            problem.suggestion = suggestion
        raise problem from error
    return answer


def _settle(conversion: Conversion, stage: BuildStage, wanted: bool, answer: _Answer) -> None:
    assert answer.platform is not None
    if answer.context is not None:
        _settle_context(stage, answer.platform, *answer.context)
        return
    platform, empty = answer.platform, False
    if answer.image is not None:
        try:
            platform, empty = _settle_image(conversion, stage, answer.image, platform)
        except DockerfileError as error:
            raise located(error, stage.ranges) from None
    if empty:
        stage.state = llb.scratch()
    else:
        stage.state = _image_state(conversion, stage, platform)
        text = "" if stage.head is None else stage.head.text
        conversion.note(stage, text, stage.ranges, stage.state)
        found = stage.image.platform
        if wanted and (platform.os, platform.architecture) != (found.os, found.architecture):
            names = [each.normalize().format_all() for each in (platform, found)]
            conversion.lint.run("InvalidBaseImagePlatform", stage.ranges, answer.written, *names)
    stage.platform = platform


def _settle_context(
    stage: BuildStage, platform: Platform, state: llb.State, image: ImageConfig | None
) -> None:
    if stage.context is not None:
        stage.dispatched = True
        stage.state = state
        if image is not None:
            image.created = ""
            stage.image = image
            if image.architecture and image.os:
                stage.platform = image.platform
        return
    image = image or ImageConfig.empty(platform)
    stage.base_image = image.clone()
    image.created = ""
    stage.image, stage.platform = image, platform
    stage.state = state.with_platform(platform)


def _settle_image(
    conversion: Conversion, stage: BuildStage, answer: ImageConfigAnswer, platform: Platform
) -> tuple[Platform, bool]:
    """Take over an image's config; gives the platform, and whether the image has no files."""
    image = ImageConfig.parse(answer.config)
    stage.base_image = image.clone()
    image.created = ""
    if stage.platform is None and conversion.platforms.implicit:
        platform = _detect(image, platform, conversion.platforms.build)
    reference = parse_reference(answer.reference)
    if answer.digest:
        reference = reference.with_digest(Digest(answer.digest))
    stage.base_name = str(reference)
    stage.image = image
    # Old manifests cannot tell their layers; their history can.
    empty = not image.diff_ids and all(line.empty_layer for line in image.history)
    return platform, empty


def _detect(image: ImageConfig, target: Platform, supported: tuple[Platform, ...]) -> Platform:
    """The platform that an image is for, if it runs here."""
    for platform in (target, *supported):
        if (platform.os, platform.architecture) == (image.os, image.architecture):
            return platform
    return target


def _image_state(conversion: Conversion, stage: BuildStage, platform: Platform) -> llb.State:
    multi = conversion.options.multi_platform
    constraints = Constraints(
        platform=platform,
        description={"com.docker.dockerfile.v1.command": "" if stage.head is None else stage.head.text},
        name=step_name(stage, f"FROM {stage.base_name}", platform=platform if multi else None),
        locations=(Location(conversion.source, stage.ranges),),
    )
    return llb.image(stage.base_name, mode=conversion.options.resolve_mode, constraints=constraints)
