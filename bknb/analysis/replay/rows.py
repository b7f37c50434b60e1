"""Which step of one commit's Dockerfile is which of another's: what makes a row of a heat map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

from bknb.analysis.replay.compile import Step
from bknb.analysis.replay.model import Row
from bknb.record import StepRecord, pair

ALIKE: Final = 0.5
"""Share of an instruction that stays the same when it is edited."""
MOST_COMPARED: Final = 400


class Rows:
    """The rows of a history, made while it is walked from the oldest commit on."""

    def __init__(self) -> None:
        self._newest: list[Step] = []
        """By row: the step as it was last."""
        self._order: list[int] = []
        self._by_name: dict[str, int] = {}
        self._before: list[StepRecord] = []
        self._numbers: dict[str, int] = {}
        self._last: tuple[Sequence[Step], list[int]] = ((), [])

    def place(self, steps: Sequence[Step]) -> list[int]:
        """The row of each step of the next commit."""
        if steps is not self._last[0]:
            self._last = steps, self._place(steps)
        return self._last[1]

    def _place(self, steps: Sequence[Step]) -> list[int]:
        now = _records(steps)
        found: dict[str, int] = {}
        for pairing in pair(self._before, now):
            before, after = pairing.before, pairing.after
            if (
                before is not None
                and after is not None
                and (pairing.how != "likeness" or _edited(before, after))
            ):
                found[after.digest] = self._numbers[before.digest]
        taken = set(found.values())
        numbers: list[int] = []
        for step, record in zip(steps, now, strict=True):
            number = found.get(record.digest)
            if number is None:
                known = self._by_name.get(record.digest)
                number = known if known is not None and known not in taken else self._new(numbers)
                taken.add(number)
            numbers.append(number)
            if number == len(self._newest):
                self._newest.append(step)
            self._newest[number] = step
            self._by_name[record.digest] = number
        self._before = now
        self._numbers = dict(zip((record.digest for record in now), numbers, strict=True))
        return numbers

    def _new(self, above: Sequence[int]) -> int:
        """A new row below that of the step before."""
        number = len(self._newest)
        at = self._order.index(above[-1]) + 1 if above else 0
        self._order.insert(at, number)
        return number

    def ordered(self) -> tuple[list[int], list[Row]]:
        """Numbers of rows from top to bottom, and the rows."""
        now = set(self._numbers.values())
        steps = [(number, self._newest[number]) for number in self._order]
        return self._order, [Row(s.stage, s.command, s.line, s.kind, number in now) for number, s in steps]


def _edited(before: StepRecord, after: StepRecord) -> bool:
    """Whether two instructions are alike in more than their keyword."""
    old, new = (record.command.partition(" ")[2][:MOST_COMPARED] for record in (before, after))
    return SequenceMatcher(None, old, new, autojunk=False).ratio() >= ALIKE


def _records(steps: Sequence[Step]) -> list[StepRecord]:
    """Steps as a comparison reads them: the same stage and instruction, counted through, is the same step."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for step in steps:
        place = step.stage, step.command
        found.append(
            StepRecord(
                f"{step.stage}\0{step.command}\0{seen[place]}",
                command=step.command,
                stage=step.stage,
                kind=step.kind,
            )
        )
        seen[place] += 1
    return found
