"""Symbolic file modes, as ``COPY --chmod=u+x`` takes them (dchapes-mode)."""

from __future__ import annotations

import re
from typing import Final

_CLAUSE: Final = re.compile(r"[ugoa]*(?:[+=-](?:[rwxXstugo]*))+")


def check_symbolic_mode(text: str) -> None:
    """Check a comma-separated list of clauses.

    Raises:
        ValueError: in BuildKit's words; without a message where it looks like a number.

    >>> check_symbolic_mode("u=rwX,go=rX")
    """
    if re.match("[0-9]", text):
        raise ValueError("")
    for clause in text.split(","):
        if not _CLAUSE.fullmatch(clause):
            raise ValueError("invalid syntax")
