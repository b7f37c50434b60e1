"""A definition back into a graph, with nothing taken on trust.

Every digest is computed from the op's bytes, so a cycle cannot be made; what is left to check is that each
input is there, that each index points at something, and that the sizes are sane. Ops that the result does not
need are checked too: BuildKit's loader does the same (``solver/llbsolver/vertex.go``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.llb.decode import decode_op, decode_platform, output_count
from bknb.llb.marshal import MAX_VERTICES, Definition
from bknb.llb.ops import FileOp
from bknb.llb.vertex import Edge, Location, OpMetadata, SourceInfo, Vertex

if TYPE_CHECKING:
    from bknb.pb import ops_pb2 as pb

# Of inputs, mounts or actions in one op.
_MAX_INPUTS: Final = 65_536
_NO_META: Final = OpMetadata()


def terminal(data: bytes) -> tuple[str, int]:
    """Digest and output index that the last op of a definition points at.

    Raises:
        DefinitionError: it does not parse, or does not point at anything.
    """
    message = _parse(data, Digest.of(data))
    if len(message.inputs) != 1 or message.WhichOneof("op") is not None:
        raise DefinitionError(
            "the last op of a definition has one input, the result, and no op", Digest.of(data)
        )
    return message.inputs[0].digest, message.inputs[0].index


def load(definition: Definition) -> Edge | None:
    """See `Definition.to_edge`."""
    if not definition.ops:
        return None
    if len(definition.ops) > MAX_VERTICES:
        raise DefinitionError(f"a definition of {len(definition.ops)} ops is refused: at most {MAX_VERTICES}")
    head, index = terminal(definition.ops[-1])
    messages: dict[Digest, tuple[pb.Op, bytes]] = {}
    for data in definition.ops[:-1]:
        digest = Digest.of(data)
        messages[digest] = (_parse(data, digest), data)
    locations = _Locations(definition)
    vertices: dict[str, Vertex] = {}
    for digest in messages:
        _build(digest, messages, vertices, definition, locations)
    if head not in vertices:
        raise DefinitionError(f"the result {head or 'without a digest'} is not in the definition", head)
    return _edge(vertices[head], index, head)


class Loader:
    """Reads definitions, and keeps the last few: who builds again brings the same bytes.

    Args:
        kept: how many.
    """

    def __init__(self, kept: int = 4) -> None:
        self._kept = kept
        self._edges: dict[Digest, Edge | None] = {}

    def edge(self, data: bytes) -> Edge | None:
        """The graph of a serialised pb.Definition; None for scratch.

        Raises:
            DefinitionError: as `Definition.from_bytes` and `Definition.to_edge` say.
        """
        digest = Digest.of(data)
        known = digest in self._edges
        edge = self._edges.pop(digest) if known else Definition.from_bytes(data).to_edge()
        self._edges[digest] = edge
        while len(self._edges) > self._kept:
            del self._edges[next(iter(self._edges))]
        return edge


def _parse(data: bytes, digest: Digest) -> pb.Op:
    from google.protobuf.message import DecodeError

    from bknb.pb import ops_pb2

    try:
        return ops_pb2.Op.FromString(data)
    except (DecodeError, ValueError) as error:
        raise DefinitionError(f"{digest}: not an op: {error}", digest) from None


def _build(
    head: Digest,
    messages: dict[Digest, tuple[pb.Op, bytes]],
    vertices: dict[str, Vertex],
    definition: Definition,
    locations: _Locations,
) -> None:
    """Make the vertex of an op, its inputs first; ops mostly come in that order, but need not."""
    stack = [head]
    waiting: set[str] = set()
    while stack:
        digest = stack[-1]
        if digest in vertices:
            stack.pop()
            continue
        message, data = messages[digest]
        if len(message.inputs) > _MAX_INPUTS:
            raise DefinitionError(f"{digest}: {len(message.inputs)} inputs are too many", digest)
        missing = [entry.digest for entry in message.inputs if entry.digest not in vertices]
        if not missing:
            stack.pop()
            inputs = tuple(_edge(vertices[entry.digest], entry.index, digest) for entry in message.inputs)
            op = decode_op(message, digest)
            vertices[digest] = Vertex(
                op,
                inputs,
                decode_platform(message),
                tuple(message.constraints.filter),
                data,
                digest,
                definition.meta.get(digest, _NO_META),
                locations.of(digest),
                _file_walk(op, inputs) if isinstance(op, FileOp) else None,
            )
            continue
        if digest in waiting:
            raise DefinitionError(f"{digest}: it is its own ancestor", digest)
        waiting.add(digest)
        for wanted in missing:
            if wanted not in messages:
                raise DefinitionError(f"{digest}: its input {wanted or '(no digest)'} is not there", digest)
            stack.append(Digest(wanted))


def _file_walk(op: FileOp, inputs: tuple[Edge, ...]) -> tuple[Edge, ...]:
    """How the marshaller of a file op visits: the base, then sources from the last action back."""
    order: dict[int, None] = {}
    for action in reversed(op.actions):
        order[op.actions[0].input] = order[action.secondary_input] = None
    order.update(dict.fromkeys(range(len(inputs))))
    return tuple(inputs[index] for index in order if 0 <= index < len(inputs))


def _edge(vertex: Vertex, index: int, user: str) -> Edge:
    if not 0 <= index < max(1, output_count(vertex.op)):
        outputs = output_count(vertex.op)
        raise DefinitionError(
            f"{user}: output {index} of {vertex.digest} is out of range: it has {outputs}", user
        )
    return Edge(vertex, index)


class _Locations:
    """The places of a definition as `Location`s, each file made once."""

    def __init__(self, definition: Definition) -> None:
        self._places = {} if definition.source is None else definition.source.places
        files = () if definition.source is None else definition.source.files
        self._infos = [
            SourceInfo(
                file.filename,
                file.data,
                file.language,
                None if file.definition is None else file.definition.to_edge(),
            )
            for file in files
        ]

    def of(self, digest: Digest) -> tuple[Location, ...]:
        found = []
        for place in self._places.get(digest, ()):
            if not 0 <= place.source_index < len(self._infos):
                raise DefinitionError(f"{digest}: there is no source file {place.source_index}", digest)
            found.append(Location(self._infos[place.source_index], place.ranges))
        return tuple(found)
