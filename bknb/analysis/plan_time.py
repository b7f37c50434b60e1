"""How long a planned build would take, from how long its steps took before."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bknb.record import Record, StepRecord

_UNNAMED = re.compile(r"(stage-\d+)?")


@dataclass(frozen=True, slots=True)
class Durations:
    """What steps took when they last ran, in seconds: by digest, and by stage and instruction.

    Stages without a name are one place: their numbers change when a stage comes or goes.
    """

    by_digest: Mapping[str, float] = field(default_factory=dict)
    by_place: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Durations:
        """From records, newest first."""
        by_digest: dict[str, float] = {}
        by_place: dict[tuple[str, str], float] = {}
        for record in records:
            for step in record.steps:
                if step.outcome == "ran" and step.completed is not None:
                    by_digest.setdefault(step.digest, step.seconds)
                    by_place.setdefault(
                        _place(step.stage, step.kind, step.command or step.name), step.seconds
                    )
        return cls(by_digest, by_place)

    def find(self, digest: str, stage: str, kind: str, command: str) -> float | None:
        """What this very step took, else the one that stood in its place; None if none ever ran."""
        found = self.by_digest.get(digest)
        return self.by_place.get(_place(stage, kind, command)) if found is None else found


def _place(stage: str, kind: str, command: str) -> tuple[str, str]:
    """Contexts are told apart by nothing but that they are contexts."""
    return ("", "local") if kind == "local" else ("" if _UNNAMED.fullmatch(stage) else stage, command)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a build would take, in seconds.

    Attributes:
        least: if every step that is known only at run time turns out to be cached.
        most: if they all run.
        steps: how many of the steps that would, or may, run have a known time; `strangers` how many have not, which
            count as nothing.
    """

    least: float = 0.0
    most: float = 0.0
    steps: int = 0
    strangers: int = 0


def longest(steps: Sequence[StepRecord], seconds: Mapping[str, float], slots: int | None = None) -> float:
    """The time from the first step's begin to the last one's end.

    A step begins when its inputs are there and a slot is free, those first on which the longest rest hangs.

    Args:
        steps: inputs first.
        seconds: what each takes; nothing if it is not there.
        slots: how many run at once; None for any number.
    """
    rest: dict[str, float] = {}
    users: dict[str, list[str]] = {step.digest: [] for step in steps}
    for step in steps:
        for given in step.inputs:
            if given in users:
                users[given].append(step.digest)
    for step in reversed(steps):
        below = max((rest[user] for user in users[step.digest]), default=0.0)
        rest[step.digest] = below + seconds.get(step.digest, 0.0)
    missing = {step.digest: sum(given in users for given in step.inputs) for step in steps}
    ready = [(-rest[digest], number, digest) for number, digest in enumerate(missing) if not missing[digest]]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now, number = 0.0, len(steps)
    while ready or running:
        while ready and (slots is None or len(running) < slots):
            digest = heapq.heappop(ready)[2]
            heapq.heappush(running, (now + seconds.get(digest, 0.0), digest))
        now, done = heapq.heappop(running)
        for user in users[done]:
            missing[user] -= 1
            if not missing[user]:
                number += 1
                heapq.heappush(ready, (-rest[user], number, user))
    return now
