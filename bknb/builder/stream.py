"""The event stream of one build: numbered, completed with what the frontend knows, kept for the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bknb.digest import Digest
from bknb.events import DecisionEvent, Emit, Event, VertexEvent
from bknb.llb import ops
from bknb.llb.vertex import Edge, Vertex
from bknb.protocols import VertexInfo

_KINDS: Mapping[type, str] = {
    ops.ExecOp: "exec", ops.FileOp: "file", ops.MergeOp: "merge", ops.DiffOp: "diff", ops.BuildOp: "build", ops.PassthroughOp: "passthrough",
}  # fmt: skip
_SCHEMES = {"docker-image": "image", "oci-layout": "image", "local": "local", "git": "git", "http": "http", "https": "http"}


class Stream:
    """Takes the events of every floor and hands them on, complete.

    Calling it is emitting. `events` is everything that was emitted, in order.
    """

    def __init__(self, forward: Emit) -> None:
        self.events: list[Event] = []
        self._forward = forward
        self._known: dict[Digest, VertexEvent] = {}
        self._last: dict[Digest, VertexEvent] = {}
        self._sequence = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, DecisionEvent):
            self._sequence += 1
            event = dataclasses.replace(event, sequence=self._sequence)
        elif isinstance(event, VertexEvent):
            event = self._complete(event)
            self._last[event.digest] = event
        self.events.append(event)
        self._forward(event)

    def announce(self, edge: Edge | None, infos: Mapping[Digest, VertexInfo]) -> None:
        """Say which vertices there are, before any of them starts. One that is known already is not said again."""
        for vertex in vertices(edge):
            if vertex.digest in self._known:
                continue
            info = infos.get(vertex.digest)
            event = VertexEvent(
                vertex.digest,
                vertex.meta.name or describe(vertex),
                inputs=tuple(dict.fromkeys(e.vertex.digest for e in vertex.inputs)),
                kind=kind(vertex),
                stage=info.stage if info else "",
                command=info.command if info else "",
                ranges=info.ranges if info else (),
                progress_group=vertex.meta.progress_group.id if vertex.meta.progress_group else "",
            )
            self._known[vertex.digest] = event
            if vertex.digest not in self._last:
                self(event)

    def note(self, vertex: Digest, text: str) -> None:
        """Add a remark to a vertex."""
        known = self._known.get(vertex)
        if known is not None:
            self._known[vertex] = dataclasses.replace(known, note=text)
        last = self._last.get(vertex)
        if last is not None:
            self(dataclasses.replace(last, note=text))

    def resize(self, vertex: Digest, size: int) -> None:
        """Say how many bytes the result of a vertex adds."""
        last = self._last.get(vertex)
        if last is not None and last.size != size:
            self(dataclasses.replace(last, size=size))

    def last(self, vertex: Digest) -> VertexEvent | None:
        """The state of a vertex as it was said last."""
        return self._last.get(vertex)

    def _complete(self, event: VertexEvent) -> VertexEvent:
        known = self._known.get(event.digest)
        if known is None:
            return event
        return dataclasses.replace(
            event,
            name=known.name,
            inputs=known.inputs,
            kind=event.kind or known.kind,
            stage=known.stage,
            command=known.command,
            ranges=known.ranges,
            progress_group=known.progress_group,
            note=event.note or known.note,
        )


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
            words = {ops.CopyAction: "copy", ops.MkFileAction: "mkfile", ops.MkDirAction: "mkdir", ops.RmAction: "rm", ops.SymlinkAction: "symlink"}
            return ", ".join(f"{words[type(a.action)]} {_path(a.action)}" for a in actions if a.action is not None) or "file"
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
