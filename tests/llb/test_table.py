"""The table in `bknb.llb`'s docstring: nothing of Go's package client/llb is missing, and every name beside it exists.

`go_names.txt` lists what the package exports (commit 73ed6825): types, functions, constants, and the methods of State,
ExecState, FileAction, Definition and SourceMap.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bknb import llb

GO_NAMES = Path(__file__).with_name("go_names.txt").read_text().split()


def table() -> tuple[str, str]:
    """The left and the right column of the table."""
    assert llb.__doc__ is not None
    lines = llb.__doc__.splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"=+  =+", line)]
    width = lines[rules[0]].index(" ")
    rows = lines[rules[1] + 1 : rules[2]]
    return "\n".join(row[:width] for row in rows), "\n".join(row[width:] for row in rows)


def here() -> list[str]:
    """The names of the right column."""
    return list(dict.fromkeys(re.findall(r"`([\w.]+)`", table()[1])))


def test_nothing_of_go_s_package_is_missing() -> None:
    """Each exported name stands in the left column."""
    left = set(re.split(r"[\s,]+", table()[0]))
    assert [name for name in GO_NAMES if name not in left] == []


@pytest.mark.parametrize("name", here())
def test_name_exists(name: str) -> None:
    """Each name of the right column is the package's own, and public."""
    first, _, rest = name.partition(".")
    assert first in llb.__all__
    found = getattr(llb, first)
    assert not rest or hasattr(found, rest)


def test_everything_public_is_in_the_table() -> None:
    """What can be imported is told about."""
    told = {name.split(".")[0] for name in here()} | {"Op"}
    assert set(llb.__all__) <= told
