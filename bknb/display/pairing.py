"""Which step of a build is which step of the one before.

A digest changes with everything that stands before an instruction, so it cannot tell that "the same" step ran
again. People see the same step where the stage has the same name and the instruction the same text, or nearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from bknb.digest import Digest
from bknb.display.boxes import lanes
from bknb.display.model import BuildView, StepView

LIKE = 0.6
"""Share of a text that must be common for two instructions to be one that was edited."""
MOST_COMPARED = 400
"""Characters of an instruction that are compared."""


def pair(before: BuildView, after: BuildView) -> dict[Digest, Digest]:
    """Steps of `after` to their counterparts in `before`.

    Stages are paired by name; in a stage the longest common runs of instructions are paired, then, between
    them and in order, instructions that are alike. No step has two counterparts.
    """
    old = dict(lanes(before.shown))
    found: dict[Digest, Digest] = {}
    for name, steps in lanes(after.shown):
        found.update(_pair(old.get(name, []), steps))
    return found


def _pair(old: Sequence[StepView], new: Sequence[StepView]) -> dict[Digest, Digest]:
    matcher = SequenceMatcher(None, [s.label for s in old], [s.label for s in new], autojunk=False)
    found: dict[Digest, Digest] = {}
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            found.update((n.digest, o.digest) for o, n in zip(old[a0:a1], new[b0:b1], strict=True))
        elif tag == "replace":
            found.update(_alike(old[a0:a1], new[b0:b1]))
    return found


def _alike(old: Sequence[StepView], new: Sequence[StepView]) -> dict[Digest, Digest]:
    """Pairs edited instructions, each with the first like it that comes after the last pair."""
    found: dict[Digest, Digest] = {}
    at = 0
    for step in new:
        for index in range(at, len(old)):
            if _like(old[index].label, step.label):
                found[step.digest] = old[index].digest
                at = index + 1
                break
    return found


def _like(a: str, b: str) -> bool:
    if a.split(" ", 1)[0] != b.split(" ", 1)[0]:
        return False
    matcher = SequenceMatcher(None, a[:MOST_COMPARED], b[:MOST_COMPARED], autojunk=False)
    return matcher.real_quick_ratio() >= LIKE and matcher.ratio() >= LIKE
