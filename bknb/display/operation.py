"""An op of the graph as text, for whoever wants to see what a step really is."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping

LONGEST = 4000
"""Characters of an op's text; a heredoc may be megabytes."""


def describe(op: object) -> str:
    """An op's fields, one a line, without those that have their default.

    >>> from bknb.llb.ops import SourceOp
    >>> print(describe(SourceOp("docker-image://docker.io/library/alpine:3")))
    SourceOp
      identifier: docker-image://docker.io/library/alpine:3
    """
    text = "\n".join([type(op).__name__, *_lines(op, 1)])
    return text if len(text) <= LONGEST else text[:LONGEST] + "\n…"


def _lines(value: object, depth: int) -> Iterator[str]:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return
    pad = "  " * depth
    for field in dataclasses.fields(value):
        found = getattr(value, field.name)
        if found == field.default or (not found and field.default_factory is not dataclasses.MISSING):
            continue
        if dataclasses.is_dataclass(found):
            yield f"{pad}{field.name}:"
            yield from _lines(found, depth + 1)
        elif isinstance(found, tuple) and any(dataclasses.is_dataclass(item) for item in found):
            for item in found:
                yield f"{pad}{field.name}:"
                yield from _lines(item, depth + 1)
        else:
            yield f"{pad}{field.name}: {_word(found)}"


def _word(value: object) -> str:
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, bytes):
        return f"{len(value)} bytes: {value[:80]!r}"
    if isinstance(value, tuple):
        return " ".join(repr(item) if " " in str(item) or not str(item) else str(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
