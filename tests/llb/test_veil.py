"""Values that look like secrets, in what is written down of a build."""

from __future__ import annotations

from bknb import llb
from bknb.llb import Definition
from bknb.llb.marshal import walk
from bknb.llb.ops import ExecOp
from bknb.llb.veil import Veil, named, stand_in

OPTS = {"build-arg:API_TOKEN": "hush hush", "build-arg:PASSWD": "x", "build-arg:V": "plain"}
VEIL = Veil.of(OPTS)


def graph() -> llb.Edge:
    """A chain, of which one step knows the token and one the short password."""
    state = llb.image("busybox").run(["true"])
    state = state.with_env("API_TOKEN", "hush hush").run(["sh", "-c", "echo hush hush"])
    edge = state.with_env("PASSWD", "x").run(["box"]).edge(platform="linux/amd64")
    assert edge is not None
    return edge


def test_what_is_stored_is_named_as_what_was_built() -> None:
    """Nothing of the value is in the bytes, and what is read back has the digests of the build."""
    edge = graph()
    data, changed = VEIL.definition(edge)
    assert b"hush" not in data and stand_in("hush hush").encode() in data and b"PASSWD=x" not in data
    read = named(Definition.from_bytes(data).to_edge(), changed)
    assert read is not None
    assert [v.digest for v in walk(read.vertex)] == [v.digest for v in walk(edge.vertex)]
    assert len(changed) == 2 and not any(new == old for new, old in changed.items())


def test_a_graph_in_memory_compares_with_one_that_was_stored() -> None:
    """The same ops under the same digests, so that nothing seems to have changed."""
    data, changed = VEIL.definition(graph())
    read, here = named(Definition.from_bytes(data).to_edge(), changed), VEIL.edge(graph())
    assert read is not None and here is not None
    for one, other in zip(walk(read.vertex), walk(here.vertex), strict=True):
        assert one.op == other.op and one.inputs == other.inputs
    metas = [vertex.op.meta for vertex in walk(here.vertex) if isinstance(vertex.op, ExecOp)]
    assert metas[-1] is not None and metas[-1].args == ("box",)


def test_without_secrets_nothing_is_changed() -> None:
    """The bytes are those of the graph, and the graph is the one that was given."""
    edge, plain = graph(), Veil.of({"build-arg:V": "1", "API_TOKEN": "not an argument"})
    assert not plain and plain.edge(edge) is edge and plain.value(("hush",)) == ("hush",)
    assert plain.definition(edge) == (Definition.from_edge(edge).to_bytes(), {})


def test_another_value_has_another_stand_in() -> None:
    """So that it can be told that it changed; the longest text is looked for first."""
    veil = VEIL | Veil.of({"build-arg:AUTH": "hush hush hush"})
    assert veil.text("a hush hush hush b") == f"a {stand_in('hush hush hush')} b"
    assert stand_in("a") != stand_in("b")
