"""From bytes to nodes: lines, continuations, comments, here-documents (frontend/dockerfile/parser/parser.go).

BuildKit stops at the first thing that it cannot cut. This lexer notes it and goes on with the next line, so
that a half-typed file still has a tree; the first problem is the one that BuildKit reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile import arguments
from bknb.frontend.dockerfile.directives import BOM, MAX_LINE, DirectiveReader
from bknb.frontend.dockerfile.gotext import SPACE, decode, encode, lower, trim_space
from bknb.frontend.dockerfile.heredoc import heredocs_of_line
from bknb.frontend.dockerfile.nodes import EmptyContinuation, Heredoc, Node, Problem, line_ranges

#: How deep ONBUILD may stand in ONBUILD before its text is no longer cut; more than one is an error anyway.
MAX_ONBUILD: Final = 8

_WITH_HEREDOCS: Final = frozenset({"add", "copy", "run"})
_TOO_LONG = f"dockerfile line greater than max allowed size of {MAX_LINE - 1}"

_Arguments = tuple[tuple[str | Node, ...], bool]


@dataclass(frozen=True, slots=True)
class Lexed:
    """What a file falls into; see `ast.Dockerfile`."""

    escape: str
    nodes: tuple[Node, ...]
    problems: tuple[Problem, ...]
    empty_continuations: tuple[EmptyContinuation, ...]


def lex(source: bytes) -> Lexed:
    """Cuts a file into nodes. Never raises."""
    return _Lexer(source).run()


class _Lexer:
    __slots__ = (
        "comments", "directives", "empty_continuations", "escape", "lines", "nodes", "number", "problems",
    )  # fmt: skip

    def __init__(self, source: bytes) -> None:
        self.lines = decode(source.removeprefix(BOM)).split("\n")  # each but the last ends with a line feed
        if not self.lines[-1]:
            self.lines.pop()
        self.number = 0  # lines read so far
        self.escape = "\\"
        self.directives = DirectiveReader()
        self.comments: list[str] = []
        self.nodes: list[Node] = []
        self.problems: list[Problem] = []
        self.empty_continuations: list[EmptyContinuation] = []
        self._cut_at_long_line(len(BOM) if source.startswith(BOM) else 0)

    def _cut_at_long_line(self, mark: int) -> None:
        """The scanner that BuildKit reads with ends at a line that is too long: so does the file."""
        for index, line in enumerate(self.lines):
            if len(line) >= MAX_LINE // 4 - mark and len(encode(line)) + (0 if index else mark) >= MAX_LINE:
                self.problems.append(Problem(_TOO_LONG, line_ranges(index, 0)))
                del self.lines[index:]
                return

    def run(self) -> Lexed:
        late = self.problems
        self.problems = []
        while self.number < len(self.lines):
            self._step()
        if not self.nodes and not self.problems:
            self.problems.append(Problem("file with no instructions", line_ranges(self.number, 0)))
        return Lexed(
            self.escape, tuple(self.nodes), tuple(self.problems + late), tuple(self.empty_continuations)
        )

    def _step(self) -> None:
        """Reads one instruction, comment, directive or blank line."""
        line = self.lines[self.number]
        self._note_comment(line)
        token = line.rstrip("\r").lstrip(SPACE)
        self._read_directive(token)
        self.number += 1
        text, more = self._continuation("" if token.startswith("#") else token)
        if not text and not more:
            return
        start = self.number
        if more:
            text = self._join(text)
        try:
            node = node_of_line(text, self.escape)
            heredocs = self._heredocs(text) if "<<" in text and _takes_heredocs(node) else ()
        except DockerfileError as error:
            self.problems.append(Problem(error.message, line_ranges(start, self.number)))
        else:
            comments = tuple(self.comments)
            self.nodes.append(
                Node(
                    node.keyword,
                    node.args,
                    node.flags,
                    node.json,
                    text,
                    start,
                    self.number,
                    comments,
                    heredocs,
                )
            )
        self.comments = []

    def _note_comment(self, line: str) -> None:
        if not line.lstrip(SPACE).startswith("#"):
            return
        # BuildKit drops the first byte, whatever it is: an indented comment keeps its sign.
        comment = trim_space(line[1:] if line[0].isascii() else decode(encode(line)[1:]))
        if comment:
            self.comments.append(comment)
        else:
            self.comments = []

    def _read_directive(self, token: str) -> None:
        if self.directives.done:
            return
        try:
            directive = self.directives.read(token)
            if directive is None:
                return
            self.comments.pop()
            if directive.name == "escape":
                if directive.full not in ("`", "\\"):
                    raise DockerfileError(f"invalid escape token '{directive.full}' does not match ` or \\")
                self.escape = directive.full
        except DockerfileError as error:
            self.problems.append(Problem(error.message, line_ranges(self.number, 0)))

    def _continuation(self, line: str) -> tuple[str, bool]:
        """A line without its continuation sign, and whether it had one."""
        end = line.rstrip(" \t")
        escape = self.escape
        if not end.endswith(escape) or end[-2:-1] == escape:
            return line, False
        return end[:-1], True

    def _join(self, text: str) -> str:
        """The rest of an instruction that continues on the next lines."""
        parts = [text]
        more = True
        blank = False
        while more and self.number < len(self.lines):
            line = self.lines[self.number].rstrip("\r")
            self.number += 1
            content = line.lstrip(SPACE)
            if not content:
                blank = True
            elif content[0] != "#":
                part, more = self._continuation(line)
                parts.append(part)
        text = "".join(parts)
        if not text.isascii():
            text = decode(encode(text))  # two halves of a character may have met
        if blank:
            self.empty_continuations.append(EmptyContinuation(self.number, text))
        return text

    def _heredocs(self, line: str) -> tuple[Heredoc, ...]:
        return tuple(
            Heredoc(found.name, self._body(found), found.expand, found.chomp, found.fd)
            for found in heredocs_of_line(line)
        )

    def _body(self, heredoc: Heredoc) -> str:
        """The lines up to the terminator."""
        start = self.number
        while self.number < len(self.lines):
            line = self.lines[self.number].rstrip("\r")
            self.number += 1
            if (line.lstrip("\t") if heredoc.chomp else line) == heredoc.name:
                return "".join(f"{line}\n" for line in self.lines[start : self.number - 1])
        raise DockerfileError("unterminated heredoc")


def _takes_heredocs(node: Node) -> bool:
    if lower(node.keyword) == "onbuild" and node.args and isinstance(node.args[0], Node):
        node = node.args[0]
    return lower(node.keyword) in _WITH_HEREDOCS and not node.json


def node_of_line(line: str, escape: str, depth: int = 0) -> Node:
    """Cuts one instruction, its lines already joined.

    Raises:
        DockerfileError: its arguments do not have the form that the instruction wants.
    """
    keyword, flags, rest = arguments.split_command(line, escape)
    name = lower(keyword)
    if name == "onbuild":
        inner = (node_of_line(rest, escape, depth + 1) if depth < MAX_ONBUILD else rest,) if rest else ()
        return Node(keyword, inner, flags, False, line)
    cut = _FORMS.get(name)
    args, json = cut(rest, escape) if cut else (("",), False)
    return Node(keyword, args, flags, json, line)


def _text(rest: str, escape: str) -> _Arguments:
    return (rest,) if rest else (), False


def _words(rest: str, escape: str) -> _Arguments:
    return tuple(arguments.split_words(rest, escape)), False


def _blank_separated(rest: str, escape: str) -> _Arguments:
    return arguments.blank_separated(rest), False


def _json_or_text(rest: str, escape: str) -> _Arguments:
    items = arguments.json_strings(rest)
    return _text(rest, escape) if items is None else (items, True)


def _json_or_blank_separated(rest: str, escape: str) -> _Arguments:
    items = arguments.json_strings(rest)
    return _blank_separated(rest, escape) if items is None else (items, True)


def _env(rest: str, escape: str) -> _Arguments:
    return arguments.name_values(rest, escape, "ENV"), False


def _label(rest: str, escape: str) -> _Arguments:
    return arguments.name_values(rest, escape, "LABEL"), False


def _health(rest: str, escape: str) -> _Arguments:
    kind, command = arguments.health_type(rest)
    if not kind:
        return (), False
    args, json = _json_or_text(command, escape)
    return (kind, *args), json


_FORMS: Final[dict[str, Callable[[str, str], _Arguments]]] = {
    "add": _json_or_blank_separated,
    "arg": _words,
    "cmd": _json_or_text,
    "copy": _json_or_blank_separated,
    "entrypoint": _json_or_text,
    "env": _env,
    "expose": _blank_separated,
    "from": _blank_separated,
    "healthcheck": _health,
    "label": _label,
    "maintainer": _text,
    "run": _json_or_text,
    "shell": _json_or_text,
    "stopsignal": _text,
    "user": _text,
    "volume": _json_or_blank_separated,
    "workdir": _text,
}
