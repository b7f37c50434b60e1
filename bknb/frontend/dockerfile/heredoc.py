"""Here-documents: `<<EOF`, `<<-EOF`, `<<'EOF'`, `3<<EOF` (frontend/dockerfile/parser/parser.go)."""

from __future__ import annotations

import re

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import SPACE_CLASS
from bknb.frontend.dockerfile.nodes import Heredoc
from bknb.frontend.dockerfile.words import Lex

_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)")
_PLAIN = re.compile(r"([0-9]{0,9})<<(-?)([A-Za-z0-9_.-]+)")
_WORD = re.compile(rf"(?:<<[\t\r ]*|[^{SPACE_CLASS}])+")
_SPECIAL = re.compile(r"[$'\"\\\ufeff\udc80-\udcff]")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_MAX_FD = (1 << 64) - 1

_SPLIT = Lex(raw_quotes=True, raw_escapes=True, skip_unset_env=True)
_UNQUOTED = Lex(skip_unset_env=True)
_QUOTED = Lex(raw_quotes=True, skip_unset_env=True)


def parse_heredoc(word: str) -> Heredoc | None:
    """The here-document that a word announces, its content still empty; None if it announces none.

    Raises:
        DockerfileError: the terminator cannot be read.
    """
    if plain := _PLAIN.fullmatch(word):
        return Heredoc(plain[3], "", True, plain[2] == "-", int(plain[1] or "0"))
    found = _HEREDOC.fullmatch(word)
    if found is None or not found[3]:
        return None
    names = _UNQUOTED.process_words(found[3], {})
    if len(names) != 1:
        return None
    quoted = _QUOTED.process_words(found[3], {})
    if len(quoted) != 1:
        raise DockerfileError(f"internal lexing of heredoc produced inconsistent results: {found[3]}")
    return Heredoc(
        name=names[0],
        content="",
        expand=_quotes(names[0]) == _quotes(quoted[0]),
        chomp=found[2] == "-",
        fd=_descriptor(found[1]),
    )


def _descriptor(digits: str) -> int:
    """The number before `<<`, as far as Go's integers go."""
    return _MAX_FD if len(digits) > 20 else min(int(digits or "0"), _MAX_FD)


def heredocs_of_line(line: str) -> list[Heredoc]:
    """The here-documents that an instruction announces, in order; none where its quotes do not match.

    Raises:
        DockerfileError: a terminator cannot be read.
    """
    if _SPECIAL.search(line) is None:  # most are so, and a line of nothing but here-documents is cut faster
        words = _WORD.findall(line)
    else:
        try:
            words = _SPLIT.process_words(line, {})
        except DockerfileError:
            return []
    return [heredoc for word in words if "<<" in word and (heredoc := parse_heredoc(word)) is not None]


def heredoc_argument(word: str) -> Heredoc | None:
    """Like `parse_heredoc`, for an argument that was cut at spaces: what cannot be read is none."""
    try:
        return parse_heredoc(word)
    except DockerfileError:
        return None


def chomped(content: str) -> str:
    r"""The body of a `<<-` document without the tabs that its lines begin with.

    >>> chomped("\tif\n\t\tfi\n")
    'if\nfi\n'
    """
    return _LEADING_TABS.sub("", content)


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
