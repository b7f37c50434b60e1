"""Patterns, and what they match (moby/patternmatcher patternmatcher.go)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bknb.patterns.goregex import GoRegex, GoRegexError, runes
from bknb.patterns.ignore_file import SPACE, PatternError, clean_path

_BAD_PATTERN = "syntax error in pattern"


@dataclass(frozen=True)
class Pattern:
    """One pattern.

    Attributes:
        text: cleaned, without its `!`.
        exclusion: it had one: what it matches is taken back.
    """

    text: str
    exclusion: bool

    def match(self, path: str) -> bool:
        """Whether it matches exactly this path; folders above are the matcher's business.

        Raises:
            PatternError: the pattern has no regular expression.
        """
        kind, regex = self._compiled
        if kind == "exact":
            return path == self.text
        if kind == "prefix":
            return path.startswith(self.text[:-2])
        if kind == "suffix":
            suffix = self.text[2:]
            return path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])
        if regex is None:
            raise PatternError(_BAD_PATTERN)
        return regex.search(path)

    @cached_property
    def _compiled(self) -> tuple[str, GoRegex | None]:
        kind, source = _translate(self.text)
        if kind != "regex":
            return kind, None
        try:
            return kind, GoRegex.parse(source)
        except GoRegexError:
            return kind, None


@dataclass(frozen=True, slots=True)
class MatchInfo:
    """Which patterns matched a folder, for the decision about what lies in it."""

    matched: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class PatternMatcher:
    """A list of patterns. Make it with `PatternMatcher.parse`.

    >>> matcher = PatternMatcher.parse(["*", "!src"])
    >>> matcher.matches("docs/a.md"), matcher.matches("src/a.c")
    (True, False)
    """

    patterns: tuple[Pattern, ...]
    exclusions: bool = field(default=False)

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> PatternMatcher:
        """Reads patterns; empty ones are left out.

        Raises:
            PatternError: a pattern that is no pattern.
        """
        read: list[Pattern] = []
        for pattern in patterns:
            text = pattern.strip(SPACE)
            if not text:
                continue
            text = clean_path(text)
            exclusion = text.startswith("!")
            if text == "!":
                raise PatternError('illegal exclusion pattern: "!"')
            text = text[exclusion:]
            _check_syntax(text)
            read.append(Pattern(text, exclusion))
        return cls(tuple(read), any(pattern.exclusion for pattern in read))

    def matches(self, path: str) -> bool:
        """Whether a path is matched, by itself or with a folder above it.

        Raises:
            PatternError: a pattern has no regular expression.
        """
        matched = False
        above = _folders(path)
        for pattern in self.patterns:
            if pattern.exclusion == matched and (
                pattern.match(path) or any(pattern.match(folder) for folder in above)
            ):
                matched = not pattern.exclusion
        return matched

    def walk(self, path: str, parent: MatchInfo | None = None) -> tuple[bool, MatchInfo]:
        """Whether a path is matched, when a tree is walked from its root down.

        Not always what `matches` says: a folder that was matched once stays so below a pattern that takes
        it back, which is how BuildKit sends a context.

        Args:
            path: the path.
            parent: what this returned for the folder that it lies in; None at the top.

        Raises:
            PatternError: a pattern has no regular expression.
        """
        known = parent.matched if parent is not None else ()
        above = () if known else _folders(path)
        matched = False
        flags = [False] * len(self.patterns)
        for index, pattern in enumerate(self.patterns):
            match = bool(known) and known[index]
            if not match:
                if pattern.exclusion != matched:
                    continue
                match = pattern.match(path) or any(pattern.match(folder) for folder in above)
            flags[index] = match
            if match:
                matched = not pattern.exclusion
        return matched, MatchInfo(tuple(flags))


def _folders(path: str) -> Sequence[str]:
    """The folders above a path, the top one first."""
    folder = clean_path(path.rpartition("/")[0] or ("/" if path.startswith("/") else "."))
    if folder == ".":
        return ()
    parts = folder.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _translate(pattern: str) -> tuple[str, str]:
    """How a pattern is compared (exact, prefix, suffix, regex), and its regular expression in Go's syntax.

    A step by step account of Pattern.compile in patternmatcher.go, for a `/` as separator.
    """
    kind = "exact"
    out = ["^"]
    text = runes(pattern.removeprefix("\ufeff"))
    place = count = 0
    while place < len(text):
        char = text[place]
        place += 1
        if char == "*" and text.startswith("*", place):
            place += 1
            place += text.startswith("/", place)
            if place < len(text):
                out.append("(.*/)?")
                kind = "regex"
            elif kind == "exact":
                kind = "prefix"
            else:
                out.append(".*")
                kind = "regex"
            if count == 0:
                kind = "suffix"
        elif char in "*?":
            out.append("[^/]*" if char == "*" else "[^/]")
            kind = "regex"
        elif char == "\\" and place < len(text):
            out.append("\\" + text[place])
            place += 1
            kind = "regex"
        elif char in ".+()$\\":  # `|{}` are meant to be escaped too, but BuildKit's table is too short
            out.append("\\" + char)
        else:
            out.append(char)
            if char in "[]":
                kind = "regex"
        count += 1
    return kind, "".join(out) + "$"


def _check_syntax(pattern: str) -> None:
    """Fails where Go's filepath.Match(pattern, ".") fails, which is what BuildKit asks first.

    That reads a pattern in chunks, each up to the next star outside of brackets, and ends at the first chunk
    that does not match: what is wrong behind it is not noticed.
    """
    name = "."
    while pattern:
        chunk = pattern.lstrip("*")
        star = len(chunk) < len(pattern)
        end = _chunk_end(chunk)
        chunk, pattern = chunk[:end], chunk[end:]
        if not chunk:
            return
        rest = _match_chunk(chunk, name)
        if rest is None or (rest and not pattern):
            if not star or not name:
                return
            rest = _match_chunk(chunk, name[1:])
            if rest is None:
                return
        name = rest


def _chunk_end(pattern: str) -> int:
    inside = False
    place = 0
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            place += 1
        elif char in "[]":
            inside = char == "["
        elif char == "*" and not inside:
            return place
        place += 1
    return len(pattern)


def _match_chunk(chunk: str, name: str) -> str | None:
    """What is left of a name behind a chunk, or None; reads the whole chunk either way."""
    place = 0
    failed = False
    while place < len(chunk):
        failed = failed or not name
        char = chunk[place]
        place += 1
        if char == "[":
            negated = chunk.startswith("^", place)
            found, place = _match_class(chunk, place + negated, name[:1])
            failed = failed or found == negated
        elif char != "?":
            if char == "\\":
                if place == len(chunk):
                    raise PatternError(_BAD_PATTERN)
                char = chunk[place]
                place += 1
            failed = failed or char != name[0]
        name = name[1:]
    return None if failed else name


def _match_class(chunk: str, place: int, char: str) -> tuple[bool, int]:
    """Whether a character is in a class, and where the class ends."""
    found = False
    ranges = 0
    while not (ranges and chunk.startswith("]", place)):
        low = high = _class_char(chunk, place)
        place += len(low)
        if chunk.startswith("-", place):
            high = _class_char(chunk, place + 1)
            place += 1 + len(high)
        found = found or low[-1] <= char <= high[-1]
        ranges += 1
    return found, place + 1


def _class_char(chunk: str, place: int) -> str:
    """One character of a class, with its escape; more must follow it."""
    char = chunk[place : place + 1]
    if char in ("", "-", "]"):
        raise PatternError(_BAD_PATTERN)
    if char == "\\":
        char = chunk[place : place + 2]
    if place + len(char) >= len(chunk) or "\ud800" <= char[-1] <= "\udfff":
        raise PatternError(_BAD_PATTERN)
    return char
