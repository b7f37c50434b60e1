"""From the graph to the wire, and back.

`vertex` makes one vertex, its bytes and digest. `Definition` is a whole graph as BuildKit's clients send
it: ops in topological order, the last only a pointer at the result; what is known of each op; where it
comes from.

The order, and how metadata of equal vertices are joined, follow ``client/llb/state.go``: depth first over
the inputs of each vertex *object*; two objects with one digest are one op, the later one's words win.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from bknb.digest import Digest
from bknb.errors import DefinitionError, Range
from bknb.llb.encode import encode_input, encode_op
from bknb.llb.ops import Op
from bknb.llb.sourcemap import Collector, Place, SourceFile, SourceMap
from bknb.llb.vertex import Edge, LinuxResources, Location, OpMetadata, ProgressGroup, Vertex
from bknb.platforms import Platform

_NO_UTF8: Final = re.compile("[\ud800-\udfff]")
# A definition from outside is refused beyond these: BuildKit's own transport takes 16 MiB messages, and an op
# that has an input is never smaller than 70 bytes.
MAX_BYTES: Final = 128 << 20
MAX_VERTICES: Final = 200_000


def vertex(
    op: Op,
    inputs: Iterable[Edge] = (),
    platform: Platform | None = None,
    constraints: tuple[str, ...] = (),
    meta: OpMetadata = OpMetadata(),  # noqa: B008 - frozen
    locations: tuple[Location, ...] = (),
    walk: tuple[Edge, ...] | None = None,
) -> Vertex:
    """Make a vertex: the only place where an op's bytes and digest are computed.

    Args:
        op: what it does; its indexes count `inputs`.
        inputs: what it works on. Repetitions are kept: a merge wants them, others have removed them.
        platform: for execs, images and layouts; None elsewhere.
        constraints: filters that a worker must pass.
        meta: name, caps, cache flags.
        locations: places in source files.
        walk: see `Vertex.walk`.

    Raises:
        DefinitionError: a text that is not UTF-8, or a number that does not fit.
    """
    edges = tuple(inputs)
    data = encode_op(op, ((edge.vertex.digest, edge.index) for edge in edges), platform, constraints)
    return Vertex(op, edges, platform, constraints, data, Digest.of(data), meta, locations, walk)


def merge_metadata(first: OpMetadata, later: OpMetadata) -> OpMetadata:
    """What is known of two vertices with one digest: the later one wins where both speak."""
    return OpMetadata(
        ignore_cache=first.ignore_cache or later.ignore_cache,
        description={**first.description, **later.description} if first.description else later.description,
        export_cache=first.export_cache if later.export_cache is None else later.export_cache,
        caps=first.caps | later.caps,
        progress_group=later.progress_group or first.progress_group,
        linux_resources=later.linux_resources or first.linux_resources,
    )


@dataclass(frozen=True, slots=True)
class Definition:
    """LLB on the wire (pb.Definition).

    Attributes:
        ops: bytes of each op; the last one has one input, the result, and no op. Empty for scratch.
        meta: what is known of each op, by digest.
        source: the files that ops come from.
    """

    ops: tuple[bytes, ...] = ()
    meta: Mapping[Digest, OpMetadata] = field(default_factory=dict, repr=False)
    source: SourceMap | None = field(default=None, repr=False)

    @classmethod
    def from_edge(cls, edge: Edge | None) -> Definition:
        """Marshal everything that an edge needs; None is scratch."""
        if edge is None:
            return cls()
        ops: dict[Digest, bytes] = {}
        meta: dict[Digest, OpMetadata] = {}
        places = Collector()
        for found in walk(edge.vertex):
            known = meta.get(found.digest)
            meta[found.digest] = found.meta if known is None else merge_metadata(known, found.meta)
            places.add(found.digest, found.locations)
            ops.setdefault(found.digest, found.data)
        terminal = encode_input(edge.vertex.digest, edge.index)
        caps = _terminal_caps(meta.values())
        meta[Digest.of(terminal)] = OpMetadata(caps=caps)
        return cls((*ops.values(), terminal), meta, places.finish(cls.from_edge))

    @classmethod
    def from_bytes(cls, data: bytes) -> Definition:
        """Read a serialised pb.Definition; `to_edge` then checks the graph.

        Raises:
            DefinitionError: it is not a definition, or too large.
        """
        if len(data) > MAX_BYTES:
            raise DefinitionError(
                f"a definition of {len(data)} bytes is too large: at most {MAX_BYTES} are read"
            )
        _check_fields(data, _DEFINITION_LIMITS)
        from google.protobuf.message import DecodeError

        from bknb.pb import ops_pb2 as pb

        try:
            message = pb.Definition.FromString(data)
        except (DecodeError, ValueError) as error:
            raise DefinitionError(f"not an LLB definition: {error}") from None
        return cls.from_message(message)

    @classmethod
    def from_message(cls, message: Any) -> Definition:
        """Read a parsed pb.Definition."""
        meta = {Digest(key): _meta_from(value) for key, value in message.metadata.items()}
        source = _source_from(message.Source) if message.HasField("Source") else None
        return cls(tuple(getattr(message, "def")), meta, source)

    def to_message(self) -> Any:
        """The pb.Definition of it."""
        from bknb.pb import ops_pb2 as pb

        message = pb.Definition()
        getattr(message, "def").extend(self.ops)
        for digest, meta in self.meta.items():
            _meta_into(message.metadata[digest], meta)
        if self.source is not None:
            _source_into(message.Source, self.source)
        return message

    def to_bytes(self) -> bytes:
        """The serialised pb.Definition, maps sorted, as ``buildctl build`` reads it from standard input."""
        return bytes(self.to_message().SerializeToString(deterministic=True))

    @property
    def head(self) -> Digest | None:
        """The digest of the vertex that the result is an output of; None for scratch.

        Raises:
            DefinitionError: the last op does not parse.
        """
        from bknb.llb.load import terminal

        return None if not self.ops else Digest(terminal(self.ops[-1])[0])

    def to_edge(self) -> Edge | None:
        """Check the graph and give it as vertices; None for scratch.

        Raises:
            DefinitionError: a missing input, an unknown op, an index that points nowhere, a cycle, a size;
                names the vertex.
        """
        from bknb.llb.load import load

        return load(self)


def walk(head: Vertex) -> Iterator[Vertex]:
    """Every vertex object below and with `head`, inputs first, in BuildKit's order.

    Iterative: a chain of vertices is longer than Python's stack is deep.
    """
    seen: set[int] = set()
    stack: list[tuple[Vertex, Iterator[Edge]]] = [
        (head, iter(head.inputs if head.walk is None else head.walk))
    ]
    seen.add(id(head))
    while stack:
        current, rest = stack[-1]
        below = next(rest, None)
        if below is None:
            stack.pop()
            yield current
        elif id(below.vertex) not in seen:
            child = below.vertex
            seen.add(id(child))
            stack.append((child, iter(child.inputs if child.walk is None else child.walk)))


def _terminal_caps(metas: Iterable[OpMetadata]) -> frozenset[str]:
    caps = {"constraints", "platform"}
    for meta in metas:
        if meta.ignore_cache:
            caps.add("meta.ignorecache")
        if meta.description:
            caps.add("meta.description")
        if meta.export_cache is not None:
            caps.add("meta.exportcache")
    return frozenset(caps)


def _meta_into(message: Any, meta: OpMetadata) -> None:
    message.ignore_cache = meta.ignore_cache
    message.description.update({key: _shown(text) for key, text in meta.description.items()})
    if meta.export_cache is not None:
        message.export_cache.Value = meta.export_cache
        message.export_cache.SetInParent()
    message.caps.update(dict.fromkeys(meta.caps, True))
    if (group := meta.progress_group) is not None:
        message.progress_group.SetInParent()
        message.progress_group.id, message.progress_group.name = _shown(group.id), _shown(group.name)
        message.progress_group.weak = group.weak
    if (limits := meta.linux_resources) is not None:
        target = message.linux_resources
        target.SetInParent()
        target.memory, target.memorySwap = limits.memory, limits.memory_swap
        target.cpuShares, target.cpuPeriod, target.cpuQuota = (
            limits.cpu_shares,
            limits.cpu_period,
            limits.cpu_quota,
        )
        target.cpusetCpus, target.cpusetMems = limits.cpuset_cpus, limits.cpuset_mems


def _meta_from(message: Any) -> OpMetadata:
    group, limits = message.progress_group, message.linux_resources
    return OpMetadata(
        ignore_cache=message.ignore_cache,
        description=dict(message.description),
        export_cache=message.export_cache.Value if message.HasField("export_cache") else None,
        caps=_caps(tuple([cap for cap, needed in message.caps.items() if needed])),
        progress_group=ProgressGroup(group.id, group.name, group.weak)
        if message.HasField("progress_group") else None,
        linux_resources=LinuxResources(
            limits.memory, limits.memorySwap, limits.cpuShares, limits.cpuPeriod, limits.cpuQuota,
            limits.cpusetCpus, limits.cpusetMems,
        ) if message.HasField("linux_resources") else None,
    )  # fmt: skip


@lru_cache(256)
def _caps(names: tuple[str, ...]) -> frozenset[str]:
    """The same set for all vertices that need the same."""
    return frozenset(names)


def _shown(text: str) -> str:
    """A text for people as the wire takes it: a Dockerfile's bytes that are no UTF-8 are replaced."""
    return text if text.isascii() else _NO_UTF8.sub("\ufffd", text)


def _source_into(message: Any, source: SourceMap) -> None:
    message.SetInParent()
    for file in source.files:
        info = message.infos.add(filename=_shown(file.filename), data=file.data, language=file.language)
        if file.definition is not None:
            info.definition.CopyFrom(file.definition.to_message())
    for digest, places in source.places.items():
        locations = message.locations[digest]
        for place in places:
            location = locations.locations.add(sourceIndex=place.source_index)
            for part in place.ranges:
                added = location.ranges.add()
                added.start.line, added.start.character = part.start_line, part.start_character
                added.end.line, added.end.character = part.end_line, part.end_character


def _source_from(message: Any) -> SourceMap:
    files = tuple(
        SourceFile(
            info.filename,
            info.data,
            info.language,
            Definition.from_message(info.definition) if info.HasField("definition") else None,
        )
        for info in message.infos
    )
    places = {
        Digest(key): tuple(
            Place(
                location.sourceIndex,
                tuple(
                    Range(r.start.line, r.start.character, r.end.line, r.end.character)
                    for r in location.ranges
                ),
            )
            for location in value.locations
        )
        for key, value in message.locations.items()
    }
    return SourceMap(files, places)


# How often a field may be there, by number: without it 64 MB of two-byte messages are a gigabyte of memory.
_DEFINITION_LIMITS: Final = {1: MAX_VERTICES + 1, 2: MAX_VERTICES + 1, 3: 16}


def _check_fields(data: bytes, limits: Mapping[int, int]) -> None:
    """Count top-level fields of a message without building anything; stops at the first excess."""
    left = dict(limits)
    position, end = 0, len(data)
    while position < end:
        key, position = _read_varint(data, position)
        number, kind = key >> 3, key & 7
        if number not in left or kind != 2:
            raise DefinitionError(f"not an LLB definition: unexpected field {number} (byte {position})")
        left[number] -= 1
        if left[number] < 0:
            raise DefinitionError(f"a definition of more than {limits[number]} entries is refused")
        size, position = _read_varint(data, position)
        position += size
    if position != end:
        raise DefinitionError("not an LLB definition: it ends in the middle of a field")


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise DefinitionError(f"not an LLB definition: no number at byte {position}")


__all__ = ["MAX_BYTES", "MAX_VERTICES", "Definition", "merge_metadata", "vertex", "walk"]
