"""The event stream of one build: completed with what the frontend knows, kept for the record."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from bknb.digest import Digest
from bknb.events import Emit, Event, Outcome, VertexEvent
from bknb.llb.vertex import Edge, Vertex
from bknb.protocols import VertexInfo
from bknb.solver.job import describe


class Stream:
    """Takes the events of every floor and hands them on.

    Calling it is emitting. `events` is everything that was emitted, in order.
    """

    def __init__(self, forward: Emit) -> None:
        self.events: list[Event] = []
        self._forward = forward
        self._infos: Mapping[Digest, VertexInfo] = {}
        self._last: dict[Digest, VertexEvent] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, VertexEvent):
            self._last[event.digest] = event
        self.events.append(event)
        self._forward(event)

    def know(self, infos: Mapping[Digest, VertexInfo]) -> None:
        """Take what a frontend knows of the vertices that it made."""
        self._infos = infos

    def describe(self, vertex: Vertex) -> VertexEvent:
        """A vertex as it is known before it runs."""
        known = describe(vertex)
        info = self._infos.get(vertex.digest) if self._infos else None
        if info is None:
            return known
        return replace(known, stage=info.stage, command=info.command, ranges=tuple(info.ranges))

    def announce(self, edge: Edge | None, outcome: Outcome) -> None:
        """Say which vertices there are below an edge, and what became of them; none is said twice."""
        for vertex in vertices(edge):
            if vertex.digest not in self._last:
                self(replace(self.describe(vertex), outcome=outcome))

    def last(self, vertex: Digest) -> VertexEvent | None:
        """The state of a vertex as it was said last."""
        return self._last.get(vertex)


def vertices(edge: Edge | None) -> list[Vertex]:
    """Every vertex below an edge, inputs first."""
    if edge is None:
        return []
    found: dict[Digest, Vertex] = {}
    stack: list[tuple[Vertex, bool]] = [(edge.vertex, False)]
    while stack:
        vertex, inputs_done = stack.pop()
        if vertex.digest in found:
            continue
        if inputs_done:
            found[vertex.digest] = vertex
            continue
        stack.append((vertex, True))
        stack.extend((e.vertex, False) for e in reversed(vertex.inputs) if e.vertex.digest not in found)
    return list(found.values())
