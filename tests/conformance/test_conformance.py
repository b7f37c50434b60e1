"""Every measured case of every group that is answered."""

from __future__ import annotations

import pytest

from tests.conformance.runner import GROUPS, Case, cases, difference, failure, present

CASES = [(group, case) for group in GROUPS if present(group) for case in cases(group)]


@pytest.mark.parametrize(("group", "case"), CASES, ids=[f"{group}:{case.id}" for group, case in CASES])
def test_answer_is_buildkits(group: str, case: Case) -> None:
    """The answer is what BuildKit's code gave."""
    found = failure(group, case)
    assert not found, found


def test_a_difference_is_named() -> None:
    """The first difference is told with its path, whatever its kind."""
    assert difference({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "x"}]}) == ""
    assert difference({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}) == '$.a[1].b: got "x", wanted "y"'
    assert difference({}, {"a": 1}) == "$.a: missing, wanted 1"
    assert difference({"a": 1}, {}) == "$.a: got 1, wanted nothing"
    assert difference([1], [1, 2]).startswith("$: got 1 items, wanted 2")
    assert difference(True, 1) == "$: got true, wanted 1"
