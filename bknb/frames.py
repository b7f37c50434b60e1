"""pandas' DataFrame, shown on a page as it is.

Commands are full of dollar signs, and a page typesets what stands between two of them as mathematics. A frame of
ours says that it is none, and so does every frame that is made of it. Nothing else of pandas is changed.

This module loads pandas: import it where a frame is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas


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
