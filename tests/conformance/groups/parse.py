"""The group `parse`: Dockerfile text -> syntax tree and instruction list."""

from __future__ import annotations

import base64
from typing import Any

from bknb.errors import Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.gotext import replace_invalid
from bknb.frontend.dockerfile.parser import parse as parse_dockerfile
from bknb.frontend.dockerfile.rules import RULES

_GO_NAMES = {ast.Healthcheck: "HealthCheckCommand", ast.Stopsignal: "StopSignalCommand"}


def parse(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    encoded = request.get("dockerfile_b64")
    found = parse_dockerfile(base64.b64decode(encoded) if encoded else request["dockerfile"])
    if found.syntax_errors:
        return {"error": _problem(found.syntax_errors[0])}
    answer: dict[str, Any] = {
        "dump": found.dump(),
        "escape": found.escape,
        "nodes": [_node(node) for node in found.nodes],
        "warnings": [_warning(empty) for empty in found.empty_continuations],
    }
    if found.syntax:
        answer["syntax"] = {"ref": found.syntax.value, "cmdline": found.syntax.full}
    if found.check_directive:
        answer["check"] = {"value": found.check_directive.value, "full": found.check_directive.full}
    if found.instruction_errors:
        answer["instructions_error"] = _problem(found.instruction_errors[0])
    else:
        answer["meta_args"] = [{"name": arg.keyword, "string": arg.text} for arg in found.meta_args]
        answer["stages"] = [_stage(stage) for stage in found.stages]
    return _filled(answer)


def _filled(answer: dict[str, Any]) -> dict[str, Any]:
    """Go's JSON leaves out what is empty."""
    return {name: value for name, value in answer.items() if value not in ([], {}, "", 0, None, False)}


def _lines(ranges: tuple[Range, ...]) -> list[list[int]]:
    return [[one.start_line, one.end_line] for one in ranges]


def _problem(problem: ast.Problem) -> dict[str, Any]:
    return {"message": replace_invalid(problem.message), "locations": [_lines(problem.ranges)]}


def _warning(empty: ast.EmptyContinuation) -> dict[str, Any]:
    short = replace_invalid(f"Empty continuation line found in: {empty.text}")
    return {"line": empty.line, "short": short, "url": RULES["NoEmptyContinuation"].url}


def _node(node: ast.Node) -> dict[str, Any]:
    answer = _filled(
        {
            "start_line": node.start_line,
            "end_line": node.end_line,
            "flags": list(node.flags),
            "attributes": {"json": True} if node.json else None,
            "prev_comment": [replace_invalid(comment) for comment in node.comments],
            "heredocs": [_heredoc(heredoc) for heredoc in node.heredocs],
            "args": [
                {"children": [_node(arg)]} if isinstance(arg, ast.Node) else replace_invalid(arg)
                for arg in node.args
            ],
        }
    )
    return {"value": replace_invalid(node.keyword), "original": replace_invalid(node.original), **answer}


def _heredoc(heredoc: ast.Heredoc) -> dict[str, Any]:
    return {
        "name": heredoc.name,
        "content": replace_invalid(heredoc.content),
        "expand": heredoc.expand,
        "chomp": heredoc.chomp,
        "fd": heredoc.fd,
    }


def _stage(stage: ast.Stage) -> dict[str, Any]:
    head = stage.head
    names = _filled({"name": head.name, "doc": head.doc, "platform": head.platform})
    commands = [_command(command) for command in stage.commands]
    return {
        "base": replace_invalid(head.base),
        "orig_cmd": head.keyword,
        "source": replace_invalid(head.text),
        "commands": commands or None,
        **names,
    }


def _command(command: ast.Command) -> dict[str, Any]:
    kind = type(command)
    return {
        "type": _GO_NAMES.get(kind, f"{kind.__name__}Command"),
        "name": command.keyword,
        "string": replace_invalid(command.text),
        "location": _lines(command.ranges),
    }
