"""The DataFrames that bknb gives: numbers in them, and on a page a table with units.

Commands are full of dollar signs, and a page typesets what stands between two of them as mathematics. A frame of
ours says that it is none, and so does every frame that is made of it. Nothing else of pandas is changed.

This module loads pandas: import it where a frame is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas

from bknb.display.frame import Tabular, page


class Frame(pandas.DataFrame):
    """A DataFrame in which ``$`` is a dollar sign."""

    @property
    def _constructor(self) -> Callable[..., Frame]:
        return Frame

    @property
    def _constructor_sliced(self) -> Callable[..., Column]:
        return Column

    def _repr_html_(self) -> str | None:
        with pandas.option_context("display.html.use_mathjax", False):
            shown: Any = pandas.DataFrame(self)
            page: str | None = shown._repr_html_()
            return page


class Column(pandas.Series):
    """A Series of which DataFrames are made that are a `Frame`, such as the sums of a ``groupby``."""

    @property
    def _constructor(self) -> Callable[..., Column]:
        return Column

    @property
    def _constructor_expanddim(self) -> Callable[..., Frame]:
        return Frame

    def value_counts(self, *args: Any, **options: Any) -> Column:
        """As in pandas, which makes a plain Series of it."""
        return Column(super().value_counts(*args, **options))


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
