"""The streams of `streams.py`, folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bknb.display import BuildView, fold_all
from tests.display import streams


@pytest.fixture
def view() -> Callable[[str], BuildView]:
    """Gives the view of a stream by its name."""
    return lambda name: fold_all(BuildView(), getattr(streams, name)())
