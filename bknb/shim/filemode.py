"""Modes as chmod(1) takes them: ``u=rwX,go-w``, ``a+r``, ``755``.

The rules are those of the library that BuildKit uses (vendor/github.com/tonistiigi/dchapes-mode), which
follows BSD's setmode(3): no umask; ``X`` executes only directories and what was executable before the
whole text is applied; ``s`` with ``o`` alone and ``t`` with ``o`` alone do nothing.
"""

from __future__ import annotations

import stat

from bknb.shim.server import Failure

_ALL = 0o6777  # set-id bits and permissions; "t" is named by itself
_WHO = {"a": _ALL, "u": 0o4700, "g": 0o2070, "o": 0o0007}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}


def _invalid(text: str) -> Failure:
    return Failure("PathError", f"invalid mode {text!r}")


def apply(text: str, mode: int) -> int:
    """The permission bits (07777) that a file of some mode gets.

    Raises:
        Failure: PathError, the text is no mode.
    """
    if text[:1].isdigit():
        if len(text) > 6 or any(digit not in "01234567" for digit in text) or int(text, 8) > 0o7777:
            raise _invalid(text)
        return int(text, 8)
    now = stat.S_IMODE(mode)
    executable = bool(mode & 0o111) or stat.S_ISDIR(mode)
    for clause in text.split(","):
        now = _clause(text, clause, now, executable)
    return now


def _clause(text: str, clause: str, now: int, executable: bool) -> int:
    """One part between commas: who, then one or more of an operator with permissions."""
    place = who = 0
    while place < len(clause) and clause[place] in _WHO:
        who |= _WHO[clause[place]]
        place += 1
    if place == len(clause):
        raise _invalid(text)
    while place < len(clause):
        operator = clause[place]
        if operator not in "+-=":
            raise _invalid(text)
        end = place + 1
        while end < len(clause) and clause[end] not in "+-=":
            end += 1
        now = _change(text, operator, clause[place + 1 : end], who, now, executable)
        place = end
    return now


def _change(text: str, operator: str, letters: str, who: int, now: int, executable: bool) -> int:
    """One operator."""
    scope = who or _ALL
    bits = 0
    for letter in letters:
        if letter in _PERMISSIONS:
            bits |= _PERMISSIONS[letter] & scope
        elif letter == "X":
            bits |= 0o111 & scope if executable or operator == "-" else 0
        elif letter == "s":
            bits |= 0o6000 & scope if scope & ~0o007 else 0
        elif letter == "t":
            bits |= 0o1000 if scope & ~0o007 else 0
        elif letter in _SHIFT:
            copied = now >> _SHIFT[letter] & 0o7
            bits |= (copied << 6 | copied << 3 | copied) & scope
        else:
            raise _invalid(text)
    if operator == "+":
        return now | bits
    if operator == "-":
        return now & ~bits
    return now & ~scope | bits
