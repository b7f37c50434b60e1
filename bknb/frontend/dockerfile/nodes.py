"""Instructions cut into words, before they mean anything, and what could not be cut; see `ast` for the texts' encoding."""

from __future__ import annotations

from dataclasses import dataclass

from bknb.errors import DockerfileError, Range
from bknb.frontend.dockerfile.gotext import lower, quote, quote_list, trim_space


def line_ranges(start: int, end: int) -> tuple[Range, ...]:
    """One range for each line, the form in which BuildKit reports places (parser/errors.go toRanges)."""
    return tuple(Range(line, 0, line, 0) for line in range(start, max(start, end) + 1))


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One here-document.

    Attributes:
        name: the terminator, quotes removed.
        content: the body as it stands in the file, with its tabs even when `chomp` is set.
        expand: variables in the body are expanded (the terminator was not quoted).
        chomp: `<<-`, leading tabs do not count; see `heredoc.chomped`.
        fd: the number before `<<`, 0 if none.
    """

    name: str
    content: str
    expand: bool
    chomp: bool
    fd: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One instruction, cut into words but not understood.

    Attributes:
        keyword: the instruction word as written; may be unknown, may be empty.
        args: the words after it. What a word is depends on the instruction: the whole rest of the line
            (RUN in shell form), one item (JSON form), a key, a value and "=" or "" (ENV, LABEL).
            ONBUILD has one `Node` here.
        flags: the `--name=value` words before the arguments, escapes and quotes removed.
        json: the arguments were a JSON array of strings.
        original: the instruction in one line, continuations joined and comments removed, without heredocs.
        start_line, end_line: first and last line, heredocs included; 0 in a node below ONBUILD.
        comments: the comment lines right above it, a blank comment starts anew.
    """

    keyword: str
    args: tuple[str | Node, ...]
    flags: tuple[str, ...]
    json: bool
    original: str
    start_line: int = 0
    end_line: int = 0
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Every line of it."""
        return line_ranges(self.start_line, self.end_line)

    def flat_args(self) -> tuple[str, ...]:
        """The arguments as words only: below ONBUILD, the inner instruction's word and arguments."""
        words: list[str] = []
        for arg in self.args:
            if isinstance(arg, Node):
                words.append(arg.keyword)
                words.extend(arg.flat_args())
            else:
                words.append(arg)
        return tuple(words)

    def dump(self) -> str:
        """The node as an s-expression, as BuildKit's parser tests print it."""
        parts = [lower(self.keyword)]
        if self.flags:
            parts.append(" " + quote_list(self.flags))
        parts.extend(f" ({arg.dump()})" if isinstance(arg, Node) else " " + quote(arg) for arg in self.args)
        return trim_space("".join(parts))


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a part of the file has no meaning; `suggestion` is also in the message."""

    message: str
    ranges: tuple[Range, ...]
    suggestion: str = ""

    def error(self) -> DockerfileError:
        """The problem as an exception."""
        return DockerfileError(self.message, self.ranges, suggestion=self.suggestion)


@dataclass(frozen=True, slots=True)
class EmptyContinuation:
    """Blank lines inside an instruction: `line` is its last line before heredocs (NoEmptyContinuation)."""

    line: int
    text: str
