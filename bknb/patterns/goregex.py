r"""The part of Go's regular expressions that ignore patterns can reach, in time that is linear in the text.

`patterns` turns a wildcard pattern into a regular expression by the letter, as BuildKit does, and a user's
own characters come through: escapes (`\d`, `\x41`, `\Q`), classes (`[[:alpha:]]`), `|`, `{2,3}`, `^`. So the
expression has to be read by Go's grammar (regexp/syntax, flags Perl): this module does, for all that can be
in it. Groups other than `(.*/)?`, `+` and flags cannot.

Python's `re` runs what was read, where it is quick; but it backtracks, and a pattern of many stars against a
long path would take it years. Then the same tokens run over all positions of the text at once, a set of
positions being one integer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

_LAST = 0x10FFFF
_Ranges = tuple[tuple[int, int], ...]


class GoRegexError(ValueError):
    """Go would not compile the expression."""


def _of(chars: str) -> _Ranges:
    return tuple((ord(char), ord(char)) for char in chars)


_DIGIT = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_ALPHA = ((0x41, 0x5A), (0x61, 0x7A))
_PERL: Final[dict[str, _Ranges]] = {"d": _DIGIT, "s": _of("\t\n\f\r "), "w": _WORD}
_POSIX: Final[dict[str, _Ranges]] = {
    "alnum": _DIGIT + _ALPHA,
    "alpha": _ALPHA,
    "ascii": ((0, 0x7F),),
    "blank": _of("\t "),
    "cntrl": ((0, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": _of(string.punctuation),
    "space": _of("\t\n\v\f\r "),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CONTROL: Final = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ASSERTIONS: Final = {"^": r"\A", "$": r"\Z", r"\A": r"\A", r"\z": r"\Z", r"\b": r"\b", r"\B": r"\B"}
_CATEGORIES: Final = frozenset(
    "C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No "
    "P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs".split()
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_DIRS: Final = "(.*/)?"
_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(?:(,)(0|[1-9][0-9]*)?)?\}")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_HEX = re.compile(r"x(?:([0-9a-fA-F]{2})|\{([0-9a-fA-F]+)\})")
#: Beyond this many steps of backtracking, `re` is not asked.
_MAX_STEPS: Final = 1_000_000
_MAX_REPEAT: Final = 1000


@dataclass(frozen=True, slots=True)
class _Token:
    """A character class or an assertion, and how often.

    Attributes:
        source: in the syntax of Python's `re`.
        width: 1 for a class, 0 for an assertion; -1 for `(.*/)?`, which is not repeated.
        least, most: how often; `most` is None for any number.
    """

    source: str
    width: int
    least: int = 1
    most: int | None = 1

    def python(self) -> str:
        if self.least == self.most == 1:
            return self.source
        return f"(?:{self.source}){{{self.least},{'' if self.most is None else self.most}}}"


@dataclass(frozen=True, slots=True)
class GoRegex:
    """An expression, as alternatives of tokens in a row."""

    alternatives: tuple[tuple[_Token, ...], ...]
    compiled: re.Pattern[str]
    stars: int

    @classmethod
    def parse(cls, source: str) -> GoRegex:
        """Reads an expression in Go's syntax.

        Raises:
            GoRegexError: Go would not compile it.
        """
        alternatives = _Reader(source).read()
        python = "|".join("".join(token.python() for token in tokens) for tokens in alternatives)
        stars = sum(
            token.width < 0 or token.least != token.most for tokens in alternatives for token in tokens
        )
        return cls(alternatives, re.compile(python, re.ASCII), stars + (len(alternatives) > 1))

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in a text; bytes that are not UTF-8 count as U+FFFD."""
        text = runes(text)
        if (len(text) + 1) ** self.stars <= _MAX_STEPS:
            return self.compiled.search(text) is not None
        return any(_run(tokens, text) for tokens in self.alternatives)


def _run(tokens: tuple[_Token, ...], text: str) -> bool:
    """Follows all matches at once: bit n of `here` says that a match may go on at position n."""
    masks: dict[str, int] = {}

    def mask(source: str) -> int:
        if source not in masks:
            bits = bytearray((len(text) + 8) // 8)
            for found in re.compile(source, re.ASCII).finditer(text):
                bits[found.start() // 8] |= 1 << found.start() % 8
            masks[source] = int.from_bytes(bits, "little")
        return masks[source]

    here = (1 << (len(text) + 1)) - 1
    for token in tokens:
        if not here:
            return False
        if token.width < 0:
            here |= (_flood(here, mask(".")) & mask("/")) << 1
        elif token.width == 0:
            here = here & mask(f"(?={token.source})") if token.least else here
        else:
            here = _repeat(token, here, mask(token.source))
    return here != 0


def _repeat(token: _Token, here: int, mask: int) -> int:
    for _ in range(token.least):
        here = (here & mask) << 1
    if token.most is None:
        return _flood(here, mask)
    for _ in range(token.most - token.least):
        here |= (here & mask) << 1
    return here


def _flood(here: int, mask: int) -> int:
    """All positions that are reached over characters of a mask: an addition carries through its runs."""
    return ((mask + (here & mask)) ^ mask) | here


class _Reader:
    """Reads Go's syntax."""

    __slots__ = ("place", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.place = 0

    def read(self) -> tuple[tuple[_Token, ...], ...]:
        alternatives: list[list[_Token]] = [[]]
        repeated = False  # repetitions do not follow each other
        while self.place < len(self.source):
            if self._take("|"):
                alternatives.append([])
                repeated = False
                continue
            bounds = self._bounds()
            if bounds is None:
                alternatives[-1] += self._atoms()
                repeated = self.source.endswith(_DIRS, 0, self.place)
                continue
            if repeated or not alternatives[-1]:
                raise GoRegexError("missing argument to repetition operator")
            token = alternatives[-1].pop()
            alternatives[-1].append(_Token(token.source, token.width, *bounds))
            repeated = True
        return tuple(map(tuple, alternatives))

    def _take(self, text: str) -> bool:
        if self.source.startswith(text, self.place):
            self.place += len(text)
            return True
        return False

    def _bounds(self) -> tuple[int, int | None] | None:
        """A repetition at this place: at least and at most how often."""
        if self._take("*"):
            return 0, None
        found = _REPEAT.match(self.source, self.place)
        if found is None:
            return None
        self.place = found.end()
        numbers = [min(int(text[:9]), 1 << 20) if text else None for text in found.group(1, 3)]
        least, most = numbers[0] or 0, numbers[1] if found[2] else numbers[0]
        if max(least, most or 0) > _MAX_REPEAT or (most is not None and least > most):
            raise GoRegexError("invalid repeat count")
        return least, most

    def _atoms(self) -> list[_Token]:
        r"""What can be repeated, or the characters of a `\Q...\E`."""
        if self._take(_DIRS):
            return [_Token(f"(?:{_DIRS[1:-2]})?", -1)]
        if self._take("."):
            return [_Token(".", 1)]
        if self._take("["):
            return [_class(*self._class())]
        if self._take(r"\Q"):
            text, _, _ = self.source[self.place :].partition(r"\E")
            self.place = min(self.place + len(text) + 2, len(self.source))
            return [_literal(char) for char in text]
        for assertion, python in _ASSERTIONS.items():
            if self._take(assertion):
                return [_Token(python, 0)]
        if self.source[self.place] == "\\":
            ranges = self._group()
            return [_class(ranges, False)] if ranges is not None else [_literal(self._escape())]
        self.place += 1
        return [_literal(self.source[self.place - 1])]

    def _class(self) -> tuple[_Ranges, bool]:
        """A class from behind its bracket on, and whether it is negated."""
        negated = self._take("^")
        ranges: _Ranges = ()
        first = True
        while first or not self._take("]"):
            first = False
            if self.source.startswith("[:", self.place) and (named := self._named()) is not None:
                ranges += named
            elif (group := self._group()) is not None:
                ranges += group
            else:
                low = high = self._class_char()
                if (
                    self.source[self.place : self.place + 1] == "-"
                    and not self.source.startswith("-]", self.place)
                    and self.place + 1 < len(self.source)
                ):
                    self.place += 1
                    high = self._class_char()
                    if high < low:
                        raise GoRegexError("invalid character class range")
                ranges += ((ord(low), ord(high)),)
        return ranges, negated

    def _class_char(self) -> str:
        if self.place >= len(self.source):
            raise GoRegexError("missing closing ]")
        if self.source[self.place] == "\\":
            return self._escape()
        self.place += 1
        return self.source[self.place - 1]

    def _named(self) -> _Ranges | None:
        """`[:alpha:]` or `[:^alpha:]`."""
        end = self.source.find(":]", self.place + 2)
        if end < 0:
            return None
        name = self.source[self.place + 2 : end]
        ranges = _POSIX.get(name.removeprefix("^"))
        if ranges is None:
            raise GoRegexError("invalid character class range")
        self.place = end + 2
        return _complement(ranges) if name.startswith("^") else ranges

    def _group(self) -> _Ranges | None:
        r"""`\d` and its kin, or a Unicode category `\pN`, if one is here."""
        sign = (
            self.source[self.place + 1 : self.place + 2] if self.source.startswith("\\", self.place) else ""
        )
        ranges = _PERL.get(sign.lower())
        if ranges is not None:
            self.place += 2
        elif sign in ("p", "P"):
            ranges = self._property()
        else:
            return None
        return ranges if sign.islower() else _complement(ranges)

    def _property(self) -> _Ranges:
        r"""`\pN` or `\p{Nd}`. Python knows no scripts: `\p{Greek}` is an error here, though not in Go."""
        start = self.place + 2
        end = start + 1
        if self.source.startswith("{", start):
            end = self.source.find("}", start) + 1
        name = self.source[start:end].strip("{}")
        if end <= start:
            raise GoRegexError("invalid character class range")
        self.place = end
        ranges = _category(name.removeprefix("^"))
        return _complement(ranges) if name.startswith("^") else ranges

    def _escape(self) -> str:
        """The character that an escape stands for."""
        start = self.place + 1
        char = self.source[start : start + 1]
        if octal := _OCTAL.match(self.source, start):
            self.place = octal.end()
            return chr(int(octal[0], 8))
        if found := _HEX.match(self.source, start):
            self.place = found.end()
            code = int((found[1] or found[2]).lstrip("0")[:8] or "0", 16)
            if code <= _LAST:
                return chr(code)
        elif char in _CONTROL:
            self.place = start + 1
            return _CONTROL[char]
        elif char.isascii() and char and not char.isalnum():
            self.place = start + 1
            return char
        raise GoRegexError("invalid escape sequence")


def _literal(char: str) -> _Token:
    return _Token(re.escape(char), 1)


def _class(ranges: _Ranges, negated: bool) -> _Token:
    if not ranges:  # only a complement of everything: matches nothing
        return _Token("[^\\s\\S]" if not negated else "[\\s\\S]", 1)
    inside = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
    return _Token(f"[{'^' if negated else ''}{inside}]", 1)


def _complement(ranges: _Ranges) -> _Ranges:
    gaps: list[tuple[int, int]] = []
    following = 0
    for low, high in sorted(ranges):
        if low > following:
            gaps.append((following, low - 1))
        following = max(following, high + 1)
    if following <= _LAST:
        gaps.append((following, _LAST))
    return tuple(gaps)


@cache
def _category(name: str) -> _Ranges:
    """The characters of a Unicode category, as ranges."""
    if name == "Any":
        return ((0, _LAST),)
    if name not in _CATEGORIES:
        raise GoRegexError("invalid character class range")
    ranges: list[tuple[int, int]] = []
    start: int | None = None
    for code in range(_LAST + 2):
        category = unicodedata.category(chr(code)) if code <= _LAST else "Cn"
        inside = category.startswith(name) and category != "Cn"
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            ranges.append((start, code - 1))
            start = None
    return tuple(ranges)


def runes(text: str) -> str:
    """A text as Go walks it: every byte that is not UTF-8 is U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
