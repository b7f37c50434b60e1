"""What a plan of a Dockerfile says is what the build then does, over random walks through every kind of change.

The walks are those that `why` is held by: the real frontend, keys, content hashes and solver, on machines that run
nothing. Every build of a walk is planned first, those too that import another machine's cache.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bknb.analysis.predict import Foreseen, Prediction, predict
from bknb.analysis.shadow import ShadowStore
from bknb.builder.building import Building
from bknb.builder.stream import Stream
from bknb.cache.contenthash import Tree
from bknb.digest import Digest
from bknb.keys import ContentSelector
from bknb.llb.marshal import walk as below
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, LocalDirectory, SolveRequest
from bknb.session import LocalSession
from tests.analysis.light import AMD64, LightWorker, World, with_folders
from tests.analysis.machine import LightBuild, LightBuilder
from tests.analysis.mutations import MUTATIONS, Walk

TRIALS = 10
"""Trials of one walk; each makes two or three builds."""


@dataclass
class LightFacts:
    """What a plan may know of a machine: its context as it lies there, and results that are there."""

    worker: LightWorker

    def keys(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        return self.worker.resolve(vertex).cache_maps(job)

    async def content(
        self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
    ) -> Digest | None:
        if isinstance(vertex.op, SourceOp) and vertex.op.identifier.startswith("local://"):
            files = sorted(with_folders(self.worker.world.context).items())
            return Tree.of((path, file.entry()) for path, file in files).digest(selectors)
        found = self.worker.results.get(result)
        return found.tree.digest(selectors) if found is not None else None

    def missing(self, results: Collection[str]) -> Collection[str]:
        return self.worker.missing(results)


async def foretell(
    machine: LightBuilder, text: str, opts: Mapping[str, str]
) -> tuple[list[Vertex], Prediction]:
    """Plan a build of a machine."""
    folder = LocalDirectory("/", files={"Dockerfile": text.encode()})
    session = LocalSession({"dockerfile": folder, "context": LocalDirectory("/", files={})}, environ={})
    parts: Any = SimpleNamespace(
        solver=machine.solver, worker=machine.worker, images=machine, frontends={"dockerfile.v0": machine.frontend},
        frontend_version="",
    )  # fmt: skip
    request = SolveRequest("dockerfile.v0", opts)
    frontend = await Building(parts, request, session, Stream(lambda event: None)).compiled()
    edges = [result.edge for result in frontend.results if result.edge is not None]
    found = await predict(
        edges, ShadowStore(machine.store), LightFacts(machine.worker), platform=AMD64, session=session,
        cache_from=[machine.remote] if machine.remote is not None else [],
    )  # fmt: skip
    return [vertex for edge in edges for vertex in below(edge.vertex)], found


def compare(graph: Sequence[Vertex], told: Prediction, built: LightBuild, seen: Counter[Foreseen]) -> None:
    """By name: a context's digest, and those of what stands on it, are of the session."""
    happened: dict[str, Counter[str]] = {}
    for step in built.seen.steps:
        happened.setdefault(step.name, Counter())[step.outcome] += 1
    said: dict[str, list[tuple[Foreseen, str]]] = {}
    for vertex in {vertex.digest: vertex for vertex in graph}.values():
        verdict = told.verdicts[vertex.digest]
        seen[verdict.outcome] += 1
        said.setdefault(vertex.meta.name, []).append((verdict.outcome, verdict.by))
    words = {Foreseen.RUN: "ran", Foreseen.UNNEEDED: "skipped"}
    for name, verdicts in said.items():
        if name and all(outcome is not Foreseen.UNKNOWN for outcome, _ in verdicts):
            assert Counter(by or words[outcome] for outcome, by in verdicts) == happened[name], name


async def walk(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[Foreseen]:
    """Some trials in a row, every build of them foretold."""
    seen: Counter[Foreseen] = Counter()
    original = LightBuilder.build

    async def build(
        self: LightBuilder, text: str, opts: Mapping[str, str] | None = None, **rest: Any
    ) -> LightBuild:
        before = list(self.store._db.iterdump())
        graph, told = await foretell(self, text, opts or {})
        assert list(self.store._db.iterdump()) == before, "a plan writes nothing"
        built = await original(self, text, opts, **rest)
        if built.result.error is None:
            compare(graph, told, built, seen)
        return built

    monkeypatch.setattr(LightBuilder, "build", build)
    rng, world = random.Random(seed), World()
    async with LightBuilder(world, folder / str(seed)) as builder:
        here = Walk(builder, world, folder / str(seed), rng)
        kinds = list(MUTATIONS)
        for number in range(TRIALS):
            await here.trial(MUTATIONS[kinds[(seed * TRIALS + number) % len(kinds)]])
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_planned_happens(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over fifty changes, of every kind that `why` knows."""
    seen = await walk(seed, tmp_path, monkeypatch)
    assert seen[Foreseen.CACHED] and seen[Foreseen.RUN]


@pytest.mark.slow
async def test_what_is_planned_happens_a_thousand_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand changes; what is open stays the exception."""
    seen: Counter[Foreseen] = Counter()
    for seed in range(1000, 1100):
        seen += await walk(seed, tmp_path, monkeypatch)
    assert seen[Foreseen.UNKNOWN] < seen.total() / 4
