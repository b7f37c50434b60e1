"""Runs the conformance cases and says, for each that fails, what differs first.

`cases/*.jsonl` was measured with BuildKit's own code; a case is right when the answer is `expected`, or one
of `alternatives` where BuildKit itself does not always say the same.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance import adapter

HERE = Path(__file__).parent
GROUPS = ("llb", "parse", "shlex", "ignore", "contenthash", "cachemap", "sourcekey")
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Case:
    """One measured case."""

    id: str
    request: dict[str, Any]
    answers: tuple[dict[str, Any], ...]


def present(group: str) -> bool:
    """Whether there is a translator for a group."""
    return (HERE / "groups" / f"{group}.py").exists()


def cases(group: str) -> Iterator[Case]:
    """The cases of a group: `cases/GROUP.jsonl` and `cases/GROUP_*.jsonl`."""
    for path in sorted((HERE / "cases").glob(f"{group}*.jsonl")):
        if path.stem != group and not path.stem.startswith(f"{group}_"):
            continue
        for line in path.read_text("utf-8").splitlines():
            case = json.loads(line)
            yield Case(case["id"], case["request"], (case["expected"], *case.get("alternatives", ())))


def failure(group: str, case: Case) -> str:
    """The first difference between a case's answer and what BuildKit said; "" if there is none."""
    try:
        answer = getattr(adapter, group)(case.request)
        answer = json.loads(json.dumps(answer, default=str))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    differences = [difference(_comparable(answer), _comparable(wanted)) for wanted in case.answers]
    return "" if "" in differences else differences[0]


def _comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Warnings are compared as a multiset."""
    if not isinstance(answer.get("warnings"), list):
        return answer
    return {**answer, "warnings": sorted(answer["warnings"], key=lambda one: json.dumps(one, sort_keys=True))}


def difference(got: Any, wanted: Any, path: str = "$") -> str:
    """The first difference between two JSON values, with its path; "" if they are equal.

    >>> difference({"a": [1, 2]}, {"a": [1, 3]})
    '$.a[1]: got 2, wanted 3'
    """
    if isinstance(got, dict) and isinstance(wanted, dict):
        for name in [*wanted, *(name for name in got if name not in wanted)]:
            if name not in got:
                return f"{path}.{name}: missing, wanted {_short(wanted[name])}"
            if name not in wanted:
                return f"{path}.{name}: got {_short(got[name])}, wanted nothing"
            if found := difference(got[name], wanted[name], f"{path}.{name}"):
                return found
        return ""
    if isinstance(got, list) and isinstance(wanted, list):
        for index, (one, other) in enumerate(zip(got, wanted, strict=False)):
            if found := difference(one, other, f"{path}[{index}]"):
                return found
        if len(got) != len(wanted):
            extra: Sequence[Any] = max(got, wanted, key=len)[min(len(got), len(wanted)) :]
            counts = f"got {len(got)} items, wanted {len(wanted)}"
            return f"{path}: {counts}; the first without a match is {_short(extra[0])}"
        return ""
    if type(got) is type(wanted) and got == wanted:
        return ""
    return f"{path}: got {_short(got)}, wanted {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
