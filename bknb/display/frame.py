"""A table of data, for a page and for a terminal: amounts with units, local times, one line for each row."""

from __future__ import annotations

import datetime
import html
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bknb.display import amounts
from bknb.display.markup import QUIET, fill, words
from bknb.display.palette import SANS
from bknb.display.table import CELL, HEAD

LONGEST = 100
"""Characters of a text."""
_DURATIONS = ("seconds", "saved", "expected", "each")


@dataclass(frozen=True, slots=True)
class Tabular:
    """What is shown of a table: for each column its name, whether it holds numbers, and the values of the rows."""

    names: Sequence[str]
    numeric: Sequence[bool]
    columns: Sequence[Sequence[object]]

    def rows(self) -> Iterator[list[str]]:
        """The cells of each row, as text of any length."""
        for values in zip(*self.columns, strict=True):
            yield [cell(name, value) for name, value in zip(self.names, values, strict=True)]


def cell(name: str, value: object) -> str:
    """A value as people read it; the name of its column says what a number counts. Times are UTC, shown as local ones.

    >>> cell("size", 18_300), cell("in_use", True), cell("saved", 0.25), cell("uses", 3), cell("error", None)
    ('18.3 kB', 'yes', '0.25 s', '3', '')
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "-"
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment.timestamp()))
    if name == "size" and isinstance(value, int):
        return amounts.size(value)
    if isinstance(value, float) and math.isfinite(value):
        return (amounts.seconds(value) if value else "0 s") if name in _DURATIONS else f"{value:g}"
    return str(value)


def page(table: Tabular, note: str, *, left_out: int = 0) -> str:
    """A table as HTML, with a line below it; `left_out` rows are not among these."""
    sides = ["right" if number else "left" for number in table.numeric]
    heads = "".join(
        f'<th scope="col" style="text-align:{side};{HEAD}">{words(name.replace("_", " "))}</th>'
        for name, side in zip(table.names, sides, strict=True)
    )
    rows = "\n".join(f'<tr style="background:none">{"".join(_cells(row, sides))}</tr>' for row in table.rows())
    if left_out:
        note = f"and {amounts.count(left_out, 'more row')}{'; ' if note else ''}{note}"
    below = f'<div style="{QUIET}">{words(note)}</div>' if note else ""
    return (
        f'<div class="tex2jax_ignore mathjax_ignore" style="font-family:{html.escape(SANS)};font-size:13px;'
        f'line-height:1.5;padding:4px 2px">{fill("table", {"heads": heads, "rows": rows})}{below}</div>'
    )


def _cells(row: Sequence[str], sides: Sequence[str]) -> Iterator[str]:
    for text, side in zip(row, sides, strict=True):
        shown = amounts.cut(text, LONGEST)
        title = f' title="{html.escape(text[:1000])}"' if shown != text else ""
        yield f'<td style="{CELL.replace("left", side, 1)}"{title}>{words(shown)}</td>'
