"""The event stream of one build: completed with what the frontend knows, kept for the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bknb.digest import Digest
from bknb.events import Emit, Event, Outcome, VertexEvent
from bknb.llb import ops
from bknb.llb.vertex import Edge, Vertex
from bknb.protocols import VertexInfo

_KINDS: Mapping[type, str] = {
    ops.ExecOp: "exec", ops.FileOp: "file", ops.MergeOp: "merge", ops.DiffOp: "diff", ops.BuildOp: "build", ops.PassthroughOp: "passthrough",
}  # fmt: skip
_SCHEMES = {
    "docker-image": "image",
    "oci-layout": "image",
    "local": "local",
    "git": "git",
    "http": "http",
    "https": "http",
}


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

    def describe(self, vertex: Vertex) -> Mapping[str, Any]:
        """The fields of a vertex's events that are known before it runs."""
        info = self._infos.get(vertex.digest)
        group = vertex.meta.progress_group
        return {
            "name": vertex.meta.name or describe(vertex),
            "inputs": tuple(dict.fromkeys(edge.vertex.digest for edge in vertex.inputs)),
            "kind": kind(vertex),
            "stage": info.stage if info else "",
            "command": info.command if info else "",
            "ranges": info.ranges
            if info
            else tuple(r for location in vertex.locations for r in location.ranges),
            "progress_group": group.id if group else "",
        }

    def announce(self, edge: Edge | None, outcome: Outcome) -> None:
        """Say which vertices there are below an edge, and what became of them; none is said twice."""
        for vertex in vertices(edge):
            if vertex.digest not in self._last:
                self(VertexEvent(vertex.digest, outcome=outcome, **self.describe(vertex)))

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


def kind(vertex: Vertex) -> str:
    """What sort of op a vertex has, in the words of `VertexEvent.kind`."""
    if isinstance(vertex.op, ops.SourceOp):
        return _SCHEMES.get(vertex.op.identifier.partition("://")[0], "source")
    return _KINDS[type(vertex.op)]


def describe(vertex: Vertex) -> str:
    """A name for a vertex to which nobody gave one (solver/llbsolver/vertex.go, "llbOpName")."""
    match vertex.op:
        case ops.SourceOp(identifier):
            return identifier
        case ops.ExecOp(meta):
            return " ".join(meta.args) if meta else "exec"
        case ops.FileOp(actions):
            words = {
                ops.CopyAction: "copy",
                ops.MkFileAction: "mkfile",
                ops.MkDirAction: "mkdir",
                ops.RmAction: "rm",
                ops.SymlinkAction: "symlink",
            }
            return (
                ", ".join(
                    f"{words[type(a.action)]} {_path(a.action)}" for a in actions if a.action is not None
                )
                or "file"
            )
        case op:
            return _KINDS[type(op)]


def _path(action: ops.Action) -> str:
    match action:
        case ops.CopyAction(src, dest):
            return f"{src} {dest}"
        case ops.SymlinkAction(old, new):
            return f"{new} -> {old}"
        case _:
            return action.path
