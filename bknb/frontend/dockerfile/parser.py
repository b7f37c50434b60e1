"""From a Dockerfile's text to its tree; pure, linear, and without exceptions."""

from __future__ import annotations

import dataclasses
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.directives import find
from bknb.frontend.dockerfile.gotext import encode, lower, trim_space
from bknb.frontend.dockerfile.instructions import instruction_of_node
from bknb.frontend.dockerfile.lexer import lex

#: Behind so many wrong instructions no more are looked at.
MAX_ERRORS: Final = 100


def parse(text: bytes | str) -> ast.Dockerfile:
    r"""Reads a Dockerfile. Never raises: `Dockerfile.check()` does.

    >>> dockerfile = parse("FROM alpine AS base\nRUN --network=none make\n")
    >>> dockerfile.stages[0].commands[0].network
    'none'
    >>> parse("FROM a\nRNU x").errors[0].message
    'dockerfile parse error on line 2: unknown instruction: RNU (did you mean RUN?)'
    """
    source = encode(text) if isinstance(text, str) else bytes(text)
    lexed = lex(source)
    builder = _TreeBuilder()
    for node in lexed.nodes:
        builder.add(node)
        if len(builder.errors) >= MAX_ERRORS:
            break
    builder.close_stage()
    return ast.Dockerfile(
        source=source,
        escape=lexed.escape,
        nodes=lexed.nodes,
        meta_args=tuple(builder.meta_args),
        stages=tuple(builder.stages),
        syntax=find("syntax", source, any_form=True),
        check_directive=find("check", source),
        syntax_errors=lexed.problems,
        instruction_errors=tuple(builder.errors),
        understood=builder.understood,
        empty_continuations=lexed.empty_continuations,
    )


def parse_trigger(expression: str, start_line: int, end_line: int) -> ast.Command:
    """Reads an ONBUILD trigger of a base image or stage.

    Args:
        expression: the trigger as the image's configuration has it.
        start_line: first line of the FROM that brought it, which is where the instruction is placed
            (dockerfile2llb/convert.go initOnBuildTriggers).
        end_line: the last one.

    Raises:
        DockerfileError: it is not exactly one instruction, or one that cannot be a trigger.
    """
    lexed = lex(encode(expression))
    if lexed.problems:
        raise lexed.problems[0].error()
    if len(lexed.nodes) != 1:
        raise DockerfileError("onbuild trigger should be a single expression")
    node = dataclasses.replace(lexed.nodes[0], start_line=start_line, end_line=end_line)
    try:
        instruction = instruction_of_node(node)
    except DockerfileError as error:
        raise DockerfileError(error.message, node.ranges, suggestion=error.suggestion) from None
    if isinstance(instruction, ast.From):
        raise DockerfileError("*instructions.Stage is not a command type", node.ranges)
    return instruction


class _TreeBuilder:
    """Sorts instructions into stages. Behind an error it goes on as if its instruction were not there."""

    __slots__ = ("commands", "errors", "head", "meta_args", "stages", "understood")

    def __init__(self) -> None:
        self.meta_args: list[ast.Arg] = []
        self.stages: list[ast.Stage] = []
        self.errors: list[ast.Problem] = []
        self.understood = 0
        self.head: ast.From | None = None
        self.commands: list[ast.Command] = []

    def add(self, node: ast.Node) -> None:
        try:
            self._place(instruction_of_node(node))
        except DockerfileError as error:
            message = f"dockerfile parse error on line {node.start_line}: {error.message}"
            self.errors.append(ast.Problem(message, node.ranges, error.suggestion))
            if lower(node.keyword) == "from":
                self._place(_unknown_base(node))
        except _NoStageError:
            self.errors.append(ast.Problem("no build stage in current context", node.ranges))
        if not self.errors:
            self.understood += 1

    def _place(self, instruction: ast.From | ast.Command) -> None:
        if isinstance(instruction, ast.From):
            self.close_stage()
            self.head = instruction
        elif self.head is not None:
            self.commands.append(instruction)
        elif isinstance(instruction, ast.Arg):
            self.meta_args.append(instruction)
        else:
            raise _NoStageError

    def close_stage(self) -> None:
        if self.head is not None:
            self.stages.append(ast.Stage(self.head, tuple(self.commands)))
        self.head = None
        self.commands = []


class _NoStageError(Exception):
    """A command before the first FROM."""


def _unknown_base(node: ast.Node) -> ast.From:
    """Stands for a FROM that is wrong, so that the commands below it still have a stage."""
    return ast.From(
        keyword=node.keyword,
        text=trim_space(node.original),
        start_line=node.start_line,
        end_line=node.end_line,
        comments=node.comments,
        base=(*node.flat_args(), "")[0],
    )
