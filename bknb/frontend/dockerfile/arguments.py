"""How the text behind an instruction word falls into flags and arguments.

frontend/dockerfile/parser/split_command.go and line_parsers.go, rule by rule.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.directives import finite
from bknb.frontend.dockerfile.gotext import (
    SPACE,
    SPACE_CLASS,
    decode,
    encode,
    quote,
    replace_invalid,
    trim_space,
)

#: What separates arguments; not all that Unicode calls a space.
BLANKS: Final = re.compile(r"[\t\v\f\r ]+")

_NOT_STRINGS = "when using JSON array syntax, arrays must be comprised of strings only"
# Go walks flags and HEALTHCHECK's first word byte by byte, each byte a Latin-1 character.
_BYTE_SPACE = "\t\n\v\f\r \x85\xa0"
_HEALTH_WORD = re.compile(f"([^{_BYTE_SPACE}]+)[{_BYTE_SPACE}]*".encode("latin-1"))
_BYTE_SPACES = re.compile(f"[{_BYTE_SPACE}]*")


def split_command(line: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """An instruction's word, its flags and the trimmed rest.

    >>> split_command("COPY --link --chown='a b' x y ", "`")
    ('COPY', ('--link', '--chown=a b'), 'x y')
    """
    parts = BLANKS.split(trim_space(line), 1)
    if len(parts) == 1:
        return parts[0], (), ""
    flags, rest = split_flags(parts[1], escape)
    return parts[0], flags, trim_space(rest)


@cache
def _flag_run(escape: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(_BYTE_SPACE + escape)}'\"]+")


@cache
def _quoted_run(escape: str, mark: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(escape + mark)}]+")


def split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """The leading `--` words, quotes and escapes resolved, and what follows them; `--` alone ends them.

    A flag's characters above 0x7f are the bytes of its UTF-8, one character each.
    """
    data = encode(text).lstrip(_BYTE_SPACE.encode("latin-1"))
    if not data.startswith(b"--"):
        return (), decode(data)
    raw = data.decode("latin-1")
    flags: list[str] = []
    place = 0
    while raw.startswith("--", place):
        word, quoted, place = _flag_word(raw, place, escape)
        if word == "--":
            break
        if word or quoted:
            flags.append(word)
        if blanks := _BYTE_SPACES.match(raw, place):
            place = blanks.end()
    return tuple(flags), decode(raw[place:].encode("latin-1"))


def _flag_word(raw: str, place: int, escape: str) -> tuple[str, bool, int]:
    """One word from a place on, whether it has quotes, and where it ends."""
    plain = _flag_run(escape)
    out: list[str] = []
    quoted = False
    mark = ""
    while place < len(raw):
        run = (_quoted_run(escape, mark) if mark else plain).match(raw, place)
        if run:
            out.append(run[0])
            place = run.end()
            continue
        char = raw[place]
        if not mark and char in _BYTE_SPACE:
            break
        place += 1
        if char == mark:
            mark = ""
        elif char == escape:
            out.append(raw[place : place + 1])  # nothing at the end: an escape there is skipped
            place += 1
        else:
            mark, quoted = char, True
    return "".join(out), quoted, min(place, len(raw))


@cache
def _word(escape: str) -> re.Pattern[str]:
    e = re.escape(escape)
    double = f'"(?:[^"{e}]|{e}.)*+(?:"|(?P<inner>{e})?\\Z)'
    return re.compile(
        f"(?:[^{SPACE_CLASS}'\"{e}]++|{e}.|'[^']*+(?:'|\\Z)|{double}|(?P<outer>{e}\\Z))++", re.DOTALL
    )


def split_words(text: str, escape: str) -> list[str]:
    """Words at unquoted white space, their quotes and escapes kept; an escape at the very end is dropped."""
    words: list[str] = []
    for found in _word(escape).finditer(text):
        word = replace_invalid(found[0])
        if found["outer"] or found["inner"]:
            word = word[:-1]
        if word:
            words.append(word)
    return words


def name_values(text: str, escape: str, instruction: str) -> tuple[str, ...]:
    """ENV and LABEL: key, value and "=" for each pair; or key, value and "" for the old form `key value`.

    Raises:
        DockerfileError: a pair without `=`, or a key alone.
    """
    words = split_words(text, escape)
    if not words:
        return ()
    if "=" not in words[0]:
        parts = BLANKS.split(text, 1)
        if len(parts) < 2:
            raise DockerfileError(f"{instruction} must have two arguments")
        return (parts[0], parts[1], "")
    args: list[str] = []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise DockerfileError(
                f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value"
            )
        args += (key, value, "=")
    return tuple(args)


def blank_separated(text: str) -> tuple[str, ...]:
    """Arguments between blanks, as they are."""
    return tuple(BLANKS.split(text)) if text else ()


def json_strings(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None where the text is no JSON array.

    Raises:
        DockerfileError: it is one, with something else than strings in it.
    """
    text = replace_invalid(text.lstrip(SPACE))
    if not text.startswith("["):
        return None
    try:
        items = json.loads(text, parse_constant=_reject, parse_float=finite, parse_int=finite)
    except RecursionError:  # so deep that there is more in it than strings
        raise DockerfileError(_NOT_STRINGS) from None
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in items):
        raise DockerfileError(_NOT_STRINGS)
    return tuple(map(replace_invalid, items))


def _reject(constant: str) -> None:
    """Go's JSON has no NaN and no Infinity."""
    raise ValueError(constant)


def health_type(text: str) -> tuple[str, str]:
    """The first word of HEALTHCHECK, and the rest; ("", "") if there is none."""
    found = _HEALTH_WORD.match(encode(text))
    if found is None:
        return "", ""
    return decode(found[1]), decode(found.string[found.end() :])
