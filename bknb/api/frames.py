"""The DataFrames that bknb gives: numbers in them, and on a page a table with units."""

from __future__ import annotations

from typing import Any

import pandas

from bknb.display.frame import Tabular, page
from bknb.frames import Frame


class Table(Frame):
    """A DataFrame as bknb gives it: the values are plain, its page has units, local times and a line of totals.

    What is made of it (rows of it, sums, counts) is a `Frame`, shown as pandas does: in a column ``size`` there may
    then be anything.

    Attributes:
        note: the line below it, or "".
    """

    _metadata = ["note"]  # noqa: RUF012 - pandas reads this list
    note: str = ""

    def _repr_html_(self) -> str | None:
        if not pandas.get_option("display.notebook_repr_html"):
            return None
        most = pandas.get_option("display.max_rows")
        rows = self.head(most) if most else self
        return page(tabular(rows), self.note, left_out=len(self) - len(rows))


def table(frame: pandas.DataFrame, note: str = "") -> Table:
    """The same data as a `Table`."""
    made = Table(frame)
    made.note = note
    return made


def tabular(frame: pandas.DataFrame) -> Tabular:
    """The columns of a frame as they are shown."""
    columns: list[Any] = [frame.iloc[:, number] for number in range(frame.shape[1])]
    numeric = [column.dtype.kind in "iuf" for column in columns]
    return Tabular([str(name) for name in frame.columns], numeric, [
        list(column.astype(object).where(column.notna(), None)) for column in columns
    ])  # fmt: skip
