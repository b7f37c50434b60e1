"""``--no-cache-filter`` checked against the Dockerfile: BuildKit passes over names that mean nothing.

A filter is the name of a stage, or ``STAGE:LINE`` for the one step whose instruction has that line. A stage without a
name is called by its number there, as in the step names: ``stage-1:12``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bknb.errors import UsageError, did_you_mean
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.parser import parse

_RUNS = (ast.Run, ast.Copy, ast.Add)


def check_filters(words: Sequence[str], text: str | bytes) -> None:
    """Look every filter up; a Dockerfile that cannot be read is left to whoever compiles it.

    Raises:
        UsageError: a stage or a line that is not there, or an instruction that is never run.
    """
    if not words:
        return
    tree = parse(text)
    if tree.errors or not tree.stages:
        return
    for word in words:
        _check(word, tree.stages)


def check_target(target: str, text: str | bytes) -> None:
    """Look a ``--target`` up before anything is asked of registries; a number is left to whoever compiles.

    Raises:
        UsageError: there is no such stage.
    """
    tree = parse(text)
    names = list(dict.fromkeys(stage.head.name for stage in tree.stages if stage.head.name))
    if tree.errors or not tree.stages or target.isdecimal() or target.lower() in map(str.lower, names):
        return
    known = f"the stages are {', '.join(names)}" if names else "no stage has a name (FROM ... AS NAME)"
    raise UsageError(f"--target {target}: there is no such stage{did_you_mean(target.lower(), names)}; {known}")


def _check(word: str, stages: Sequence[ast.Stage]) -> None:
    name, colon, line = word.rpartition(":") if ":" in word else (word, "", "")
    names = [stage.head.name or f"stage-{number}" for number, stage in enumerate(stages)]
    places = [number for number, known in enumerate(names) if known == name.lower()]
    if not places:
        raise UsageError(
            f"--no-cache-filter {word}: there is no stage {name!r}{did_you_mean(name.lower(), names)}; "
            f"the stages are {', '.join(names)}"
        )
    if not colon:
        if not stages[places[-1]].head.name:
            raise UsageError(
                f"--no-cache-filter {word}: the stage has no name, which a filter needs: write AS NAME behind its FROM, "
                f"or name one step as {name}:LINE"
            )
        return
    if not line.isdecimal():
        raise UsageError(f"--no-cache-filter {word}: {line!r} is no line; write {name}:LINE")
    _check_line(word, int(line), names[places[-1]], stages, names)


def _check_line(word: str, line: int, name: str, stages: Sequence[ast.Stage], names: Sequence[str]) -> None:
    for other, instruction in _instructions(stages, names):
        if not instruction.start_line <= line <= instruction.end_line:
            continue
        if other != name:
            raise UsageError(
                f"--no-cache-filter {word}: line {line} belongs to stage {other}; write {other}:{line}"
            )
        if isinstance(instruction, _RUNS):
            return
        raise UsageError(
            f"--no-cache-filter {word}: line {line} is {instruction.keyword.upper()}, which does no work of its own: "
            f"{_choices(name, stages, names)}"
        )
    raise UsageError(
        f"--no-cache-filter {word}: no instruction has line {line}: {_choices(name, stages, names)}"
    )


def _instructions(stages: Sequence[ast.Stage], names: Sequence[str]) -> Iterator[tuple[str, ast.Instruction]]:
    for name, stage in zip(names, stages, strict=True):
        yield name, stage.head
        yield from ((name, command) for command in stage.commands)


def _choices(name: str, stages: Sequence[ast.Stage], names: Sequence[str]) -> str:
    lines = [
        f"{name}:{one.start_line} ({one.keyword.upper()})"
        for other, one in _instructions(stages, names)
        if other == name and isinstance(one, _RUNS)
    ]
    return f"name one of {', '.join(lines[:6])}" if lines else f"stage {name} has no RUN, COPY or ADD"
