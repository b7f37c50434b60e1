"""An ARG lower: its value is in the environment of every RUN below it, and so in the key of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bknb.analysis.replay.edits import Move, block_of, tree_of
from bknb.frontend.dockerfile import ast


def arg_moves(stage_name: str, stage: ast.Stage, lines: Sequence[str]) -> list[Move]:
    """The changes that bring an ARG of a stage down to the first instruction that speaks of it."""
    found = []
    for number, command in enumerate(stage.commands):
        if not isinstance(command, ast.Arg):
            continue
        names = [arg.key for arg in command.args]
        target = number + 1
        while target < len(stage.commands) and not _mentions(stage.commands[target], names):
            target += 1
        between = stage.commands[number + 1 : target]
        if not any(isinstance(other, ast.Run) for other in between):
            continue
        block = block_of(command, lines)
        at = (
            block_of(stage.commands[target], lines).start
            if target < len(stage.commands)
            else between[-1].end_line
        )
        moved = [*lines[: block.start], *lines[block.stop : at], *(lines[at] for at in block), *lines[at:]]
        below = (
            f"above its first use in line {stage.commands[target].start_line}"
            if target < len(stage.commands)
            else "to the end of its stage"
        )
        found.append(
            Move(
                ("arg", stage_name, *names), f"Move ARG {' '.join(names)} down {below}",
                f"no program that runs in between reads {' or '.join('$' + name for name in names)} "
                "from its environment (no instruction there speaks of it)",
                tuple(moved),
            )
        )  # fmt: skip
    return found


def _mentions(command: ast.Instruction, names: Sequence[str]) -> bool:
    if isinstance(command, ast.Onbuild):
        return True
    text = command.text
    if isinstance(command, ast.Run | ast.Copy | ast.Add):
        text += "".join(getattr(file, "content", "") for file in command.files)
    return any(re.search(rf"\b{re.escape(name)}\b", text) for name in names)


def varies(name: str, dockerfiles: Iterable[bytes], given: str | None) -> bool:
    """Whether the value of a build argument may differ from commit to commit.

    Args:
        name: of the argument.
        dockerfiles: of all commits.
        given: what the build is told, in which ``{...}`` may stand for something of the commit; None for nothing.
    """
    if given is not None:
        return "{" in given
    values = set()
    for dockerfile in dockerfiles:
        tree = tree_of(dockerfile)
        commands = [*tree.meta_args, *(command for stage in tree.stages for command in stage.commands)]
        found = [
            arg.value
            for command in commands
            if isinstance(command, ast.Arg)
            for arg in command.args
            if arg.key == name
        ]
        values.add(tuple(found))
    return len(values) > 1 or any("$" in (value or "") for found in values for value in found)
