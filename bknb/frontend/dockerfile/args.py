"""Arguments: the predefined ones, those before the first FROM, and what may be written into words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bknb.errors import DockerfileError, Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.places import located
from bknb.frontend.dockerfile.words import Lex
from bknb.platforms import Platform

#: Arguments that steps do not see.
NOT_ENV: Final = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})

Expand = Callable[[str], str]

# Of all defaults together, expanded; BuildKit has no limit.
_MAX_CHARACTERS: Final = 32 << 20

# What gives a word another text: variables, quotes, escapes (of both kinds), bytes that are not UTF-8.
_SPECIAL: Final = re.compile("[^\\x00-\\x7f]|[$\"'\\\\`]")


@dataclass(frozen=True, slots=True)
class ArgInfo:
    """An argument as the outline shows it. `deps` are the arguments that its default names."""

    definition: ast.ArgDefinition
    value: str
    ranges: tuple[Range, ...]
    deps: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Platforms:
    """What is built, and on what.

    Attributes:
        target: what is built.
        build: the worker's platforms.
        implicit: nobody asked for the target; it is the worker's own.
    """

    target: Platform
    build: tuple[Platform, ...]
    implicit: bool


def default_args(platforms: Platforms, overrides: Mapping[str, str], target_stage: str) -> dict[str, str]:
    """The predefined arguments (dockerfile2llb/platform.go)."""
    build, target = platforms.build[0], platforms.target
    found = {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": target.format_all(),
        "TARGETOS": target.os,
        "TARGETOSVERSION": target.os_version,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": target_stage or "default",
    }
    return {key: overrides.get(key, value) for key, value in found.items()}


def meta_args(
    defaults: Mapping[str, str], lex: Lex, instructions: Sequence[ast.Arg], build_args: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, ArgInfo]]:
    """The arguments before the first FROM, on top of the predefined ones.

    Raises:
        DockerfileError: a default cannot be expanded.
    """
    args = dict(defaults)
    infos: dict[str, ArgInfo] = {}
    spent = 0
    for instruction in instructions:
        for definition in instruction.args:
            value, deps = definition.value, frozenset[str]()
            if definition.key in build_args:
                value = build_args[definition.key]
            elif value is not None:
                try:
                    result = lex.process_word(value, args)
                except DockerfileError as error:
                    raise located(error, instruction.ranges) from None
                value, deps = result.text, frozenset(result.matched)
                spent += len(value)
                if spent > _MAX_CHARACTERS:
                    message = f"expanded variables take more than {_MAX_CHARACTERS >> 20} MiB"
                    raise DockerfileError(message, instruction.ranges)
                if definition.key in deps:
                    older = infos.get(definition.key)
                    deps = (deps - {definition.key}) | (older.deps if older else frozenset())
            if value is not None:
                set_last(args, definition.key, value)
            infos[definition.key] = ArgInfo(definition, value or "", instruction.ranges, deps)
    return args, infos


def set_last(env: dict[str, str], key: str, value: str) -> None:
    """Set a variable; one that was set before moves to the end."""
    env.pop(key, None)
    env[key] = value


def is_plain(text: str) -> bool:
    """Whether expansion leaves a text as it is, whatever the variables; saves the work where most is."""
    return _SPECIAL.search(text) is None


def expand(command: ast.Command, word: Expand, raw: Expand) -> ast.Command:
    """The expanded copy of an instruction; RUN's mounts, ARG and EXPOSE are expanded by their own passes.

    Args:
        command: as parsed.
        word: expands a word.
        raw: expands the body of a here-document.

    Raises:
        DockerfileError: a word cannot be expanded.
    """
    if is_plain(command.text) and not getattr(command, "files", ()):
        return command
    match command:
        case ast.Env() | ast.Label():
            pairs = tuple(replace(pair, key=word(pair.key), value=word(pair.value)) for pair in command.pairs)
            return replace(command, pairs=pairs)
        case ast.Copy() | ast.Add():
            return _expand_transfer(command, word, raw)
        case ast.Workdir():
            return replace(command, path=word(command.path))
        case ast.User():
            return replace(command, user=word(command.user))
        case ast.Volume():
            return replace(command, volumes=tuple(map(word, command.volumes)))
        case ast.Stopsignal():
            return replace(command, signal=word(command.signal))
        case _:
            return command


def _expand_transfer(command: ast.Copy | ast.Add, word: Expand, raw: Expand) -> ast.Copy | ast.Add:
    chown, chmod = word(command.chown), word(command.chmod)
    if isinstance(command, ast.Add):
        command = replace(command, checksum=word(command.checksum))
    sources, dest = tuple(map(word, command.sources)), word(command.dest)
    files = tuple(replace(file, content=raw(file.content)) if file.expand else file for file in command.files)
    return replace(command, chown=chown, chmod=chmod, sources=sources, dest=dest, files=files)
