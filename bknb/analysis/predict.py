"""What a build would do, without doing it.

The solver itself decides: it is given the real graph and cache maps, a cache store that writes to memory only
(`ShadowStore`), and operations that make nothing. So a prediction follows BuildKit's rules because a build does,
in the same order and as lazily: a source is asked for its key, and a context for the digest of some files, only
where a build would ask.

    facts = MyFacts()                         # a `Facts`: keys of sources, content of their files
    found = await predict(edges, ShadowStore(index), facts, platform=platform)
    found.verdicts[vertex.digest].outcome     # Foreseen.CACHED, RUN, UNKNOWN, UNNEEDED, FAIL

`ShadowStore(index)` reads a store of the real kind and leaves it as it is. **A replay** makes one `ShadowStore()`
and hands it to each `predict` in turn: what would have run is then in it, as though it had been built, and the
next build finds it.

What a step would write nobody knows, so its content stands in as a digest of its own: equal to itself, since a
later look at the same result gives the same digest, and to nothing else. A step that is keyed by such content and
finds nothing may find something in truth, but only where the cache has a key that everything else leads to, or where
another step of the build comes to the same key (`doubt`). Only then, for what stands on it, and for what is needed
only if it runs, the answer is "known only at run time" (`Foreseen.UNKNOWN`); where every step's content is known,
because it reads contexts only or nothing that runs, there is no such answer.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeAlias

from bknb.analysis.doubt import Doubts
from bknb.analysis.left import may_begin
from bknb.analysis.shadow import PLANNED, ShadowStore
from bknb.cache.contenthash import scratch_digest
from bknb.cache.handles import UncountedRef
from bknb.digest import Digest
from bknb.errors import BknbError, StepError
from bknb.events import Emit, Outcome
from bknb.keys import CacheMapSpec, ContentSelector, DepSpec, cache_map
from bknb.llb.ops import ExecOp, FileOp, Op, PassthroughOp, SourceOp
from bknb.llb.vertex import Edge, Vertex
from bknb.platforms import Platform
from bknb.protocols import CacheMap, CacheRecord, CacheSource, Dep, Job, Operation, Ref, Session
from bknb.solver import Solver
from bknb.solver.graph import ActiveVertex
from bknb.solver.job import Describe, describe

MapOf: TypeAlias = Callable[[Vertex], CacheMapSpec]
"""Gives the cache map of a vertex that is not a source."""


class Foreseen(enum.StrEnum):
    """What a build would do with a vertex."""

    CACHED = "cached"
    RUN = "run"
    """A source: it would be looked at, transferred or pulled."""
    UNKNOWN = "known only at run time"
    UNNEEDED = "not needed"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a build would do with one vertex.

    Attributes:
        outcome: that.
        by: of a cached one: ``definition``, ``content`` or ``remote``; of one that shares the run of another
            vertex with the same key: ``merged``.
        result: the id of the record of a cached one.
        error: of one that would fail before it ran, say because a file is not there.
    """

    outcome: Foreseen
    by: str = ""
    result: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Verdicts by vertex, inputs first.

    Attributes:
        verdicts: what would become of each.
        error: that the build would end with because of a step that cannot begin. How far the others come until then is
            a matter of time: those that would not be begun by themselves are told as not needed.
    """

    verdicts: Mapping[Digest, Verdict] = field(default_factory=dict)
    error: StepError | None = None

    @property
    def unknown(self) -> float:
        """The share of vertices that are known only at run time, from 0 to 1."""
        count = sum(verdict.outcome is Foreseen.UNKNOWN for verdict in self.verdicts.values())
        return count / len(self.verdicts) if self.verdicts else 0.0


class Facts(Protocol):
    """What a prediction cannot work out: the world outside of the graph and the cache."""

    def keys(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """The cache maps of a source, cheap first; asked for only as far as a build would.

        Give a folder of the client a digest that begins with ``random:``, a new one for each build.

        Raises:
            BknbError: it cannot be resolved.
        """

    async def content(
        self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
    ) -> Digest | None:
        """The content key of some files of a vertex; None if it cannot be known without running it.

        Args:
            vertex: any, most often a ``local://`` source.
            result: the record that the cache has of it, or "" for one that would run.
            selectors: which files; () for all.

        Raises:
            PathError: a file is not there.
        """

    def missing(self, results: Collection[str]) -> Collection[str]:
        """Those of some records whose files are not there any more."""


async def predict(
    edges: Sequence[Edge],
    store: ShadowStore,
    facts: Facts,
    *,
    platform: Platform,
    session: Session,
    map_of: MapOf | None = None,
    ignore_cache: bool | Collection[Digest] = False,
    cache_from: Sequence[CacheSource] = (),
    emit: Emit = lambda event: None,
    describe: Describe = describe,
) -> Prediction:
    """Say what building some edges would do.

    Args:
        edges: as a build is given them.
        store: what is in the cache. What would run is saved in it, with results that are nobody's.
        facts: answers what only the outside knows.
        platform: of the worker, for steps that say none.
        session: what `facts` finds as ``job.session``; nothing else asks it.
        map_of: gives a vertex its cache map, if not `bknb.keys.cache_map`.
        ignore_cache: as `Solver.job` takes it.
        cache_from: likewise; they are asked what they have, and nothing of it is brought.
        emit: takes the events of the build as it would go, those of steps without their output.
        describe: as `Solver.job` takes it.
    """
    worker = _Worker(store, facts, map_of or (lambda vertex: cache_map(vertex, platform)), platform)
    error: StepError | None = None
    async with (
        Solver(worker, store) as solver,
        solver.job(
            "plan",
            session,
            emit,
            ignore_cache=ignore_cache,
            describe=describe,
            cache_from=[_Import(source, source.name) for source in cache_from],
        ) as job,  # fmt: skip
    ):
        try:
            for ref in await job.solve_many(edges):
                if ref is not None:
                    await ref.release()
        except StepError as raised:
            if not isinstance(raised.cause, BknbError):
                raise raised.cause from None
            error = raised
        goals = {active for active in job.graph if active.vertex.digest in {edge.vertex.digest for edge in edges}}
        doubts = Doubts(list(job.graph), goals, store, worker.stood_in)
        begins: set[ActiveVertex] = set()
        if error is None:
            begins, unsure = may_begin(list(job.graph), doubts.blind)
            doubts.idle |= unsure - goals
        return Prediction({active.vertex.digest: _verdict(active, doubts, begins) for active in job.graph}, error)


def _verdict(active: ActiveVertex, doubts: Doubts, begins: Collection[ActiveVertex]) -> Verdict:
    outcome = active.status.outcome
    if doubts.about(active):
        return Verdict(Foreseen.UNKNOWN)
    if active in begins:
        return Verdict(Foreseen.RUN)
    match outcome:
        case Outcome.DEFINITION | Outcome.CONTENT | Outcome.REMOTE:
            found = [edge.records[0].result for edge in active.edges.values() if edge.records]
            return Verdict(Foreseen.CACHED, outcome.value, found[0] if found else "")
        case Outcome.RAN | Outcome.CANCELLED:
            return Verdict(Foreseen.RUN)
        case Outcome.MERGED:
            if any(doubts.about(below) for below in active.below):
                return Verdict(Foreseen.UNKNOWN)
            if any(below.ignore_cache for below in active.below) and not active.ignore_cache:
                # It runs too where it is the first to begin: what ignores the cache follows nobody who does not.
                return Verdict(Foreseen.RUN)
            return Verdict(Foreseen.CACHED, outcome.value)
        case Outcome.FAILED:
            return Verdict(Foreseen.FAIL, error=active.status.error)
        case _:
            return Verdict(Foreseen.UNNEEDED)


@dataclass(frozen=True, slots=True)
class _Nobodys(UncountedRef):
    """A Ref to a result of which only the id is known."""

    id: str


@dataclass(slots=True)
class _Import:
    """Another cache, of which nothing is brought."""

    source: CacheSource
    name: str
    gone: set[str] = field(default_factory=set)

    async def open(self) -> None:
        """Bring its index here."""
        await self.source.open()

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        """Keys that a link leads to."""
        return self.source.targets(key, input, output, digest, selector)

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Results of a key, as though they could all be had."""
        found = (record for record in self.source.records(key) if record.result not in self.gone)
        return tuple(replace(record, load=partial(_promise, record.result)) for record in found)

    def forget(self, result: str) -> None:
        """It is not offered again."""
        self.gone.add(result)


async def _promise(result: str) -> Ref:
    return _Nobodys(f"{PLANNED}{result}")


@dataclass(frozen=True, slots=True)
class _Operation:
    """A vertex that is keyed as usual and makes nothing."""

    vertex: Vertex
    cache_map: CacheMap | None
    worker: _Worker

    def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """The source's keys."""
        return self.worker.facts.keys(self.vertex, job)

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """Results that nobody makes."""
        return [_Nobodys(self.worker.store.new_result()) for _ in range(_outputs(self.vertex.op))]


class _Worker:
    """A `protocols.Worker` that runs nothing, and remembers which content stood in for what is not known."""

    def __init__(self, store: ShadowStore, facts: Facts, map_of: MapOf, platform: Platform) -> None:
        self.store = store
        self.facts = facts
        self.platforms = (platform,)
        self.stood_in: set[tuple[Digest, int]] = set()
        self._map_of = map_of
        self._there: set[str] = set()

    def resolve(self, vertex: Vertex) -> Operation:
        """The operation of a vertex."""
        if isinstance(vertex.op, SourceOp):
            return _Operation(vertex, None, self)
        spec = self._map_of(vertex)
        deps = tuple(self._dep(vertex, number, dep) for number, dep in enumerate(spec.deps))
        return _Operation(vertex, CacheMap(spec.digest, deps, spec.plaintext), self)

    def missing(self, results: Collection[str]) -> Collection[str]:
        """Those of some records that are not there, and would not be."""
        unknown = [result for result in results if result not in self._there and not result.startswith(PLANNED)]
        gone = self.facts.missing(unknown) if unknown else ()
        self._there.update(result for result in unknown if result not in gone)
        return gone

    async def load(self, result: str) -> Ref | None:
        """A record that is there, or that would be."""
        return None if self.missing([result]) else _Nobodys(result)

    def _dep(self, vertex: Vertex, number: int, spec: DepSpec) -> Dep:
        selectors = spec.content
        paths = "\0".join(spec.paths)
        if selectors is None:
            return Dep(spec.selector, plaintext=paths)

        async def content(job: Job, ref: Ref | None) -> Digest:
            if ref is None:
                return scratch_digest(selectors)
            given = vertex.inputs[number]
            made = not ref.id.startswith(PLANNED)
            known = await self.facts.content(given.vertex, ref.id if made else "", selectors)
            if known is not None:
                return known
            self.stood_in.add((vertex.digest, number))
            return Digest.of_text(f"content of {ref.id} through {selectors}")

        return Dep(spec.selector, content, plaintext=paths)


def _outputs(op: Op) -> int:
    """How many outputs a vertex may be asked for."""
    match op:
        case ExecOp(mounts=mounts):
            return max([mount.output for mount in mounts], default=0) + 1
        case FileOp(actions=actions):
            return max([action.output for action in actions], default=0) + 1
        case PassthroughOp(outputs=outputs):
            return len(outputs)
        case _:
            return 1
