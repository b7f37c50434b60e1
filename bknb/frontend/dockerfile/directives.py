"""Parser directives: `# syntax=`, `# escape=` and `# check=` before anything else in the file.

The rules are those of frontend/dockerfile/parser/directives.go. There are two readings of one file:
the parser's, which wants `#` and stops the build at a directive given twice, and the search for one key
(`find`), which never fails and, for `syntax`, also takes `//` and a JSON object.
"""

from __future__ import annotations

import json
import re
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.ast import Directive
from bknb.frontend.dockerfile.gotext import SPACE, decode, lower, replace_invalid

KNOWN: Final = frozenset({"syntax", "escape", "check"})
BOM: Final = b"\xef\xbb\xbf"

#: The longest line that BuildKit's scanner takes, its line feed included (bufio.MaxScanTokenSize).
MAX_LINE: Final = 65536

_BLANK = "\t\n\f\r "  # the class \s of Go's regexp package
_ASSIGNMENT = re.compile(f"([a-zA-Z][a-zA-Z0-9]*)[{_BLANK}]*=")


class DirectiveReader:
    """Reads the directives of one file, line by line, until the first line that is not one."""

    __slots__ = ("comment", "done", "line", "seen")

    def __init__(self, comment: str = "#", line: int = 0) -> None:
        """Begins a file.

        Args:
            comment: what a directive begins with.
            line: how many lines come before the first one that is read.
        """
        self.comment = comment
        self.line = line
        self.done = False
        self.seen: set[str] = set()

    def read(self, line: str) -> Directive | None:
        """The directive on the next line, or None.

        Raises:
            DockerfileError: it was there before.
        """
        self.line += 1
        found = None if self.done else assignment(line, self.comment)
        if found is None:
            self.done = True
            return None
        name, value = found
        if name in self.seen:
            raise DockerfileError(f"only one {name} parser directive can be used")
        self.seen.add(name)
        return Directive(name, value.partition(" ")[0], value, self.line)


def assignment(line: str, comment: str) -> tuple[str, str] | None:
    """The name and value of a directive, if the line is one.

    >>> assignment("#  Escape = ` ", "#")
    ('escape', '`')
    """
    if not line.startswith(comment):
        return None
    line = line[len(comment) :].lstrip(SPACE)
    found = _ASSIGNMENT.match(line)
    if found is None or (name := lower(found[1])) not in KNOWN:
        return None
    rest = line[found.end() :]
    # The regular expression behind this must find one character: of blanks alone it takes the last one.
    value = rest.strip(_BLANK) or rest[-1:]
    return (name, value) if value and "\n" not in value else None


def find(key: str, source: bytes, *, any_form: bool = False) -> Directive | None:
    """The directive of one name, as BuildKit looks for it before it parses the file.

    Args:
        key: its name.
        source: the file. A first line that begins with `#!` is skipped.
        any_form: also as `// key=value`, and as a JSON object with that key.
    """
    source = source.removeprefix(BOM)
    skipped = 0
    if source.startswith(b"#!"):
        source = source.partition(b"\n")[2]
        skipped = 1
    for comment in ("#", "//") if any_form else ("#",):
        found = _find_comment(key, source, comment, skipped)
        if found is not None:
            return found
    return _find_json(key, source, skipped) if any_form else None


def _find_comment(key: str, source: bytes, comment: str, skipped: int) -> Directive | None:
    reader = DirectiveReader(comment, skipped)
    start = 0
    while start < len(source) and not reader.done:
        end = source.find(b"\n", start, start + MAX_LINE)
        if end < 0:
            end = len(source)
            if end - start >= MAX_LINE:
                return None
        line = source[start:end].removesuffix(b"\r")
        start = end + 1
        try:
            directive = reader.read(decode(line))
        except DockerfileError:
            return None
        if directive is not None and directive.name == key:
            return directive
    return None


def _find_json(key: str, source: bytes, skipped: int) -> Directive | None:
    if not source.lstrip(b"\t\n\r ").startswith(b"{"):
        return None
    try:
        value = json.loads(
            replace_invalid(decode(source)), parse_constant=_reject, parse_float=finite, parse_int=finite
        )
    except (ValueError, RecursionError):
        return None
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        return None
    text = replace_invalid(text)
    return Directive(key, text, text, skipped)


def _reject(constant: str) -> None:
    """Go's JSON has no NaN and no Infinity."""
    raise ValueError(constant)


def finite(number: str) -> float:
    """A JSON number as Go takes it.

    Raises:
        ValueError: it is too large for a float64.
    """
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(number)
    return value
