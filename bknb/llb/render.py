"""Definitions to look at: DOT, SVG, Mermaid, a DataFrame, and ``buildctl debug dump-llb``'s JSON lines.

Everything takes a `Definition`, or a `State`, which is marshalled for this machine's platform.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bknb.digest import Digest
from bknb.errors import UnsupportedError
from bknb.llb.load import load
from bknb.llb.marshal import Definition, walk
from bknb.llb.ops import (
    Action,
    BuildOp,
    CopyAction,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    MkDirAction,
    MkFileAction,
    Op,
    PassthroughOp,
    RmAction,
    SourceOp,
    SymlinkAction,
)
from bknb.llb.vertex import Vertex

if TYPE_CHECKING:
    from bknb.llb.state import State

_SHAPES = {
    SourceOp: ("ellipse", "([", "])"),
    ExecOp: ("box", "[", "]"),
    FileOp: ("note", "[/", "/]"),
    BuildOp: ("box3d", "[[", "]]"),
    MergeOp: ("invtriangle", "{{", "}}"),
    DiffOp: ("doublecircle", "((", "))"),
    PassthroughOp: ("plaintext", "(", ")"),
}


def describe(op: Op) -> str:
    """An op in a few words, as ``dump-llb --dot`` labels it.

    >>> describe(SourceOp("docker-image://docker.io/library/alpine:latest"))
    'docker-image://docker.io/library/alpine:latest'
    """
    match op:
        case SourceOp():
            return op.identifier
        case ExecOp():
            return "" if op.meta is None else " ".join(op.meta.args)
        case FileOp():
            return ",".join(_describe_action(entry.action) for entry in op.actions)
        case BuildOp():
            return "build"
        case MergeOp():
            return "merge"
        case DiffOp():
            return "diff"
        case PassthroughOp():
            return f"passthrough {op.id}"


def _describe_action(action: Action | None) -> str:
    match action:
        case CopyAction():
            return f"copy{{src={action.src}, dest={action.dest}}}"
        case MkFileAction():
            return f"mkfile{{path={action.path}}}"
        case MkDirAction():
            return f"mkdir{{path={action.path}}}"
        case RmAction():
            return f"rm{{path={action.path}}}"
        case SymlinkAction():
            return f"symlink{{oldpath={action.old_path}, newpath={action.new_path}}}"
        case None:
            return ""


def dot(graph: Definition | State) -> str:
    """The graph in the language of Graphviz, inputs above."""
    lines = ["digraph {"]
    vertices = list(_vertices(graph))
    for vertex in vertices:
        shape = _SHAPES[type(vertex.op)][0]
        label = _escape(vertex.meta.name or describe(vertex.op))
        tip = _escape(f"{vertex.digest}\n{describe(vertex.op)}")
        lines.append(f'  "{vertex.digest}" [label="{label}" shape="{shape}" tooltip="{tip}"];')
    for source, target, label in _edges(vertices):
        lines.append(f'  "{source}" -> "{target}" [label="{_escape(label)}"];')
    return "\n".join([*lines, "}"]) + "\n"


def svg(graph: Definition | State) -> str:
    """The graph as a picture; needs Graphviz's ``dot``.

    Raises:
        UnsupportedError: ``dot`` is not there; the message names the package.
    """
    graphviz = importlib.import_module("graphviz")
    try:
        return str(graphviz.Source(dot(graph)).pipe(format="svg", encoding="utf-8"))
    except graphviz.ExecutableNotFound:
        raise UnsupportedError("drawing needs Graphviz: apt-get install graphviz") from None


def mermaid(graph: Definition | State) -> str:
    """The graph as a Mermaid flowchart, which GitHub draws."""
    vertices = list(_vertices(graph))
    names = {vertex.digest: f"v{number}" for number, vertex in enumerate(vertices)}
    lines = ["flowchart TD"]
    for vertex in vertices:
        _, opening, closing = _SHAPES[type(vertex.op)]
        label = _entities(vertex.meta.name or describe(vertex.op))
        lines.append(f'  {names[vertex.digest]}{opening}"{label}"{closing}')
    for source, target, label in _edges(vertices):
        arrow = f'-- "{_entities(label)}" -->' if label else "-->"
        lines.append(f"  {names[source]} {arrow} {names[target]}")
    return "\n".join(lines) + "\n"


def rows(graph: Definition | State) -> list[dict[str, Any]]:
    """One row for each vertex, inputs first: digest, kind, name, what it does, inputs, lines, bytes."""
    return [
        {
            "digest": str(vertex.digest),
            "op": type(vertex.op).__name__.removesuffix("Op").lower(),
            "name": vertex.meta.name,
            "does": describe(vertex.op),
            "inputs": [str(edge.vertex.digest) for edge in vertex.inputs],
            "platform": "" if vertex.platform is None else str(vertex.platform),
            "lines": sorted({r.start_line for place in vertex.locations for r in place.ranges}),
            "bytes": len(vertex.data),
        }
        for vertex in _vertices(graph)
    ]


def frame(graph: Definition | State) -> Any:
    """`rows` as a pandas DataFrame."""
    return importlib.import_module("pandas").DataFrame(rows(graph))


def json_lines(graph: Definition | State) -> str:
    """One line for each op, in the shape of ``buildctl debug dump-llb``; the last is the result."""
    from bknb import gojson
    from bknb.llb.pbjson import dump_op, to_gojson
    from bknb.pb import ops_pb2 as pb

    definition = _definition(graph)
    message = definition.to_message()
    lines = []
    for data in definition.ops:
        digest = Digest.of(data)
        op = dump_op(pb.Op.FromString(data))
        metadata = to_gojson(message.metadata[digest])
        lines.append(gojson.dumps({"Op": op, "Digest": digest, "OpMetadata": metadata}) + "\n")
    return "".join(lines)


def _definition(graph: Definition | State) -> Definition:
    return graph if isinstance(graph, Definition) else graph.marshal()


def _vertices(graph: Definition | State) -> Iterator[Vertex]:
    edge = load(_definition(graph))
    return iter(()) if edge is None else walk(edge.vertex)


def _edges(vertices: list[Vertex]) -> Iterator[tuple[Digest, Digest, str]]:
    """Input, user, and where an exec mounts it."""
    for vertex in vertices:
        mounts = vertex.op.mounts if isinstance(vertex.op, ExecOp) else ()
        places = {mount.input: mount.dest for mount in mounts if mount.dest != "/"}
        for index, edge in enumerate(vertex.inputs):
            yield edge.vertex.digest, vertex.digest, places.get(index, "")


def _escape(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _entities(text: str) -> str:
    for char, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", " ")):
        text = text.replace(char, entity)
    return text
