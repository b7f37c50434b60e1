r"""The patterns inside of `${v#p}`, `${v%p}` and `${v/p/r}` (frontend/dockerfile/shell/lex.go).

BuildKit turns such a pattern into a regular expression: `*` is any text within a line, `?` any character
but a line feed, and only `\*`, `\?` and `\\` are escapes. Python's `re` would give the same answers, but
it backtracks: `*a*b*c*d` against a long value takes time with the power of the number of stars. So the
pattern is kept as its segments between the stars, which are found one after the other. That is enough,
for two reasons: the earliest place of a segment leaves the most room for the next one; and since only
literals may cross a line feed, an earlier place never shuts off a later line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LITERAL_ESCAPES = "*?\\"


class PatternError(ValueError):
    """A pattern with an escape that BuildKit does not know."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two stars: text, or a regular expression where it has a `?`."""

    text: str
    regex: re.Pattern[str] | None
    length: int

    def at(self, value: str, start: int) -> bool:
        if self.regex is None:
            return value.startswith(self.text, start)
        return self.regex.match(value, start) is not None

    def first(self, value: str, start: int, last: int) -> int:
        """The first place in start..last where it stands, or -1."""
        if self.regex is None:
            return value.find(self.text, start, last + self.length)
        found = self.regex.search(value, start, min(len(value), last + self.length))
        return found.start() if found else -1

    def last(self, value: str, start: int, last: int) -> int:
        """The last place in start..last where it stands, or -1."""
        if self.regex is None:
            return value.rfind(self.text, start, last + self.length)
        for place in range(min(last, len(value) - self.length), start - 1, -1):
            if self.regex.match(value, place):
                return place
        return -1


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A pattern, cut at its stars: never empty."""

    segments: tuple[_Segment, ...]

    @classmethod
    def parse(cls, pattern: str) -> Wildcard:
        r"""Reads a pattern.

        Raises:
            PatternError: an escape other than `\*`, `\?`, `\\`, `\}` and `\/`.
        """
        segments: list[_Segment] = []
        tokens: list[tuple[str, bool]] = []  # a character, and whether it is the sign `?`
        chars = iter(pattern.removeprefix("\ufeff"))
        for char in chars:
            if char == "*":
                segments.append(_segment(tokens))
                tokens = []
                continue
            sign = char == "?"
            if char == "\\":
                char = next(chars, "\ufffd")
                if char not in _LITERAL_ESCAPES + "}/":
                    raise PatternError(f"invalid escape '\\{char}'")
            tokens.append((char, sign))
        segments.append(_segment(tokens))
        return cls(tuple(segments))

    def prefix(self, value: str, *, longest: bool) -> int | None:
        """Where the shortest or longest match ends that begins at the start of a value; None if none."""
        return self._end(value, 0, longest=longest)

    def search(self, value: str, start: int = 0) -> tuple[int, int] | None:
        """The leftmost match at or after a place, and of those the longest; None if none."""
        head = self.segments[0]
        while (begin := head.first(value, start, len(value))) >= 0:
            end = self._end(value, begin, longest=True)
            if end is not None:
                return begin, end
            # Within the line in which the first star began, a later start has less room: try after it.
            line_end = value.find("\n", begin + head.length)
            if line_end < 0:
                return None
            start = max(begin + 1, line_end + 1 - head.length)
        return None

    def replace_first(self, value: str, replacement: str) -> str:
        """The value with the first match replaced."""
        found = self.search(value)
        return value if found is None else value[: found[0]] + replacement + value[found[1] :]

    def replace_all(self, value: str, replacement: str, limit: int) -> str:
        """All matches replaced, as Go's regexp.ReplaceAllString does.

        `$0` and `$name` in the replacement are references to groups; a pattern has none but the whole.

        Raises:
            OverflowError: the result is longer than the limit.
        """
        pieces = _template(replacement)
        length = sum(map(len, pieces))
        parts: list[str] = []
        written = place = size = 0
        while place <= len(value) and (found := self.search(value, place)) is not None:
            begin, end = found
            parts.append(value[written:begin])
            if end > written or begin == 0:  # no empty match right behind another
                size += length + (len(pieces) - 1) * (end - begin)
                if size > limit:
                    raise OverflowError
                parts.append(value[begin:end].join(pieces))
            written = end
            place = max(end, place + 1)
        parts.append(value[written:])
        return "".join(parts)

    def _end(self, value: str, start: int, *, longest: bool) -> int | None:
        if not self.segments[0].at(value, start):
            return None
        end = start + self.segments[0].length
        final = len(self.segments) - 1
        for number in range(1, final + 1):
            segment = self.segments[number]
            line_end = value.find("\n", end)
            last = line_end if line_end >= 0 else len(value)
            find = segment.last if longest and number == final else segment.first
            place = find(value, end, last)
            if place < 0:
                return None
            end = place + segment.length
        return end


def _segment(tokens: list[tuple[str, bool]]) -> _Segment:
    text = "".join(char for char, _ in tokens)
    if not any(sign for _, sign in tokens):
        return _Segment(text, None, len(tokens))
    source = "".join("." if sign else re.escape(char) for char, sign in tokens)
    return _Segment(text, re.compile(source), len(tokens))


def _template(replacement: str) -> list[str]:
    """What stands between the matches in a template of Go's regexp.Expand, for a pattern without groups."""
    pieces: list[str] = []
    text: list[str] = []
    place = 0
    while (sign := replacement.find("$", place)) >= 0:
        text.append(replacement[place:sign])
        place = sign + 1
        if replacement.startswith("$", place):
            text.append("$")
            place += 1
            continue
        name, rest = _reference(replacement, place)
        if not name:
            text.append("$")
            continue
        place = rest
        if name == "0":
            pieces.append("".join(text))
            text = []
    text.append(replacement[place:])
    pieces.append("".join(text))
    return pieces


def _reference(text: str, place: int) -> tuple[str, int]:
    """The group's name in `$name` or `${name}` behind the sign, and where it ends; "" if there is none."""
    braced = text.startswith("{", place)
    begin = end = place + braced
    while end < len(text) and (text[end] == "_" or text[end].isalpha() or text[end].isdecimal()):
        end += 1
    name = text[begin:end]
    if braced:
        return (name, end + 1) if text.startswith("}", end) else ("", place)
    return name, end
