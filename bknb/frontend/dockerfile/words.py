"""Shell words: variables, quotes and escapes as BuildKit's lexer reads them.

The source of every rule is frontend/dockerfile/shell/lex.go.
`Lex.process_word` expands a text to one text, `Lex.process_words` to the words it falls into. The language
is nearly the shell's: ``$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?e} ${v?e} ${v#p} ${v##p} ${v%p} ${v%%p}
${v/p/r} ${v//p/r}``. It is not the shell's where BuildKit is not, and images depend on that:

- A word read so far is lost in the list of words, though not in the expanded text, when a ``${v:-...}``
  follows within it: BuildKit's lexer empties one shared buffer. `x${v:+y}z` falls into the one word `z`.
- The replacement of `${v//p/r}` is a template of Go's regexp package, that of `${v/p/r}` is not.
- Variables inside of a default are looked up whether the default is used or not.

The text is read in runs, not character by character: a run without anything special is one regular
expression match. Time is linear in the length of text and result; nesting and the result's length have
limits, since a file of 40 lines could otherwise ask for a terabyte (`ENV a=$a$a`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import SPACE_CLASS, quote, replace_invalid
from bknb.frontend.dockerfile.wildcard import PatternError, Wildcard

#: How deep `${a:-${b:-...}}` may go. BuildKit has no limit.
MAX_NESTING = 50
#: How many characters an expansion may have. BuildKit has no limit.
MAX_LENGTH = 1 << 24

_SPACES = re.compile(f"[{SPACE_CLASS}]+")
_ASCII_NAME = re.compile(r"[0-9]+|[@*#?\-$!]|[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*+)(?![^\x00-\x7f]))")
_HEREDOC_SPACE = re.compile(r"[\t\r ]*")
_SPECIAL_PARAMETERS = "@*#?-$!"
_NO_END = "unexpected end of statement while looking for matching "
_NO_BRACE = "syntax error: missing '}'"
_TOO_LONG = f"the result is longer than {MAX_LENGTH} characters"


class WordError(DockerfileError):
    """A text that cannot be expanded.

    Attributes:
        matched, unmatched: the variables looked up before it failed, as in `Result`.
    """

    def __init__(self, message: str, matched: Iterable[str] = (), unmatched: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.matched = tuple(matched)
        self.unmatched = tuple(unmatched)


@dataclass(frozen=True, slots=True)
class Result:
    """An expanded text.

    Attributes:
        matched, unmatched: the variables that were and were not set, each once, in the order in which
            they were first looked up.
    """

    text: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lex:
    """The rules by which words are read.

    Attributes:
        escape: the escape character, a backslash or a backtick.
        raw_quotes: quotes stay in the result.
        raw_escapes: escape characters stay in the result.
        skip_process_quotes: quotes are ordinary characters.
        skip_unset_env: references to variables that are not set stay in the result.

    >>> Lex().process_word("${A:-x}-$B '$C'", {"B": "b"})
    Result(text='x-b $C', matched=('B',), unmatched=('A',))
    >>> Lex().process_words("a 'b c' $D", {"D": "d e"})
    ['a', 'b c', 'd', 'e']
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    skip_process_quotes: bool = False
    skip_unset_env: bool = False

    def process_word(self, word: str, env: Mapping[str, str]) -> Result:
        """Expands a text.

        Args:
            word: the text.
            env: the variables; only looked up in, so any mapping does.

        Raises:
            WordError: it cannot be expanded.
        """
        reader = _Reader(self, word, env)
        text, _ = reader.run()
        return Result(text, tuple(reader.matched), tuple(reader.unmatched))

    def process_words(self, word: str, env: Mapping[str, str]) -> list[str]:
        """Expands a text and splits it at white space that is not quoted, that of variables included.

        Raises:
            WordError: it cannot be expanded.
        """
        return _Reader(self, word, env).run()[1]


@cache
def _plain(escape: str, quotes: bool, stop: str) -> re.Pattern[str]:
    """A run of characters that mean themselves."""
    return re.compile(f"[^{re.escape('$<' + escape + stop)}{chr(39) + chr(34) if quotes else ''}]+")


@cache
def _double_quoted(escape: str) -> re.Pattern[str]:
    return re.compile(f'[^"${re.escape(escape)}]+')


class _Words:
    """Words as they grow: text that may end one at its spaces, and raw text that may not."""

    __slots__ = ("done", "pending")

    def __init__(self) -> None:
        self.done: list[str] = []
        self.pending: list[str] = []

    def add(self, text: str) -> None:
        parts = _SPACES.split(replace_invalid(text))
        self.add_raw(parts[0])
        for part in parts[1:]:
            self.close()
            self.add_raw(part)

    def add_raw(self, text: str) -> None:
        if text:
            self.pending.append(text)

    def close(self) -> None:
        if self.pending:
            self.done.append("".join(self.pending))
            self.pending = []


class _Reader:
    """One reading of one text."""

    __slots__ = ("env", "length", "lex", "matched", "place", "source", "text", "unmatched", "words")

    def __init__(self, lex: Lex, source: str, env: Mapping[str, str]) -> None:
        self.lex = lex
        self.source = source
        self.env = env
        # Go's scanner drops a leading byte order mark and reads bytes that are not UTF-8 as U+FFFD.
        self.text = replace_invalid(source).removeprefix("\ufeff")
        self.place = 0
        self.length = 0
        self.words = _Words()
        self.matched: dict[str, None] = {}
        self.unmatched: dict[str, None] = {}

    def run(self) -> tuple[str, list[str]]:
        try:
            text = self._until("", self.lex.raw_escapes, 0)
        except WordError as error:
            message = f"failed to process {quote(self.source)}: {error.message}"
            raise WordError(message, self.matched, self.unmatched) from None
        self.words.close()
        return text, self.words.done

    @property
    def _at_end(self) -> bool:
        return self.place >= len(self.text)

    def _next(self) -> str:
        """The next character; U+FFFD at the end, which is how Go prints its end-of-file sign."""
        char = self.text[self.place : self.place + 1]
        self.place += 1
        return char or "\ufffd"

    def _grow(self, text: str) -> str:
        self.length += len(text)
        if self.length > MAX_LENGTH:
            raise WordError(_TOO_LONG)
        return text

    def _until(self, stop: str, raw_escapes: bool, depth: int) -> str:
        """Expands up to the character `stop` ("" for the end of the text) and steps over it."""
        if depth > MAX_NESTING:
            raise WordError(f"substitutions are nested deeper than {MAX_NESTING}")
        words = self.words if depth == 0 else None
        # The lost word of the module's docstring: what was pending is gone, here and in BuildKit.
        self.words.pending = []
        plain = _plain(self.lex.escape, not self.lex.skip_process_quotes, stop)
        out: list[str] = []
        while not self._at_end:
            if run := plain.match(self.text, self.place):
                self.place = run.end()
                piece = self._grow(run[0])
                if words:
                    words.add(piece)
            else:
                char = self.text[self.place]
                if char == stop:
                    self.place += 1
                    return "".join(out)
                if char == "$":
                    piece = self._dollar(depth)
                    if words:
                        words.add(piece)
                else:
                    piece = self._special(char, raw_escapes, depth)
                    if words:
                        words.add_raw(piece)
            out.append(piece)
        if stop:
            raise WordError(_NO_END + stop)
        return "".join(out)

    def _special(self, char: str, raw_escapes: bool, depth: int) -> str:
        """A quoted text, an escaped character or the start of a heredoc: what spaces do not cut."""
        if char == "'":
            return self._single_quoted()
        if char == '"':
            return self._double_quoted(raw_escapes, depth)
        self.place += 1
        if char == "<":
            if not self.text.startswith("<", self.place):
                return "<"
            space = _HEREDOC_SPACE.match(self.text, self.place + 1)
            start, self.place = self.place - 1, space.end() if space else self.place + 1
            return self.text[start : self.place]
        escaped = self.text[self.place : self.place + 1]
        self.place += 1
        return self._grow(char + escaped if raw_escapes else escaped)

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.place + 1)
        if end < 0:
            self.place = len(self.text)
            raise WordError(_NO_END + "single-quote")
        start, self.place = self.place, end + 1
        return self._grow(self.text[start : end + 1] if self.lex.raw_quotes else self.text[start + 1 : end])

    def _double_quoted(self, raw_escapes: bool, depth: int) -> str:
        plain = _double_quoted(self.lex.escape)
        mark = '"' if self.lex.raw_quotes else ""
        out = [mark]
        self.place += 1
        while not self._at_end:
            if run := plain.match(self.text, self.place):
                self.place = run.end()
                out.append(self._grow(run[0]))
                continue
            char = self.text[self.place]
            if char == "$":
                out.append(self._dollar(depth))
                continue
            self.place += 1
            if char == '"':
                out.append(mark)
                return "".join(out)
            if raw_escapes:
                out.append(char)
            following = self.text[self.place : self.place + 1]
            if following in ('"', "$", self.lex.escape):
                self.place += 1
                out.append(following)
            elif following:  # other escapes are left as they are
                out.append(char)
        raise WordError(_NO_END + "double-quote")

    def _dollar(self, depth: int) -> str:
        if found := _REFERENCE.match(self.text, self.place):  # the common forms
            self.place = found.end()
            return self._plain_value(found[found.lastindex or 0], found[0])
        self.place += 1
        if not self.text.startswith("{", self.place):
            name = self._name()
            return self._plain_value(name, "$" + name) if name else "$"
        self.place += 1
        if self._at_end:
            raise WordError(_NO_BRACE)
        if self.text[self.place] in "{}:":
            raise WordError("syntax error: bad substitution")
        name = self._name()
        sign = self._next()
        if sign == "}":
            return self._plain_value(name, f"${{{name}}}")
        if sign == "/":
            return self._grow(self._replacement(name, depth))
        if sign in ":+-?#%":
            return self._grow(self._modified(name, sign, depth))
        raise WordError(f"unsupported modifier ({sign}) in substitution")

    def _plain_value(self, name: str, reference: str) -> str:
        value = self._lookup(name)
        if value is None:
            return reference if self.lex.skip_unset_env else ""
        return self._grow(value)

    def _modified(self, name: str, sign: str, depth: int) -> str:
        """`${name:-word}` and its kin, from behind the sign on."""
        colon, full = sign == ":", sign
        if colon:
            sign = self._next()
            full += sign
        trims = sign in "#%"
        if colon and trims:
            raise WordError(f"unsupported modifier ({full}) in substitution")
        word = self._part("}", trims, _NO_BRACE, depth)
        value = self._lookup(name)
        if value is None and self.lex.skip_unset_env:
            return f"${{{name}{full}{word}}}"
        missing = value is None or (colon and not value)
        if sign == "-":
            return word if missing else value or ""
        if sign == "+":
            return "" if missing else word
        if sign == "?":
            if missing:
                state = "unset" if value is None else "empty"
                raise WordError(f"{name}: {word or f'is not allowed to be {state}'}")
            return value or ""
        if trims:
            return _trim(sign, word, value or "")
        raise WordError(f"unsupported modifier ({full}) in substitution")

    def _replacement(self, name: str, depth: int) -> str:
        """`${name/pattern/text}`, from behind the first slash on."""
        every = self.text.startswith("/", self.place)
        self.place += every
        pattern = self._part("/", True, "syntax error: missing '/' in ${}", depth)
        text = self._part("}", True, _NO_BRACE, depth)
        value = self._lookup(name)
        if value is None and self.lex.skip_unset_env:
            return f"${{{name}/{pattern}/{text}}}"
        wildcard = _wildcard(pattern)
        if not every:
            return wildcard.replace_first(value or "", text)
        try:
            return wildcard.replace_all(value or "", text, MAX_LENGTH)
        except OverflowError:
            raise WordError(_TOO_LONG) from None

    def _part(self, stop: str, raw_escapes: bool, at_end: str, depth: int) -> str:
        """A word within braces; running out of text is told in the words of `at_end`."""
        try:
            return self._until(stop, raw_escapes, depth + 1)
        except WordError:
            if self._at_end:
                raise WordError(at_end) from None
            raise

    def _name(self) -> str:
        """A variable's name: letters, digits and `_`; or digits only; or one special character; or ""."""
        found = _ASCII_NAME.match(self.text, self.place)
        end = found.end() if found else self.place
        if self.text[end : end + 1].isascii() or (found and found[0] in _SPECIAL_PARAMETERS):
            start, self.place = self.place, end
            return self.text[start:end]
        start = end = self.place
        numeric = self.text[start].isdecimal()
        while end < len(self.text):
            char = self.text[end]
            if not (char.isdecimal() or (not numeric and (char.isalpha() or char == "_"))):
                break
            end += 1
        self.place = end
        return self.text[start:end]

    def _lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unmatched if value is None else self.matched)[name] = None
        return value


def _wildcard(pattern: str) -> Wildcard:
    try:
        return Wildcard.parse(pattern)
    except PatternError as error:
        raise WordError(f"invalid pattern ({pattern}) in substitution: {error}") from None


def _trim(sign: str, pattern: str, value: str) -> str:
    """`${v#p}` and `${v%p}`; a doubled sign asks for the longest match."""
    longest = pattern.startswith(sign)
    if longest:
        pattern = pattern[1:]
    if sign == "#":
        end = _wildcard(pattern).prefix(value, longest=longest)
        return value if end is None else value[end:]
    # The shortest match at the end is the shortest at the start of the reversed text. BuildKit's way, and
    # it shows: errors name the reversed pattern.
    backwards = _reversed(pattern)
    value = replace_invalid(value)
    end = _wildcard(backwards).prefix(value[::-1], longest=longest)
    return value if end is None else value[: len(value) - end]


def _reversed(pattern: str) -> str:
    r"""A pattern backwards, its escapes kept whole: `a\*b` is `b\*a`."""
    return "".join(re.findall(r"\\.|.", pattern, re.DOTALL)[::-1])
