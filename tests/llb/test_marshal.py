"""Definitions on the wire: order, joining of equal vertices, the terminal, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb import llb
from bknb.digest import Digest
from bknb.errors import DefinitionError, Range
from bknb.llb import Constraints, Definition, Location, OpMetadata, SourceInfo, SourceOp, vertex
from bknb.llb.encode import encode_op
from bknb.llb.marshal import walk
from bknb.llb.ops import BuildOp, ExecOp, MergeOp
from bknb.llb.vertex import Edge, LinuxResources, ProgressGroup

CASES = Path(__file__).parent.parent / "conformance" / "cases"


def measured_definitions() -> Iterator[Definition]:
    """The definitions of every measured Dockerfile."""
    import base64

    for path in sorted(CASES.glob("llb_*.jsonl")):
        for line in path.read_text().splitlines():
            for result in json.loads(line)["expected"].get("results", []):
                yield Definition(tuple(base64.b64decode(op["bytes"]) for op in result["definition"]["ops"]))


def source(name: str, meta: OpMetadata | None = None, *locations: Location) -> Edge:
    """A source's edge."""
    return Edge(vertex(SourceOp(name), meta=meta or OpMetadata(), locations=locations))


def test_scratch_is_an_empty_definition() -> None:
    """Nothing on nothing has no ops, no terminal and no source."""
    definition = Definition.from_edge(None)
    assert (definition.ops, definition.head, definition.to_edge()) == ((), None, None)
    assert Definition.from_bytes(definition.to_bytes()) == definition


def test_every_measured_definition_survives_the_round_trip() -> None:
    """Bytes to typed ops and back are the same bytes, in the same order."""
    count = 0
    for definition in measured_definitions():
        edge = definition.to_edge()
        assert Definition.from_edge(edge).ops == definition.ops
        for found in walk(edge.vertex) if edge else ():
            inputs = [(each.vertex.digest, each.index) for each in found.inputs]
            assert encode_op(found.op, inputs, found.platform, found.constraints) == found.data
        count += 1
    assert count > 200


def test_terminal_asks_for_what_its_ops_use() -> None:
    """The last op's capabilities tell whether any op has a description, ignores the cache or exports it."""
    meta = OpMetadata(ignore_cache=True, description={"a": "b"}, export_cache=False)
    definition = Definition.from_edge(source("x://y", meta))
    wanted = {"constraints", "platform", "meta.ignorecache", "meta.description", "meta.exportcache"}
    assert definition.meta[Digest.of(definition.ops[-1])].caps == wanted


def test_equal_vertices_are_one_op_and_the_later_words_win() -> None:
    """Two objects with one digest share an op; names of the later one win, places are kept of both."""
    info = SourceInfo("Dockerfile", b"FROM a\nFROM a\n", "Dockerfile")
    first = source("x://y", OpMetadata(description={"n": "1", "m": "1"}), Location(info, (Range(1),)))
    second = source(
        "x://y", OpMetadata(description={"n": "2"}, ignore_cache=True), Location(info, (Range(2),))
    )
    merged = Edge(vertex(MergeOp((0, 1)), (first, second)))
    definition = Definition.from_edge(merged)
    assert len(definition.ops) == 3
    found = definition.meta[first.vertex.digest]
    assert (dict(found.description), found.ignore_cache) == ({"n": "2", "m": "1"}, True)
    assert definition.source is not None
    assert [place.ranges[0].start_line for place in definition.source.places[first.vertex.digest]] == [1, 2]
    assert len(definition.source.files) == 1


def test_source_map_leads_from_step_to_lines_and_back() -> None:
    """A vertex points at its lines, a line at its vertices."""
    info = SourceInfo("f", b"a\nb\n")
    edge = source("x://y", None, Location(info, (Range(2, 0, 2, 0),)))
    found = Definition.from_edge(edge).source
    assert found is not None
    assert found.ranges(edge.vertex.digest) == (Range(2, 0, 2, 0),)
    assert found.vertices_at(2) == (edge.vertex.digest,)
    assert found.vertices_at(1) == ()


def test_metadata_survives_the_wire() -> None:
    """Everything that is known of an op comes back."""
    meta = OpMetadata(
        ignore_cache=True,
        description={"llb.customname": "n"},
        export_cache=False,
        caps=frozenset({"a", "b"}),
        progress_group=ProgressGroup("i", "g", weak=True),
        linux_resources=LinuxResources(1, -1, 2, 3, 4, "0-1", "0"),
    )
    edge = source("x://y", meta)
    definition = Definition.from_bytes(Definition.from_edge(edge).to_bytes())
    back = definition.to_edge()
    assert back is not None
    assert back.vertex.meta == meta
    assert definition.to_bytes() == Definition.from_edge(back).to_bytes()


def test_a_source_file_carries_its_own_definition() -> None:
    """The definition that would load a Dockerfile is nested in the definition made from it."""
    info = SourceInfo("Dockerfile", b"FROM scratch\n", "Dockerfile", source("local://dockerfile"))
    edge = source("x://y", None, Location(info, (Range(1, 0, 1, 0),)))
    definition = Definition.from_bytes(Definition.from_edge(edge).to_bytes())
    back = definition.to_edge()
    assert back is not None
    loader = back.vertex.locations[0].source.definition
    assert loader is not None
    assert loader.vertex.op == SourceOp("local://dockerfile")


def test_a_chain_longer_than_the_stack_marshals() -> None:
    """20,000 steps on each other are marshalled, read back and walked without recursion."""
    edge = source("x://y")
    for _ in range(20_000):
        edge = Edge(vertex(MergeOp((0,)), (edge,)))
    definition = Definition.from_edge(edge)
    assert len(definition.ops) == 20_002
    back = definition.to_edge()
    assert back is not None
    assert back.vertex.digest == edge.vertex.digest


def test_text_that_is_not_unicode_is_refused() -> None:
    """A surrogate has no UTF-8, and BuildKit's words say so."""
    with pytest.raises(DefinitionError, match="string field contains invalid UTF-8"):
        vertex(SourceOp("\udcff"))


def test_number_that_does_not_fit_is_refused() -> None:
    """More than 64 bits cannot be written."""
    with pytest.raises(DefinitionError, match="64 bits"):
        vertex(BuildOp(builder=1 << 70))


def test_an_empty_message_is_not_an_absent_one() -> None:
    """An exec without meta and one with an empty meta have different digests."""
    assert vertex(ExecOp(meta=None)).digest != vertex(ExecOp()).digest


def test_constraints_of_the_marshal_apply_to_every_op() -> None:
    """What is said when marshalling is said of each op, and its own words win."""
    state = llb.image("a").run("x", name="own")
    definition = state.marshal(platform="linux/amd64", constraints=Constraints(name="all", require=("r",)))
    edge = definition.to_edge()
    assert edge is not None
    assert [found.meta.name for found in walk(edge.vertex)] == ["all", "own"]
    assert {found.constraints for found in walk(edge.vertex)} == {("r",)}


def test_names_that_are_no_utf8_are_replaced() -> None:
    """A Dockerfile's bytes end up in names, which only people read: the definition still has a wire form."""
    meta = OpMetadata(
        description={"llb.customname": "RUN \udcc7"}, progress_group=ProgressGroup("g", "\udcff")
    )
    made = Definition.from_edge(Edge(vertex(SourceOp("local://a"), meta=meta)))
    again = Definition.from_bytes(made.to_bytes())
    assert again.meta[again.head].name == "RUN \ufffd"  # type: ignore[index]
    assert again.meta[again.head].progress_group == ProgressGroup("g", "\ufffd")  # type: ignore[index]
