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
from bknb.analysis.words import phrase, reason, sentence, short, text
from tests.analysis.light import LightFile, World
from tests.analysis.machine import LightBuilder, LightRemote
from tests.analysis.mutations import MUTATIONS, TOGETHER, Trial, Walk
from tests.analysis.project import FILE_ADDRESS

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


async def test_hits_say_where_they_are_from(tmp_path: Path) -> None:
    """Imported, by its files although the definition changed, or as it was; the table says nothing of the last."""
    world = World()
    async with LightBuilder(world, tmp_path / "a") as builder:
        here = Walk(builder, world, tmp_path, random.Random(0))
        first = await here.build()
        async with here.machine(LightRemote(builder)) as other:
            imported = await other.build(here.project.text())
            found = other.explain(first, imported)
            told = {one.step.command: (reason(one), short(one)) for one in found.steps}
            assert told["RUN check 0"] == ("imported from registry.example/app:cache",) * 2
        here.world.context["/other"] = LightFile(data=b"nobody copies it")
        second = builder.explain(first, await here.build())
        told = {one.step.command: (reason(one), short(one)) for one in second.steps}
        assert told["RUN check 0"] == ("same definition, same input", "")
        assert told["COPY src src"] == ("same files", "") and not second.causes and sentence(second) == ("", "")


async def test_the_same_files_cut_a_cause_off(tmp_path: Path) -> None:
    """A step that stands on a copy of what came out the same is not counted under what changed above that."""
    text = (
        "FROM base AS a\nRUN generate {0}\nADD {1} /data/\nFROM base\n"
        "COPY --from=a /data /data\nRUN pack {0}\n"
    )
    world = World(bodies={FILE_ADDRESS: b"x"})
    async with LightBuilder(world, tmp_path) as builder:
        first = await builder.build(text.format(1, FILE_ADDRESS))
        second = await builder.build(text.format(2, FILE_ADDRESS))
        third = await builder.build(text.format(3, FILE_ADDRESS).replace("/data /data", "/data /elsewhere"))
        found, edited = builder.explain(first, second), builder.explain(second, third)
    (cause,) = [cause for cause in edited.causes if cause.subject == "RUN generate 3"]
    assert "COPY" not in " ".join(one.step.command for one in edited.made_run(cause))
    ran = {cause.subject: [one.step.command for one in found.made_run(cause)] for cause in found.causes}
    assert ran == {"RUN generate 2": ["RUN generate 2", f"ADD {FILE_ADDRESS} /data/"], "RUN pack 2": ["RUN pack 2"]}
    (copy,) = [one for one in found.steps if one.step.command.startswith("COPY")]
    assert copy.step.outcome == "content"
    assert reason(copy) == short(copy) == "same files, although RUN generate 2 changed"


@pytest.mark.slow
async def test_the_cause_is_the_mutation_a_thousand_times(tmp_path: Path) -> None:
    """A thousand trials, other ones; each kind at least thirty times."""
    made: Counter[Kind] = Counter()
    for seed in range(1000, 1050):
        await walk(seed, tmp_path, made)
    assert sum(made.values()) > 1000 and min(made[kind] for kind in MUTATIONS) >= 30


def test_every_kind_has_a_mutation() -> None:
    """All but the one that says that lists of files are lost, which a saved build without them has."""
    assert set(Kind) - set(MUTATIONS) == {Kind.FILES}
