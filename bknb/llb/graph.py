"""What a `State` points at before it is marshalled: vertices without bytes.

A vertex's bytes hold its platform and its inputs' digests, and the platform may be given as late as
``State.marshal(platform=...)``. So building a State makes `Pending` vertices, and `build` turns all that a
result needs into real ones, inputs first, without recursion.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bknb.errors import DefinitionError
from bknb.llb.marshal import MAX_BYTES, merge_metadata, vertex
from bknb.llb.ops import Op
from bknb.llb.vertex import Edge, LinuxResources, Location, OpMetadata, ProgressGroup, Vertex
from bknb.platforms import Platform

if TYPE_CHECKING:
    from bknb.llb.state import State


@dataclass(frozen=True, slots=True)
class Constraints:
    """What can be said of any op beside what it does.

    Attributes:
        platform: overrides the state's and the one that is marshalled for.
        require: filters that a worker must pass.
        name: shown for the vertex.
        description: further texts that BuildKit carries and does not read.
        ignore_cache: always run it.
        export_cache: whether its result goes into an exported cache; None for the default.
        progress_group: shown as one with the others of the group.
        resources: limits of an exec.
        caps: capabilities that the solver must have, beside those that the op itself asks for.
        locations: where it comes from.
    """

    platform: Platform | None = None
    require: tuple[str, ...] = ()
    name: str = ""
    description: Mapping[str, str] = field(default_factory=dict)
    ignore_cache: bool = False
    export_cache: bool | None = None
    progress_group: ProgressGroup | None = None
    resources: LinuxResources | None = None
    caps: frozenset[str] = frozenset()
    locations: tuple[Location, ...] = ()

    def metadata(self, caps: Iterable[str] = ()) -> OpMetadata:
        """As metadata of an op that needs these capabilities too."""
        named = {"llb.customname": self.name} if self.name else {}
        return OpMetadata(
            ignore_cache=self.ignore_cache,
            description={**self.description, **named},
            export_cache=self.export_cache,
            caps=self.caps.union(caps),
            progress_group=self.progress_group,
            linux_resources=self.resources,
        )

    def named(self, name: str) -> Constraints:
        """With a name, if one is given."""
        return replace(self, name=name) if name else self


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a graph is marshalled with.

    Attributes:
        platform: for ops that have none of their own.
        constraints: apply to every op.
        caps: what the solver that will get it can do; None when not known.
        unique_id: goes into local sources that name no session.
    """

    platform: Platform
    constraints: Constraints = Constraints()
    caps: Collection[str] | None = None
    unique_id: str = ""


class Pending(abc.ABC):
    """A vertex that has no bytes yet. Compared by identity."""

    __slots__ = ("constraints",)

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints

    @abc.abstractmethod
    def sources(self) -> Iterable[Output]:
        """The outputs that it works on, in the order in which a marshaller visits them."""

    def states(self) -> Iterable[State]:
        """The states whose settings it reads when it is made."""
        return ()

    @abc.abstractmethod
    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        """The vertex, now that its sources have theirs.

        Raises:
            DefinitionError: it does not hold together.
        """

    def finish(
        self,
        op: Op,
        inputs: Iterable[Edge],
        edges: Edges,
        defaults: Defaults,
        caps: Iterable[str] = (),
        platform: Platform | None = None,
    ) -> Vertex:
        """Make the vertex with the constraints of this one over those of the whole graph."""
        given = defaults.constraints
        meta = self.constraints.metadata(caps)
        if given.name or given.description or given.ignore_cache or given.export_cache is not None:
            meta = merge_metadata(given.metadata(), meta)
        walk = tuple(edges.of(output) for output in self.sources())
        return vertex(
            op,
            inputs,
            platform,
            given.require + self.constraints.require,
            meta,
            self.constraints.locations,
            walk,
        )


class Output:
    """One output of a pending vertex. Compared by identity."""

    __slots__ = ("error", "index", "pending", "platform")

    def __init__(
        self, pending: Pending, index: int = 0, *, platform: Platform | None = None, error: str = ""
    ) -> None:
        self.pending = pending
        self.index = index
        self.platform = platform
        self.error = error


class Existing(Pending):
    """A vertex that has bytes already: part of a definition from elsewhere."""

    __slots__ = ("vertex",)

    def __init__(self, existing: Vertex) -> None:
        super().__init__(Constraints())
        self.vertex = existing

    def sources(self) -> Iterable[Output]:
        return ()

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        return self.vertex


class Deferred(Pending):
    """A state that a coroutine will make; stands for its output.

    Args:
        make_state: given the (resolved) state it was called on, gives another.
        base: that state.
    """

    __slots__ = ("base", "make_state", "target")

    def __init__(self, make_state: Callable[[State], Awaitable[State]], base: State) -> None:
        super().__init__(Constraints())
        self.make_state = make_state
        self.base = base
        self.target: State | None = None

    def sources(self) -> Iterable[Output]:
        output = self.result.output
        return () if output is None else (output,)

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        raise AssertionError("edges look through a deferred state")

    @property
    def result(self) -> State:
        """The state it has become.

        Raises:
            DefinitionError: nobody has awaited it.
        """
        if self.target is None:
            raise DefinitionError("this state is made by a coroutine: use `await state.marshal_async()`")
        return self.target

    async def resolve(self) -> None:
        """Run the coroutine, once."""
        if self.target is None:
            self.target = await self.make_state(self.base)


class Edges:
    """The vertices made so far."""

    def __init__(self) -> None:
        self._vertices: dict[int, Vertex] = {}

    def __contains__(self, pending: Pending) -> bool:
        return id(pending) in self._vertices

    def add(self, pending: Pending, made: Vertex) -> None:
        """Note the vertex of a pending one."""
        self._vertices[id(pending)] = made

    def vertex(self, pending: Pending) -> Vertex:
        """The vertex of a pending one."""
        return self._vertices[id(pending)]

    def of(self, output: Output) -> Edge:
        """The edge of an output whose vertex is made.

        Raises:
            DefinitionError: it is one that cannot be used.
        """
        output = _settled(output)
        if output.error:
            raise DefinitionError(output.error)
        return Edge(self._vertices[id(output.pending)], output.index)


def _settled(output: Output) -> Output:
    while isinstance(output.pending, Deferred):
        target = output.pending.result.output
        if target is None:
            raise DefinitionError("a state that was deferred has become scratch, where an input is needed")
        output = target
    return output


def build(head: Output, defaults: Defaults) -> tuple[Edge, Edges]:
    """Make the vertex of an output and of all that it needs.

    Raises:
        DefinitionError: a vertex does not hold together.
    """
    edges = Edges()
    head = _settled(head)
    size = 0
    for pending in order(head.pending):
        if not isinstance(pending, Deferred):
            made = pending.make(edges, defaults)
            edges.add(pending, made)
            size += len(made.data)
            if size > MAX_BYTES:
                raise DefinitionError(f"the graph takes more than {MAX_BYTES >> 20} MiB", made.digest)
    return edges.of(head), edges


def order(head: Pending) -> Iterator[Pending]:
    """Everything that a pending vertex needs, and itself, inputs first."""
    seen = {id(head)}
    stack = [(head, iter(tuple(head.sources())))]
    while stack:
        current, rest = stack[-1]
        below = next(rest, None)
        if below is None:
            stack.pop()
            yield current
        elif id(below.pending) not in seen:
            seen.add(id(below.pending))
            stack.append((below.pending, iter(tuple(below.pending.sources()))))


class Inputs:
    """The input list of an op that names each input once."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self._indexes: dict[tuple[str, int], int] = {}

    def index(self, edge: Edge) -> int:
        """Where an edge stands in the list; appended when new."""
        key = (edge.vertex.digest, edge.index)
        found = self._indexes.setdefault(key, len(self.edges))
        if found == len(self.edges):
            self.edges.append(edge)
        return found
