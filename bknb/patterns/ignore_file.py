"""`.dockerignore` and its kin (moby/patternmatcher ignorefile/ignorefile.go)."""

from __future__ import annotations

from typing import Final

from bknb.errors import BknbError

_BOM: Final = b"\xef\xbb\xbf"
_MAX_LINE: Final = 65536

#: What Go trims (unicode.IsSpace). Python's own idea of white space has four characters more.
SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class PatternError(BknbError):
    """A pattern or an ignore file that cannot be read."""


def clean_path(path: str) -> str:
    """The shortest equivalent of a path, by text alone (Go's path.Clean).

    >>> clean_path("a//b/../c/."), clean_path("../x"), clean_path("/../y"), clean_path("")
    ('a/c', '../x', '/y', '.')
    """
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", ".", "..") or (part == ".." and not rooted):
            parts.append(part)
    return "/" + "/".join(parts) if rooted else "/".join(parts) or "."


def read_ignore_file(data: bytes | str) -> list[str]:
    r"""The patterns of an ignore file, comments and blank lines left out, paths cleaned.

    Raises:
        PatternError: a line is longer than BuildKit reads.

    >>> read_ignore_file("# all but\n/build/\n! build/keep/../x\n")
    ['build', '!build/x']
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    patterns: list[str] = []
    for line in data.removeprefix(_BOM).split(b"\n"):
        if len(line) >= _MAX_LINE:
            raise PatternError("bufio.Scanner: token too long")
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        if text.startswith("#"):
            continue
        text = text.strip(SPACE)
        if not text:
            continue
        sign = "!" if text.startswith("!") else ""
        if sign:
            text = text[1:].strip(SPACE)
        if text:
            text = clean_path(text)
            if text != "/":
                text = text.removeprefix("/")
        patterns.append(sign + text)
    return patterns
