"""What a build leaves for later questions, and which steps of two builds are the same.

A `Record` is plain data: it is written when a build ends and never changes. Large things are named by digest:
the Dockerfile, the definition, and the events, in which the logs are.
"""

from __future__ import annotations

import difflib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from bknb.plain import Plain, of_json

SCHEMA: Final = 1
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"

_MOST_COMPARED: Final = 10_000

T = TypeVar("T")


def new_id(now: float | None = None) -> str:
    """An id for a build: 25 characters that sort by time, to the millisecond.

    >>> new_id(1.0) < new_id(1.001) < new_id(2.0), len(new_id())
    (True, 25)
    """
    milliseconds = int((time.time() if now is None else now) * 1000 + 0.5)
    return _base32(milliseconds, 10) + _base32(secrets.randbits(75), 15)


def _base32(number: int, length: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(length)))


class StepRecord(Plain, frozen=True, gc=False):
    """One step of a build.

    Attributes:
        digest: of the vertex in the definition.
        solver_digest: the key that the cache knows its result by.
        name: as shown.
        command: its instruction.
        stage: the stage that it belongs to.
        kind: of its op.
        inputs: digests of the vertices that it read.
        outcome: how it came to its result; "" if it never did.
        started: unix seconds; None if it never started.
        completed: the same.
        queue: seconds that it waited for a slot.
        cpu: seconds of its processes.
        peak_memory: of its processes, in bytes.
        size: bytes that its result adds.
        results: record ids of its outputs.
        keys: digests that the cache was asked about it.
        log_size: bytes that it wrote; the text is in the build's events.
        error: one line.
    """

    digest: str
    name: str = ""
    command: str = ""
    stage: str = ""
    kind: str = ""
    inputs: tuple[str, ...] = ()
    solver_digest: str = ""
    outcome: str = ""
    started: float | None = None
    completed: float | None = None
    queue: float = 0.0
    cpu: float = 0.0
    peak_memory: int = 0
    size: int | None = None
    results: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    log_size: int = 0
    error: str = ""

    @property
    def cached(self) -> bool:
        """Whether no work was done because a cache had the result."""
        return self.outcome in ("definition", "content", "remote")

    @property
    def seconds(self) -> float:
        """How long it took; 0.0 if it did not run to its end."""
        return (
            self.completed - self.started if self.started is not None and self.completed is not None else 0.0
        )


class Use(Plain, frozen=True, gc=False):
    """A result that a build took from the cache instead of making it.

    Attributes:
        build: who took it.
        step: digest of the vertex.
        result: id of the record that was used.
        kind: of the hit: ``definition``, ``content``, ``remote`` or ``merged``.
        seconds: what making it took when it was made; None where that is not known.
    """

    build: str
    step: str
    result: str
    kind: str
    seconds: float | None = None


class Record(Plain, frozen=True, gc=False):
    """One build.

    Attributes:
        id: sorts by time.
        title: what people call it.
        targets: name what builds are compared by, the nearest first: the same cell, tag, or Dockerfile.
        notebook: file of the notebook, "" for none.
        cell: id of the cell.
        kernel: id of the kernel.
        options: words, secrets taken out.
        opts: the frontend's options, values that look like secrets taken out.
        context: folder or address.
        git_head: commit of the context, "" for none.
        git_dirty: whether files differ from it; None where that is not known.
        dockerfile: digest of its text; `definition` that of the (first) definition, `events` of the events.
        images: name of each base image -> digest.
        versions: of bknb, Python and the frontend.
        driver: snapshotter; `runtime` what ran steps; `compressor` what wrote layers.
        result: digest of what was made.
        error: one line, "" if it succeeded.
        veiled: digest of a vertex in `definition` -> the one that it was built by, where a value was taken out.
    """

    id: str
    started: float = 0.0
    finished: float = 0.0
    title: str = ""
    targets: tuple[str, ...] = ()
    notebook: str = ""
    cell: str = ""
    kernel: str = ""
    options: str = ""
    opts: Mapping[str, str] = msgspec.field(default_factory=dict)
    context: str = ""
    git_head: str = ""
    git_dirty: bool | None = None
    dockerfile: str = ""
    definition: str = ""
    events: str = ""
    images: Mapping[str, str] = msgspec.field(default_factory=dict)
    versions: Mapping[str, str] = msgspec.field(default_factory=dict)
    driver: str = ""
    runtime: str = ""
    compressor: str = ""
    result: str = ""
    error: str = ""
    cancelled: bool = False
    steps: tuple[StepRecord, ...] = ()
    veiled: Mapping[str, str] = msgspec.field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """The record that `to_json` wrote; fields of a newer version are passed over.

        >>> Record.from_json(Record("a", steps=(StepRecord("d", inputs=("e",)),)).to_json()).steps[0].inputs
        ('e',)

        Raises:
            ValueError: not a record.
        """
        try:
            return of_json(values, cls)
        except ValueError as error:
            raise ValueError(f"not the record of a build: {error}") from None


@dataclass(frozen=True, slots=True)
class Pair:
    """The same step in two builds; None where one has it and the other not. `how` they were matched, in a word."""

    before: StepRecord | None
    after: StepRecord | None
    how: str


def pair(before: Sequence[StepRecord], after: Sequence[StepRecord]) -> list[Pair]:
    """Which step of one build is which of another, in the order of the second.

    Steps of one digest are the same. Others are looked for in the stage of that name: first the longest common
    runs of instructions, then what is left by likeness of text. What only the first has comes last.
    """
    found: dict[int, tuple[int, str]] = {}
    taken: set[int] = set()

    def match(a: int, b: int, how: str) -> None:
        found[b] = (a, how)
        taken.add(a)

    by_digest = {step.digest: i for i, step in enumerate(before)}
    for b, step in enumerate(after):
        a = by_digest.get(step.digest)
        if a is not None and a not in taken:
            match(a, b, "digest")
    for stage in dict.fromkeys(step.stage for step in after):
        left = [i for i, step in enumerate(before) if step.stage == stage and i not in taken]
        right = [i for i, step in enumerate(after) if step.stage == stage and i not in found]
        texts = [_text(before[i]) for i in left], [_text(after[i]) for i in right]
        for block in difflib.SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks():
            for offset in range(block.size):
                match(left[block.a + offset], right[block.b + offset], "text")
        _match_alike(before, after, left, right, taken, found, match)
    pairs = [
        Pair(before[found[b][0]], step, found[b][1]) if b in found else Pair(None, step, "new")
        for b, step in enumerate(after)
    ]
    return pairs + [Pair(step, None, "gone") for i, step in enumerate(before) if i not in taken]


def _match_alike(
    before: Sequence[StepRecord],
    after: Sequence[StepRecord],
    left: Sequence[int],
    right: Sequence[int],
    taken: set[int],
    found: Mapping[int, object],
    match: Any,
) -> None:
    """What is left, the most alike first; unlike kinds and texts with little in common stay apart."""
    scores: list[tuple[float, int, int, int]] = []
    if len(left) * len(right) > _MOST_COMPARED:
        return
    for b in [i for i in right if i not in found]:
        for a in [i for i in left if i not in taken]:
            if before[a].kind == after[b].kind:
                ratio = difflib.SequenceMatcher(None, _text(before[a]), _text(after[b])).ratio()
                if ratio >= 0.5:
                    scores.append((-ratio, abs(a - b), a, b))
    for _, _, a, b in sorted(scores):
        if a not in taken and b not in found:
            match(a, b, "likeness")


def _text(step: StepRecord) -> str:
    return step.command or step.name
