"""Go's rules of text, and what stands on them."""

from __future__ import annotations

import doctest
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bknb.frontend.dockerfile import gotext
from bknb.frontend.dockerfile.durations import format_duration, parse_duration
from bknb.frontend.dockerfile.suggest import distance, search

EXAMPLES = "arguments directives durations gotext heredoc lint mounts parser suggest words".split()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str) -> None:
    """Each example prints what the docstring says."""
    module = importlib.import_module(f"bknb.frontend.dockerfile.{name}")
    assert doctest.testmod(module).failed == 0


@given(st.binary(max_size=50))
def test_bytes_survive(data: bytes) -> None:
    """Bytes that are not UTF-8 come back as they were."""
    assert gotext.encode(gotext.decode(data)) == data


def test_lone_surrogates_are_no_crash() -> None:
    """A text of Python's that no file could hold."""
    assert gotext.encode("\ud800") == b"\xed\xa0\x80"


def test_quoting() -> None:
    """As Go's %q: printable text stays, the rest is escaped by kind."""
    assert gotext.quote("é\u00a0\u200b\U000e0001\x7f\\") == r'"é\u00a0\u200b\U000e0001\x7f\\"'


@given(st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1))
def test_durations_come_back(nanoseconds: int) -> None:
    """What Go prints, Go reads."""
    assert parse_duration(format_duration(nanoseconds)) == pytest.approx(nanoseconds, rel=1e-15, abs=1)


@given(st.text(alphabet="ab", max_size=5), st.text(alphabet="ab", max_size=5))
def test_distance_is_a_metric(one: str, other: str) -> None:
    """Zero for the same, the same both ways, at least the difference in length."""
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, other) == distance(other, one) >= abs(len(one) - len(other))


def test_suggestions_keep_the_case_of_the_word() -> None:
    """Lower case for lower case, capitals for capitals, else as compared."""
    assert search("rnu", ["RUN"], case_sensitive=False) == "run"
    assert search("RNU", ["run"], case_sensitive=False) == "RUN"
    assert search("Rnu", ["RUN"], case_sensitive=False) == "run"
