"""The examples in the docstrings of `bknb.display` run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import bknb.display

MODULES = [found.name for found in pkgutil.iter_modules(bknb.display.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    """Each example gives what the docstring says."""
    assert doctest.testmod(importlib.import_module(f"bknb.display.{name}")).failed == 0
