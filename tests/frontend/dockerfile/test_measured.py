"""Cases beyond the conformance set, measured in the same way and kept in the same form.

Random Dockerfiles and options were given to BuildKit's own code at the commit that the conformance set was
measured with; each case here is the smallest of a kind that was answered differently.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.runner import Case, failure


def _cases() -> list[Case]:
    lines = (Path(__file__).parent / "measured.jsonl").read_text("utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    return [Case(one["id"], one["request"], (one["expected"], *one.get("alternatives", ()))) for one in read]


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.id)
def test_answer_is_buildkits(case: Case) -> None:
    """The answer is what BuildKit's code gave."""
    found = failure("llb", case)
    assert not found, found
