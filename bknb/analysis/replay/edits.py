"""An edit of a Dockerfile's lines: what a change of order is made of."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.parser import parse


@dataclass(frozen=True, slots=True)
class Move:
    """A change of one Dockerfile.

    Attributes:
        name: the same in every Dockerfile of a history in which it is the same change.
        title: in a few words.
        because: what is taken for granted when this is called the same build.
        lines: of the file after the change.
    """

    name: tuple[str, ...]
    title: str
    because: str
    lines: tuple[str, ...]

    def diff(self, before: bytes, filename: str) -> tuple[str, ...]:
        """What changes, as a unified diff."""
        old = lines_of(before)
        return tuple(difflib.unified_diff(old, self.lines, filename, filename, n=1, lineterm=""))


@functools.lru_cache(maxsize=64)
def tree_of(dockerfile: bytes) -> ast.Dockerfile:
    """The tree of a text: most commits of a history have the same."""
    return parse(dockerfile)


def lines_of(dockerfile: bytes) -> list[str]:
    """The lines of a text; bytes that are no UTF-8 stay what they are."""
    text = dockerfile.decode(errors="surrogateescape").replace("\r\n", "\n")
    return text.removesuffix("\n").split("\n")


def block_of(command: ast.Instruction, lines: Sequence[str]) -> range:
    """The lines of an instruction, with the comments right above it."""
    first = command.start_line - 1
    while (
        first > 0
        and lines[first - 1].lstrip().startswith("#")
        and not re.match(r"\s*#\s*(syntax|escape|check)\s*=", lines[first - 1])
    ):
        first -= 1
    return range(first, command.end_line)
