"""One line of comma-separated values, as BuildKit reads it (tonistiigi/go-csvvalue)."""

from __future__ import annotations

from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import encode

_BARE_QUOTE: Final = 'bare " in non-quoted-field'
_BAD_QUOTE: Final = 'extraneous or missing " in quoted-field'


def fields_of(text: str) -> list[str]:
    """The fields of a line.

    Raises:
        DockerfileError: it is empty, or a quote is where none can be.

    >>> fields_of('a=1,"b=2,3",')
    ['a=1', 'b=2,3', '']
    """
    line = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not line:
        raise DockerfileError("EOF")
    fields: list[str] = []
    place = 0
    while True:
        if line.startswith('"', place):
            field, place = _quoted_field(line, place + 1)
        else:
            end = line.find(",", place)
            end = len(line) if end < 0 else end
            field = line[place:end]
            if '"' in field:
                raise _error(line, place + field.index('"'), _BARE_QUOTE)
            place = end
        fields.append(field)
        if place >= len(line):
            return fields
        place += 1


def _quoted_field(line: str, place: int) -> tuple[str, int]:
    """A field from behind its opening quote on, and where the comma behind it stands."""
    parts: list[str] = []
    while True:
        end = line.find('"', place)
        if end < 0:
            raise _error(line, place, _BAD_QUOTE)
        parts.append(line[place:end])
        place = end + 1
        following = line[place : place + 1]
        if following == '"':
            parts.append('"')
            place += 1
        elif following in ("", ","):
            return "".join(parts), place
        else:
            raise _error(line, end, _BAD_QUOTE)


def _error(line: str, place: int, reason: str) -> DockerfileError:
    column = len(encode(line[:place])) + 1
    return DockerfileError(f"parse error on line 1, column {column}: {reason}")
