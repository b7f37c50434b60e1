"""The lines of a Dockerfile that are to blame, as buildctl shows them (solver/errdefs/source.go)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from bknb.display.ansi import plain
from bknb.errors import Range

CONTEXT = 1
"""Lines shown above and below; a single line is given one more."""
LONGEST = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a source file; `blamed` says whether the marker stands at it."""

    number: int
    text: str
    blamed: bool


def lines_of(source: str, ranges: Sequence[Range], *, context: int | None = None) -> tuple[Line, ...]:
    """The blamed lines of a source and some around them; empty where the ranges do not fit it."""
    text = _lines(source)
    spans = [(r.start_line, max(r.start_line, r.end_line)) for r in ranges if 1 <= r.start_line <= len(text)]
    if not spans:
        return ()
    first, last = min(a for a, _ in spans), min(len(text), max(b for _, b in spans))
    around = CONTEXT + (first == last) if context is None else context
    top, bottom = max(1, first - around), min(len(text), last + around)
    bottom = min(bottom, top + LONGEST)
    return tuple(
        Line(n, plain(text[n - 1]), any(a <= n <= b for a, b in spans)) for n in range(top, bottom + 1)
    )


@functools.lru_cache(maxsize=4)
def _lines(source: str) -> list[str]:
    """The lines of a source; a build asks for those of one file again and again."""
    return source.splitlines()


def excerpt(source: str, ranges: Sequence[Range], filename: str = "Dockerfile") -> str:
    r"""The lines as a block of text, ``>>>`` at the blamed ones; "" where there are none.

    >>> print(excerpt("FROM a\nRUN false\n", [Range(2)]), end="")
    Dockerfile:2
    --------------------
       1 |     FROM a
       2 | >>> RUN false
    --------------------
    """
    shown = lines_of(source, ranges)
    if not shown:
        return ""
    at = next(line.number for line in shown if line.blamed)
    body = "".join(f" {n.number:3} | {'>>>' if n.blamed else '   '} {n.text}\n" for n in shown)
    return f"{plain(filename) or 'Dockerfile'}:{at}\n{'-' * 20}\n{body}{'-' * 20}\n"
