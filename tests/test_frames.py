"""A page typesets nothing of a frame of ours as mathematics, nor of what a user makes of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pandas
import pytest

from bknb.api.frames import Frame, table

COMMANDS = ['RUN name="$name"; echo $name', "RUN echo $HOME $PATH", "RUN echo $HOME $PATH"]


def frame() -> Any:
    """Commands with dollar signs, as tables of bknb have them."""
    return table(pandas.DataFrame({"command": COMMANDS, "kind": list("abb"), "size": [18_300, 2, 3]}), "3 records")


@pytest.mark.parametrize(
    "derive",
    [
        lambda one: one,
        lambda one: one[one["size"] > 1],
        lambda one: one[["command"]],
        lambda one: one.sort_values("size").head(2),
        lambda one: one.groupby("command").sum(),
        lambda one: one.groupby("command")["size"].sum().sort_values().to_frame(),
        lambda one: one.groupby(["command", "kind"])["size"].max().reset_index(),
        lambda one: one.groupby("command")["size"].agg(["sum", "mean"]),
        lambda one: one.command.value_counts().to_frame(),
        lambda one: one.merge(one, on="command"),
        lambda one: one.pivot_table(index="command", columns="kind", values="size"),
        lambda one: pandas.concat([one, one]),
        lambda one: pickle.loads(pickle.dumps(one)),
    ],
)  # fmt: skip
def test_a_dollar_sign_is_one(derive: Callable[[Any], Any]) -> None:
    """The page of the frame is marked as none of mathematics, and pandas' option is as it was."""
    made = derive(frame())
    assert isinstance(made, Frame)
    assert "mathjax_ignore" in (made._repr_html_() or "")
    assert pandas.get_option("display.html.use_mathjax")


def test_the_page_has_units_and_the_frame_has_numbers() -> None:
    """Sizes, durations, truths and times are shown as people read them; what is made of the frame is shown plain."""
    made = table(
        pandas.DataFrame({
            "size": [18_300], "in_use": [True], "saved": [0.25], "error": [None],
            "created": [pandas.Timestamp(1_700_000_000, unit="s")],
        }),
        "1 record, 18.3 kB",
    )  # fmt: skip
    page = made._repr_html_() or ""
    assert all(f">{text}<" in page for text in ("18.3 kB", "yes", "0.25 s", "in use", "1 record, 18.3 kB"))
    assert ">2023-11-1" in page and "NaT" not in page and "None" not in page
    assert made["size"].sum() == 18_300 and made.in_use.all()
    assert ">1<" in (made.groupby("in_use").count()._repr_html_() or ""), "a count is no size"


def test_a_long_frame_says_how_much_is_left_out() -> None:
    """As many rows as pandas would show, and how many there are beside."""
    page = table(pandas.DataFrame({"uses": range(100_000)}))._repr_html_() or ""
    assert page.count("<tr") == pandas.get_option("display.max_rows") + 1
    assert "99,940 more rows" in page
