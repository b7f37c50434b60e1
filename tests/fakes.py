"""Stand-ins for a worker and what it makes, for tests of the solver; the cache store is the real one.

A graph is written as text, one vertex a line, inputs by name:

    base = source
    ctx  = local
    a    = run base
    b    = copy a ctx*
    c    = run b ctx/src

``*`` marks an input that is also keyed by its content, ``/part`` one that is read through a selector, ``!``
a vertex that ignores the cache, ``:1`` output 1 of an input. The result of a vertex is a text that says
what it is made of, so that two builds can be compared; `World` holds what sources give, and counts what was
done.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field

from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.events import DecisionEvent, Event, LogEvent, Outcome, VertexEvent
from bknb.llb.marshal import vertex
from bknb.llb.ops import ExecOp, Meta, Mount, Op, SourceOp
from bknb.llb.vertex import Edge, OpMetadata, Vertex
from bknb.platforms import Platform
from bknb.protocols import CacheMap, Dep, Job, Mounts, Ref

OUTPUTS = 3
"""How many results each vertex has."""
MAX_TEXT = 2000
"""Longer texts are told by their digest: those of graphs in which much is shared double with each vertex."""
LINE = re.compile(r"(\w+)\s*=\s*(\w+)(!?)(?:\s+(.*))?$")


@dataclass
class World:
    """What sources give, what has been done, and gates that hold steps up.

    Attributes:
        files: name of a source -> what is in it; of a part, under ``name/part``.
        results: id of a result -> what it is; outlives a solver, as files on a disk do.
        ran: how often each vertex was executed; `mapped`, `hashed`, `loaded` likewise.
        gates: a vertex with a gate waits for it when it runs (``map:NAME``, ``hash:NAME`` for the other two).
        broken: vertices that fail when they run, and with what (``map:NAME``, ``hash:NAME`` likewise).
        alive: how many holds there are on each result.
        turns: how many turns of the loop longer the next thing takes that is done.
    """

    files: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)
    mapped: Counter[str] = field(default_factory=Counter)
    hashed: Counter[str] = field(default_factory=Counter)
    loaded: Counter[str] = field(default_factory=Counter)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    broken: dict[str, BaseException] = field(default_factory=dict)
    alive: Counter[str] = field(default_factory=Counter)
    started: dict[str, asyncio.Event] = field(default_factory=dict)
    running: int = 0
    most_running: int = 0
    nested: dict[str, list[Edge]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    says: dict[str, bytes] = field(default_factory=dict)
    turns: Callable[[], int] = lambda: 0
    count: int = 0

    async def gate(self, name: str) -> None:
        """Say that this was reached, and wait where there is a gate."""
        self.started.setdefault(name, asyncio.Event()).set()
        for _ in range(1 + self.turns()):
            await asyncio.sleep(0)
        if name in self.gates:
            await self.gates[name].wait()

    async def reached(self, name: str) -> None:
        """Wait until a vertex has begun."""
        await self.started.setdefault(name, asyncio.Event()).wait()

    def reset(self) -> None:
        """Count from nothing again."""
        for counter in (self.ran, self.mapped, self.hashed, self.loaded):
            counter.clear()
        self.started.clear()

    @property
    def leaked(self) -> dict[str, int]:
        """Results that are still held."""
        return {id: n for id, n in self.alive.items() if n}


class FakeRef:
    """A counted hold on a text."""

    def __init__(self, world: World, id: str) -> None:
        self.world = world
        self.id = id
        self.released = False
        world.alive[id] += 1

    @property
    def value(self) -> str:
        assert not self.released, f"{self.id} was used after it had been released"
        return self.world.results[self.id]

    def clone(self) -> FakeRef:
        assert not self.released, f"{self.id} was cloned after it had been released"
        return FakeRef(self.world, self.id)

    async def release(self) -> None:
        assert not self.released, f"{self.id} was released twice"
        self.released = True
        self.world.alive[self.id] -= 1

    async def mounts(self) -> Mounts:
        return ()

    async def size(self) -> int:
        return len(self.value)


@dataclass
class FakeOperation:
    """Makes a text of the texts of its inputs."""

    world: World
    vertex: Vertex
    name: str
    kind: str
    marks: tuple[tuple[bool, str], ...]
    """For each input: whether its content counts, and the part that is read."""

    @property
    def cache_map(self) -> CacheMap | None:
        if self.kind in ("source", "local", "image"):
            return None
        own = self.name if self.kind != "same" else ""
        digest = Digest.of_text(f"{own} {self.kind} {len(self.marks)}")  # how inputs are read is no part of it
        deps = tuple(
            Dep(Digest.of_text(part) if part else None, self._hasher(part) if content else None)
            for content, part in self.marks
        )
        return CacheMap(digest, deps, plaintext=f"{self.name} {self.kind}")

    def _hasher(self, part: str):  # type: ignore[no-untyped-def]
        async def content(job: Job, ref: Ref | None) -> Digest:
            self.world.hashed[self.name] += 1
            await self.world.gate(f"hash:{self.name}")
            if f"hash:{self.name}" in self.world.broken:
                raise self.world.broken[f"hash:{self.name}"]
            assert isinstance(ref, FakeRef)
            return Digest.of_text(read(ref.value, part))

        return content

    async def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        self.world.mapped[self.name] += 1
        await self.world.gate(f"map:{self.name}")
        if f"map:{self.name}" in self.world.broken:
            raise self.world.broken[f"map:{self.name}"]
        value = self.world.files.get(self.name, self.name)
        if self.kind == "local":
            yield CacheMap(Digest("random:" + Digest.of_text(f"{job.session.id} {self.name}").hex))
        elif self.kind == "image":
            yield CacheMap(Digest.of_text(f"tag {self.world.files.get(self.name + '/tag', '')}"), final=False)
            self.world.mapped[self.name] += 1
            yield CacheMap(Digest.of_text(f"layers {value}"))
        else:
            yield CacheMap(Digest.of_text(f"source {self.name} {value}"))

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        world = self.world
        world.ran[self.name] += 1
        world.running += 1
        world.most_running = max(world.most_running, world.running)
        try:
            if self.name in world.nested:
                inner = [await job.solve(edge) for edge in world.nested[self.name]]  # type: ignore[attr-defined]
                for ref in inner:
                    await ref.release()
            if self.name in world.says:
                job.emit(LogEvent(self.vertex.digest, 1, world.says[self.name], 0.0))
            await world.gate(self.name)
        finally:
            world.running -= 1
        if self.name in world.broken:
            raise world.broken[self.name]
        if self.kind in ("source", "local", "image"):
            text = world.files.get(self.name, self.name)
        elif self.kind == "scratch":
            return [None] * OUTPUTS
        else:
            parts = [
                read(ref.value, part) if isinstance(ref, FakeRef) else "nothing"
                for ref, (_, part) in zip(inputs, self.marks, strict=True)
            ]
            told = ", ".join(parts)
            if len(told) > MAX_TEXT:
                told = Digest.of_text(told)
            text = f"{'same' if self.kind == 'same' else self.name}({told})"
        return [self._make(f"{text}:{number}" if number else text) for number in range(OUTPUTS)]

    def _make(self, text: str) -> FakeRef:
        self.world.count += 1
        id = f"r{self.world.count}"
        self.world.results[id] = text
        return FakeRef(self.world, id)


def read(value: str, part: str) -> str:
    """A part of a source is what follows ``part=`` in it."""
    if not part:
        return value
    found = re.search(rf"\b{part}=([^ ]*)", value)
    return found[1] if found else value


class FakeWorker:
    """Resolves the vertices of `parse`."""

    platforms = (Platform("linux", "amd64"),)

    def __init__(self, world: World) -> None:
        self.world = world

    def resolve(self, vertex: Vertex) -> FakeOperation:
        kind, name, marks = decode(vertex)
        if name in self.world.unknown:
            raise DefinitionError(f"unknown op {name}")
        return FakeOperation(self.world, vertex, name, kind, marks)

    def missing(self, results: Collection[str]) -> Collection[str]:
        return [result for result in results if result not in self.world.results]

    async def load(self, result: str) -> Ref | None:
        self.world.loaded[result] += 1
        return FakeRef(self.world, result) if result in self.world.results else None


def decode(made: Vertex) -> tuple[str, str, tuple[tuple[bool, str], ...]]:
    """What `parse` wrote into a vertex."""
    if isinstance(made.op, SourceOp):
        kind, _, name = made.op.identifier.partition("://")
        return kind, name.partition("#")[0], ()
    assert isinstance(made.op, ExecOp) and made.op.meta is not None
    kind, name, *marks = made.op.meta.args
    return kind, name, tuple((mark[0] == "*", mark[1:]) for mark in marks)


def parse(text: str, session: str = "s") -> dict[str, Edge]:
    """The edges of a graph written as text, by name."""
    edges: dict[str, Edge] = {}
    for line in filter(str.strip, text.splitlines()):
        found = LINE.match(line.strip())
        assert found is not None, line
        name, kind, ignore, rest = found.groups()
        meta = OpMetadata(ignore_cache=bool(ignore), description={"llb.customname": name})
        inputs, marks = [], []
        for word in (rest or "").split():
            asked = re.fullmatch(r"(\w+)(?::(\d))?(?:/(\w+))?(\*?)", word)
            assert asked is not None, word
            given = edges[asked[1]]
            inputs.append(Edge(given.vertex, int(asked[2])) if asked[2] else given)
            marks.append((asked[4] or " ") + (asked[3] or ""))
        op: Op
        if kind in ("source", "local", "image"):
            suffix = f"#{session}" if kind == "local" else ""
            op = SourceOp(f"{kind}://{name}{suffix}")
        else:
            op = ExecOp(Meta((kind, name, *marks)), (Mount(dest="/"),))
        edges[name] = Edge(vertex(op, inputs, meta=meta))
    return edges


def wide(count: int) -> Edge:
    """Many independent vertices under one."""
    leaves = [Edge(vertex(ExecOp(Meta(("run", f"v{i}")), (Mount(dest="/"),)))) for i in range(count)]
    return Edge(vertex(ExecOp(Meta(("run", "all", *(" " for _ in leaves))), (Mount(dest="/"),)), leaves))


def chains(count: int, length: int) -> Edge:
    """Chains of vertices under one."""
    ends = []
    for i in range(count // length):
        edge = Edge(vertex(ExecOp(Meta(("run", f"v{i}.0")), (Mount(dest="/"),))))
        for j in range(1, length):
            edge = Edge(vertex(ExecOp(Meta(("run", f"v{i}.{j}", " ")), (Mount(dest="/"),)), [edge]))
        ends.append(edge)
    return Edge(vertex(ExecOp(Meta(("run", "all", *(" " for _ in ends))), (Mount(dest="/"),)), ends))


@dataclass
class FakeSession:
    """A client without files or secrets."""

    id: str = "s"

    async def local(self, name: str) -> None: ...

    async def secret(self, id: str) -> None: ...

    async def ssh_socket(self, id: str) -> None: ...

    async def credentials(self, host: str) -> None: ...


class Events(list[Event]):
    """Collects events, and answers questions about them."""

    def outcomes(self) -> dict[str, str]:
        """The last outcome of each vertex, by name."""
        found: dict[str, str] = {}
        for event in self:
            if isinstance(event, VertexEvent):
                found[event.name] = event.outcome.value if isinstance(event.outcome, Outcome) else ""
        return found

    def last(self, name: str) -> VertexEvent:
        """The last event of a vertex."""
        return [e for e in self if isinstance(e, VertexEvent) and e.name == name][-1]

    def decisions(self, made: Vertex) -> list[tuple[str, str, tuple[str, ...]]]:
        """What was decided about a vertex, in order."""
        return [
            (e.phase.value, e.outcome, e.causes)
            for e in self
            if isinstance(e, DecisionEvent) and e.vertex == made.digest
        ]
