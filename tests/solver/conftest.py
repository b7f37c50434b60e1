"""A solver over fakes and the real cache store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bknb.cache.store import SqliteCacheStore
from bknb.digest import Digest
from bknb.protocols import CacheSource
from bknb.solver import Slots, Solver
from tests.fakes import Events, FakeRef, FakeSession, FakeWorker, World, parse


@dataclass
class Bench:
    """Builds graphs written as text, one solver for each build unless one is kept."""

    store: SqliteCacheStore
    world: World = field(default_factory=World)
    events: Events = field(default_factory=Events)
    builds: int = 0

    @asynccontextmanager
    async def solver(self, limit: int | None = None) -> AsyncIterator[Solver]:
        """A solver that serves several jobs."""
        async with Solver(FakeWorker(self.world), self.store, limiter=Slots(limit)) as solver:
            yield solver

    async def build(
        self, text: str, target: str = "", *, solver: Solver | None = None, limit: int | None = None,
        session: str = "", ignore_cache: bool | Collection[Digest] = False, parallelism: int | None = None,
        events: Events | None = None, cache_from: Sequence[CacheSource] = (),
    ) -> str:  # fmt: skip
        """Build one vertex of a graph, the last by default; returns what it is made of."""
        if solver is None:
            async with self.solver(limit) as own:
                return await self.build(
                    text, target, solver=own, session=session, ignore_cache=ignore_cache,
                    parallelism=parallelism, events=events, cache_from=cache_from,
                )  # fmt: skip
        self.builds += 1
        session = session or f"s{self.builds}"
        edges = parse(text, session)
        if events is None:
            self.events = events = Events()
        async with solver.job(
            f"b{self.builds}", FakeSession(session), events.append,
            ignore_cache=ignore_cache, parallelism=parallelism, cache_from=cache_from,
        ) as job:  # fmt: skip
            ref = await job.solve(edges[target] if target else list(edges.values())[-1])
            if ref is None:
                return "nothing"
            assert isinstance(ref, FakeRef)
            value = ref.value
            await ref.release()
        return value


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteCacheStore]:
    """The real store, empty."""
    store = SqliteCacheStore(tmp_path / "cache.db")
    yield store
    store.close()


@pytest.fixture
def bench(store: SqliteCacheStore) -> Bench:
    """A solver's surroundings."""
    return Bench(store)
