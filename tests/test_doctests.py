"""The examples in the docstrings of floors 0 and 1 run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.test_architecture import FLOORS, ROOT, SOURCES, part_of


def dotted(path: Path) -> str:
    """The import name of a source file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


LOW = set(f"{FLOORS[0][1]} {FLOORS[1][1]}".split())
MODULES = [name for name in map(dotted, SOURCES) if part_of(name) in LOW and not name.endswith("_pb2")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    """Each example prints what the docstring says."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
