"""Definitions from outside: nothing is taken on trust, and every fault names its vertex."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.llb.encode import encode_input, encode_op
from bknb.llb.marshal import MAX_VERTICES, Definition
from bknb.llb.ops import (
    ChownOpt,
    CopyAction,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    Mount,
    NamedUser,
    Op,
    PassthroughOp,
    SourceOp,
    UserOpt,
)
from bknb.llb.sourcemap import Place, SourceMap

SOURCE = encode_op(SourceOp("local://a"), (), None, ())
BASE = Digest.of(SOURCE)


def definition(op: Op, inputs: tuple[tuple[str, int], ...] = ((BASE, 0),), index: int = 0) -> Definition:
    """One op on the source, and the terminal that points at an output of it."""
    data = encode_op(op, inputs, None, ())
    return Definition((SOURCE, data, encode_input(Digest.of(data), index)))


WRONG: dict[str, tuple[Callable[[], Definition], str]] = {
    "missing input": (lambda: definition(MergeOp((0,)), (("sha256:" + "0" * 64, 0),)), "is not there"),
    "no digest": (lambda: definition(MergeOp((0,)), (("", 0),)), "is not there"),
    "output of a source": (lambda: definition(MergeOp((0,)), ((BASE, 1),)), "output 1 of"),
    "negative output": (lambda: definition(MergeOp((0,)), ((BASE, -1),)), "output -1 of"),
    "result's output": (lambda: definition(MergeOp((0,)), index=7), "output 7 of"),
    "merge input": (lambda: definition(MergeOp((1,))), "index 1 is out of range"),
    "diff input": (lambda: definition(DiffOp(-2, 0)), "index -2 is out of range"),
    "exec input": (lambda: definition(ExecOp(mounts=(Mount(input=9),))), "index 9 is out of range"),
    "exec output": (lambda: definition(ExecOp(mounts=(Mount(output=1 << 40),))), "is out of range"),
    "passthrough output": (lambda: definition(PassthroughOp("x", (5,))), "index 5 is out of range"),
    "file input": (lambda: definition(FileOp((FileAction(2, -1, 0, CopyAction()),))), "index 2 is out of"),
    "own action": (lambda: definition(FileOp((FileAction(0, 1, 0, CopyAction()),))), "index 1 is out of"),
    "owner's input": (
        lambda: definition(
            FileOp((FileAction(0, 0, 0, CopyAction(owner=ChownOpt(UserOpt(NamedUser("a", 4))))),))
        ),
        "index 4 is out of range",
    ),
    "no action": (lambda: definition(FileOp((FileAction(0, -1, 0, None),))), "file action is missing"),
    "unknown op": (lambda: Definition((SOURCE, b"\x5a\x00", encode_input(BASE, 0))), "no op"),
    "unknown enum": (
        lambda: Definition((SOURCE, b"\x12\x02\x18\x63", encode_input(BASE, 0))),
        "99 is not a valid NetMode",
    ),
    "not an op": (lambda: Definition((b"\xff\xff", encode_input(BASE, 0))), "not an op"),
    "last op is none": (lambda: Definition((SOURCE,)), "the last op of a definition has one input"),
    "result not there": (
        lambda: Definition((SOURCE, encode_input("sha256:b", 0))),
        "is not in the definition",
    ),
    "unknown source file": (
        lambda: Definition((SOURCE, encode_input(BASE, 0)), {}, SourceMap((), {BASE: (Place(3),)})),
        "there is no source file 3",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_one_error_that_says_what(name: str) -> None:
    """Each kind of broken graph is a DefinitionError with its reason and, where one is to blame, its vertex."""
    make, words = WRONG[name]
    with pytest.raises(DefinitionError) as caught:
        make().to_edge()
    assert words in str(caught.value)


def test_an_unfit_vertex_is_named() -> None:
    """The error carries the digest to blame."""
    broken = definition(MergeOp((1,)))
    with pytest.raises(DefinitionError) as caught:
        broken.to_edge()
    assert caught.value.vertex == Digest.of(broken.ops[1])


def test_ops_may_come_in_any_order() -> None:
    """As in BuildKit's loader, an op may stand before its inputs."""
    data = encode_op(MergeOp((0,)), ((BASE, 0),), None, ())
    edge = Definition((data, SOURCE, encode_input(Digest.of(data), 0))).to_edge()
    assert edge is not None
    assert edge.vertex.inputs[0].vertex.op == SourceOp("local://a")


def test_too_many_vertices_are_refused_soon() -> None:
    """A million two-byte ops are refused without being built."""
    start = time.process_time()
    with pytest.raises(DefinitionError, match=f"more than {MAX_VERTICES + 1} entries"):
        Definition.from_bytes(b"\x0a\x00" * 1_000_000)
    assert time.process_time() - start < 5


def test_too_many_bytes_are_refused() -> None:
    """More bytes than any transport of BuildKit takes are not read at all."""
    with pytest.raises(DefinitionError, match="too large"):
        Definition.from_bytes(bytes((128 << 20) + 1))


def test_a_hundred_megabytes_of_garbage_are_refused_soon() -> None:
    """Garbage is seen at its first field."""
    start = time.process_time()
    with pytest.raises(DefinitionError):
        Definition.from_bytes(b"\xee" * (100 << 20))
    assert time.process_time() - start < 5


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_give_a_definition_or_its_error(data: bytes) -> None:
    """No bytes whatever give another exception."""
    with contextlib.suppress(DefinitionError):
        Definition.from_bytes(data).to_edge()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_one_changed_byte_gives_a_definition_or_its_error(place: int, value: int) -> None:
    """Neither does a definition with one byte changed."""
    data = bytearray(definition(FileOp((FileAction(0, 0, 0, CopyAction("a", "b")),))).to_bytes())
    data[place % len(data)] = value
    with contextlib.suppress(DefinitionError):
        Definition.from_bytes(bytes(data)).to_edge()
