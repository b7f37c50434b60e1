"""The cause that `why` names is the mutation that was made: random walks over every kind of change.

The builds run nothing (`light`), everything else in them is the product's own. A trial compares two builds, made one
after the other on the same machine, and asks for exactly the causes that were put between them: kind, subject, the
value before and the value after. Then it counts what followed: each step that ran is counted under a cause that
reaches it, and no step that did not run is.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bknb.analysis import Kind
from bknb.analysis.causes import counts
from bknb.analysis.words import phrase, sentence, text
from tests.analysis.light import World
from tests.analysis.machine import LightBuilder
from tests.analysis.mutations import ALONE, MUTATIONS, TOGETHER, Trial, Walk

TRIALS = 20
"""Trials of one walk."""


def check(trial: Trial) -> None:
    """The answer is what was done, and every step that ran is counted under what reaches it."""
    found = trial.told
    assert trial.after.result.error is None
    assert set(found.causes) == set(trial.causes), trial.after.outcomes()
    ran = {one.step.digest for one in found.steps if one.ran and counts(one.step)}
    reached = {one.step.digest for cause in found.causes for one in found.made_run(cause)}
    assert reached == ran and ran
    line, strong = sentence(found)
    assert strong in line and all(phrase(cause) in text(found) for cause in found.causes)


async def walk(seed: int, folder: Path, made: Counter[Kind]) -> None:
    """Twenty trials in a row: a single mutation of each kind in turn, or two or three at once."""
    rng = random.Random(seed)
    world = World()
    async with LightBuilder(world, folder / str(seed)) as builder:
        here = Walk(builder, world, folder / str(seed), rng)
        kinds = list(MUTATIONS)
        for number in range(TRIALS):
            chosen = [kinds[(seed * TRIALS + number) % len(kinds)]]
            if chosen[0] in TOGETHER and rng.random() < 0.4:
                others = [kind for kind in TOGETHER if kind not in chosen]
                chosen += rng.sample(others, rng.choice((1, 2)))
            check(await here.trial(*(MUTATIONS[kind] for kind in chosen)))
            made.update(chosen)


@pytest.mark.parametrize("seed", range(5))
async def test_the_cause_is_the_mutation(seed: int, tmp_path: Path) -> None:
    """A hundred trials."""
    await walk(seed, tmp_path, Counter())


@pytest.mark.slow
async def test_the_cause_is_the_mutation_a_thousand_times(tmp_path: Path) -> None:
    """A thousand trials, other ones; each kind at least thirty times."""
    made: Counter[Kind] = Counter()
    for seed in range(1000, 1050):
        await walk(seed, tmp_path, made)
    assert set(made) == {*ALONE, *TOGETHER} and min(made.values()) >= 30
