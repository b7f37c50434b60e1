"""The Dockerfile frontend: a request in, a graph for each platform out (frontend/dockerfile/builder)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bknb import gojson
from bknb.digest import Digest
from bknb.errors import BknbError, DefinitionError, DockerfileError, Range
from bknb.frontend.dockerfile import ast, directives
from bknb.frontend.dockerfile.args import Platforms, default_args, meta_args
from bknb.frontend.dockerfile.connect import build_stages, connect_stages, find_target
from bknb.frontend.dockerfile.contexts import Contexts
from bknb.frontend.dockerfile.epoch import resolve_epoch
from bknb.frontend.dockerfile.gotext import trim_space
from bknb.frontend.dockerfile.image import ImageConfig
from bknb.frontend.dockerfile.lint import LintConfig, Linter, LintWarning, check_syntax
from bknb.frontend.dockerfile.lower import Lowering
from bknb.frontend.dockerfile.options import FrontendOptions, renamed
from bknb.frontend.dockerfile.parser import parse
from bknb.frontend.dockerfile.resolve import resolve_stages
from bknb.frontend.dockerfile.stages import BuildStage, Conversion
from bknb.frontend.dockerfile.syntax import runs_built_in
from bknb.frontend.dockerfile.words import Lex
from bknb.garbage import no_collection
from bknb.llb import Edge, SourceInfo
from bknb.llb.caps import ALL
from bknb.llb.graph import Defaults
from bknb.llb.marshal import walk
from bknb.patterns import PatternError, PatternMatcher
from bknb.platforms import Platform
from bknb.protocols import (
    Bridge,
    Forward,
    FrontendRequest,
    FrontendResult,
    PlatformResult,
    SkippedStage,
    VertexInfo,
)
from bknb.reference import Reference

_CAPABILITIES: Final = frozenset(
    f"moby.buildkit.frontend.{name}" for name in ("inputs", "subrequests", "contexts", "gitquerystring")
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A Dockerfile for one platform: the target's stage, and what it was made with."""

    conversion: Conversion
    target: BuildStage
    needed: frozenset[BuildStage]

    @no_collection()
    def graph(self) -> tuple[Edge | None, Mapping[Digest, VertexInfo]]:
        """The target's graph, None if it is scratch, and what each vertex was made for.

        Raises:
            DockerfileError: an op cannot be: only now is that seen.
        """
        conversion = self.conversion
        try:
            built = self.target.state.build_graph(Defaults(conversion.platforms.target, caps=ALL))
        except DefinitionError as error:
            raise DockerfileError(error.message) from None
        if built is None:
            return None, {}
        edge, edges = built
        infos = {vertex.digest: VertexInfo("", "") for vertex in walk(edge.vertex)}
        for pending, origin in conversion.origins:
            if pending in edges:
                # A step that several stages share belongs to the first of them, from where the others take it.
                digest = edges.vertex(pending).digest
                if infos[digest].stage == "":
                    infos[digest] = VertexInfo(origin.stage, origin.command, origin.ranges)
        return edge, infos


_Marshalled = tuple[Compiled, Edge | None, Mapping[Digest, VertexInfo]]


class DockerfileFrontend:
    """Compiles Dockerfiles.

    Args:
        built_in: whether a ``# syntax=`` image is one that this frontend takes the place of.
        host: the platform that a result is named by when none was asked for; this machine's.
    """

    name = "dockerfile.v0"

    def __init__(self, built_in: Callable[[str], bool] = runs_built_in, host: Platform | None = None) -> None:
        self._built_in = built_in
        self._host = host or Platform.host()

    async def solve(self, request: FrontendRequest, bridge: Bridge) -> FrontendResult:
        """Compile a request.

        Raises:
            DockerfileError: the Dockerfile or an option is wrong; carries the warnings met before.
        """
        options = FrontendOptions.parse(request.opts, bridge.platforms[0])
        may_forward, refused = _check_capabilities(request.opts.get("frontend.caps", ""))
        if refused is not None and not may_forward:
            raise refused
        contexts = Contexts(request, options, bridge)
        source = (await contexts.read_entrypoint()).source
        forward = self._forward(request.opts, source.data)
        if forward is not None:
            return FrontendResult(forward=forward, filename=source.filename, source=source.data)
        if refused is not None:
            raise refused
        if "requestid" in request.opts:
            from bknb.frontend.dockerfile.subrequests import answer

            warnings: list[LintWarning] = []
            try:
                return await answer(request.opts["requestid"], options, contexts, source, warnings)
            except DockerfileError as error:
                # BuildKit gives no place for an error in the answer to a question.
                error.locations = ()
                raise _with_warnings(error, warnings, source) from None
        return await self._build(options, contexts, source)

    def _forward(self, opts: Mapping[str, str], data: bytes) -> Forward | None:
        if "cmdline" in opts:
            return None
        given = opts.get("build-arg:BUILDKIT_SYNTAX")
        if given is not None:
            image, command = trim_space(given).partition(" ")[0], given
        else:
            directive = directives.find("syntax", data, any_form=True)
            if directive is None:
                return None
            image, command = directive.value, directive.full
        if self._built_in(image):
            return None
        return Forward(image, {**renamed(opts), "cmdline": command, "source": image})

    async def _build(
        self, options: FrontendOptions, contexts: Contexts, source: SourceInfo
    ) -> FrontendResult:
        warnings: list[LintWarning] = []
        targets: Sequence[Platform | None] = options.platforms or (None,)
        compiled: dict[int, _Marshalled] = {}

        async def one(index: int, platform: Platform | None) -> None:
            # Warnings are the same for every platform: they are told once.
            collected = warnings if index == 0 else []
            found = await compile_dockerfile(
                options, contexts, source, platform, collected, strict=index == 0
            )
            compiled[index] = (found, *_marshal(found))

        try:
            async with asyncio.TaskGroup() as group:
                for index, platform in enumerate(targets):
                    group.create_task(one(index, platform))
        except BaseExceptionGroup as errors:
            raise _with_warnings(errors.exceptions[0], warnings, source) from None
        ordered = [compiled[index] for index in range(len(targets))]
        return _result(options, source, [each or self._host for each in targets], ordered, warnings)


def _check_capabilities(text: str) -> tuple[bool, DockerfileError | None]:
    """Whether the request may be handed on, and what speaks against it."""
    may_forward, refused = False, None
    for word in text.split(",") if text else ():
        name = word.partition("+")[0]
        if name not in _CAPABILITIES:
            refused = DockerfileError(f"unsupported frontend capability {name}")
            if "+forward" not in word:
                return False, refused
            may_forward = True
    return may_forward, refused


def _with_warnings(error: BaseException, warnings: list[LintWarning], source: SourceInfo) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, DockerfileError):
        error.warnings = tuple(warnings)
        error.filename = error.filename or source.filename
    return error


async def compile_dockerfile(
    options: FrontendOptions,
    contexts: Contexts,
    source: SourceInfo,
    platform: Platform | None,
    warnings: list[LintWarning],
    *,
    strict: bool = True,
    all_stages: bool = False,
) -> Compiled:
    """All passes, for one platform.

    Args:
        options: of the request.
        contexts: of the request.
        source: the Dockerfile.
        platform: None for the worker's own.
        warnings: findings are appended.
        strict: ``check=error=true`` is heeded.
        all_stages: lower stages that the target does not need, too.

    Raises:
        DockerfileError: it is wrong.
    """
    conversion = prepare(options, contexts, source, platform, warnings, all_stages=all_stages)
    await resolve_epoch(conversion)
    build_stages(conversion)
    target = find_target(conversion)
    connect_stages(conversion)
    needed = await resolve_stages(conversion, target)
    matcher = await _ignore_matcher(conversion) if _copies(conversion, needed) else None
    lowering = Lowering(conversion, matcher)
    lowering.lower(conversion.stages.stages, needed, target)
    _finish_image(conversion, target.image)
    error = conversion.lint.error() if strict else None
    if error is not None:
        raise error
    if lowering.uses_context:
        if matcher is None:  # patterns that are wrong are wrong for mounts, too
            await _ignore_matcher(conversion)
        context = (await contexts.main_context(lowering.context_paths)).output
        assert context is not None
        lowering.context_output.pending, lowering.context_output.index = context.pending, context.index
    return Compiled(conversion, target, frozenset(needed))


@no_collection()
def prepare(
    options: FrontendOptions,
    contexts: Contexts,
    source: SourceInfo,
    platform: Platform | None,
    warnings: list[LintWarning],
    *,
    all_stages: bool = False,
) -> Conversion:
    """Parse, check, and work out the arguments.

    Raises:
        DockerfileError: the file or its arguments are wrong.
    """
    if not source.data:
        raise DockerfileError("the Dockerfile cannot be empty")
    dockerfile = parse(source.data)
    lint = Linter(LintConfig.of(dockerfile, options.check), warnings)
    check_syntax(dockerfile, lint)
    dockerfile.check()
    if not dockerfile.stages:
        raise DockerfileError("dockerfile contains no stages to build")
    build = (options.build_platform,)
    platforms = Platforms(platform or build[0], build, implicit=platform is None)
    lex = Lex(dockerfile.escape)
    defaults = default_args(platforms, options.build_args, options.target or dockerfile.stages[-1].head.name)
    _check_default_bases(dockerfile, lex, defaults, lint)
    args, infos = meta_args(defaults, lex, dockerfile.meta_args, options.build_args)
    return Conversion(
        options, contexts, dockerfile, source, platforms, lint, lex, args, infos, options.build_args,
        all_stages=all_stages,
    )  # fmt: skip


def _check_default_bases(
    dockerfile: ast.Dockerfile, lex: Lex, defaults: Mapping[str, str], lint: Linter
) -> None:
    """The build check for bases that are no image names unless arguments are given."""
    try:
        args, _ = meta_args(defaults, lex, dockerfile.meta_args, {})
        for stage in dockerfile.stages:
            base = lex.process_word(stage.head.base, args).text
            try:
                Reference.parse(base)
            except BknbError:
                lint.run("InvalidDefaultArgInFrom", stage.head.ranges, stage.head.base)
    except DockerfileError:
        # The build will fail with it, in its own words.
        return


def _copies(conversion: Conversion, needed: set[BuildStage]) -> bool:
    """Whether something may be copied from the main context."""
    return any(
        isinstance(step.command, ast.Copy | ast.Add) and not step.sources
        for stage in (conversion.stages.stages if conversion.all_stages else needed)
        for step in stage.steps
    )


async def _ignore_matcher(conversion: Conversion) -> PatternMatcher | None:
    """The main context's ignore patterns; looked up only if the context is used."""
    patterns = await conversion.contexts.ignore_patterns()
    try:
        return PatternMatcher.parse(patterns) if patterns else None
    except PatternError as error:
        raise DockerfileError(str(error)) from None


def _finish_image(conversion: Conversion, image: ImageConfig) -> None:
    """Labels of the request, and the platform that was asked for."""
    image.labels.update(conversion.options.labels)
    if not conversion.platforms.implicit:
        target = conversion.platforms.target
        same = (target.os, target.architecture) == (image.os, image.architecture)
        image.os, image.architecture = target.os, target.architecture
        if target.variant or not same:
            image.variant = target.variant
        if target.os_version or not same:
            image.os_version = target.os_version
        if target.os_features:
            image.os_features = target.os_features
    image.platform = image.platform.normalize()


def _marshal(compiled: Compiled) -> tuple[Edge | None, Mapping[Digest, VertexInfo]]:
    try:
        found = compiled.graph()
    except DockerfileError as error:
        raise DockerfileError(f"failed to marshal LLB definition: {error.message}") from None
    epoch = compiled.conversion.epoch
    if epoch is not None and compiled.target.image.history:
        try:
            epoch.text()
        except ValueError as error:
            raise DockerfileError(str(error)) from None
    return found


def _result(
    options: FrontendOptions,
    source: SourceInfo,
    targets: Sequence[Platform],
    compiled: Sequence[_Marshalled],
    warnings: list[LintWarning],
) -> FrontendResult:
    results, platforms = [], []
    vertices: dict[Digest, VertexInfo] = {}
    for target, (one, edge, found) in zip(targets, compiled, strict=True):
        stage, epoch = one.target, one.conversion.epoch
        platform = _export_platform(target, stage.image.platform)
        name = target.normalize().format_all()
        platforms.append({"ID": name, "Platform": platform_json(platform)})
        vertices |= found
        results.append(PlatformResult(
            platform=platform,
            edge=edge,
            image_config=stage.image.to_json(),
            base_image_config="" if stage.base_image is None else stage.base_image.to_json(),
            epoch=None if epoch is None else epoch.seconds,
            id=name if options.multi_platform else "",
        ))  # fmt: skip
    return FrontendResult(
        results=tuple(results),
        warnings=tuple(warnings),
        vertices=vertices,
        skipped=_skipped([one for one, _, _ in compiled]),
        metadata={"refs.platforms": gojson.dumps({"Platforms": platforms}).encode()},
        filename=source.filename,
        source=source.data,
    )


def _skipped(compiled: Sequence[Compiled]) -> tuple[SkippedStage, ...]:
    """The file's stages that no platform needs."""
    needed = {stage.number for one in compiled for stage in one.needed}
    found = []
    for stage in compiled[0].conversion.stages.stages:
        if stage.head is not None and stage.number not in needed:
            instructions = [stage.head, *stage.commands]
            lines = tuple((each.text, Range(each.start_line, 0, each.end_line, 0)) for each in instructions)
            found.append(SkippedStage(stage.label, lines))
    return tuple(found)


def _export_platform(platform: Platform, image: Platform) -> Platform:
    platform = platform.normalize()
    if platform.os == "windows" and image.os == "windows":
        platform = replace(
            platform,
            os_version=platform.os_version or image.os_version,
            os_features=platform.os_features or image.os_features,
        )
    return platform


def platform_json(platform: Platform) -> dict[str, Any]:
    """A platform as the OCI image specification writes it."""
    found = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
        "variant": platform.variant,
    }
    return {key: value for key, value in found.items() if value or key in ("architecture", "os")}
