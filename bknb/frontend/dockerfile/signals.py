"""Signals that STOPSIGNAL takes: Linux's names and numbers (moby/sys signal)."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = frozenset(
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS "
    "TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX".split()
) | {f"RTMIN+{n}" for n in range(1, 16)} | {f"RTMAX-{n}" for n in range(1, 15)}  # fmt: skip


def is_signal(text: str) -> bool:
    """Whether a text names a signal: a number but 0, or a name with or without SIG, in any case.

    >>> is_signal("SIGTERM"), is_signal("9"), is_signal("0"), is_signal("SIGFOO")
    (True, True, False, False)
    """
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text) != 0
    return text.upper().removeprefix("SIG") in _NAMES
