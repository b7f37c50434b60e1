"""States: immutable, lazy, and able to wait for coroutines."""

from __future__ import annotations

import asyncio

import pytest

from bknb import llb
from bknb.errors import DefinitionError
from bknb.llb.marshal import walk
from bknb.llb.ops import ExecOp, SourceOp
from bknb.llb.values import Env
from bknb.platforms import Platform


async def look_up(reference: str, platform: Platform | None, mode: str) -> llb.ResolvedImage:
    """An image that sets a variable and a folder."""
    await asyncio.sleep(0)
    config = b'{"config":{"Env":["A=1"],"WorkingDir":"/w"},"os":"linux","architecture":"arm64"}'
    return llb.ResolvedImage(reference, "sha256:" + "0" * 64, config)


def meta(definition: llb.Definition) -> list[tuple[tuple[str, ...], str]]:
    """Environment and folder of each command."""
    edge = definition.to_edge()
    assert edge is not None
    ops = [found.op for found in walk(edge.vertex)]
    return [(op.meta.env, op.meta.cwd) for op in ops if isinstance(op, ExecOp) and op.meta]


def test_a_state_is_not_changed_by_what_is_made_of_it() -> None:
    """Each method gives another state."""
    base = llb.image("alpine")
    changed = base.with_env("A", "1").with_dir("/x")
    assert (base.values.env.entries(), base.values.dir) == ((), "/")
    assert (changed.values.env.entries(), changed.values.dir) == (("A=1",), "/x")


def test_the_platform_may_come_last() -> None:
    """One state is marshalled for two platforms."""
    state = llb.image("alpine").run("x")
    arm, amd = state.edge(platform="linux/arm64"), state.edge(platform="linux/amd64")
    assert arm is not None and amd is not None
    assert (str(arm.vertex.platform), str(amd.vertex.platform)) == ("linux/arm64", "linux/amd64")


def test_a_removed_variable_is_gone() -> None:
    """None takes a variable away; one that is set again moves to the end."""
    env = Env().set("A", "1").set("B", "2").set("A", None).set("C", "3").set("B", "4")
    assert env.entries() == ("C=3", "B=4")


def test_a_resolved_image_gives_its_config() -> None:
    """The coroutine runs when the graph is marshalled, and what was said since is applied to its result."""
    state = llb.image("alpine", resolver=look_up, pin=True).with_dir("x").run("true")
    definition = asyncio.run(state.marshal_async(platform="linux/amd64"))
    assert meta(definition) == [(("A=1",), "/w/x")]
    edge = definition.to_edge()
    assert edge is not None
    source = edge.vertex.inputs[0].vertex.op
    assert isinstance(source, SourceOp)
    assert source.identifier.endswith("@sha256:" + "0" * 64)


def test_deferred_states_are_found_wherever_they_are() -> None:
    """In mounts, file actions, merges, and below each other."""
    deferred = llb.image("b", resolver=look_up)
    copied = llb.scratch().file(llb.copy(deferred, "rel", "/"))
    mounted = llb.image("a").run("x", mounts=[llb.BindMount("/m", deferred, readonly=True)])

    async def again(state: llb.State) -> llb.State:
        return state.with_env("SECOND", "2")

    both = llb.merge([copied, mounted, deferred.then(again).run("y")])
    definition = asyncio.run(both.marshal_async(platform="linux/amd64"))
    assert (("A=1", "SECOND=2"), "/w") in meta(definition)


def test_a_state_that_waits_says_so() -> None:
    """Marshalling it without awaiting is an error that tells the way."""
    with pytest.raises(DefinitionError, match="marshal_async"):
        llb.image("a", resolver=look_up).run("x").marshal()


def test_a_failing_coroutine_fails_the_marshal() -> None:
    """Its own exception comes out."""

    async def fail(state: llb.State) -> llb.State:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        asyncio.run(llb.image("a").then(fail).run("x").marshal_async())


def test_a_definition_can_be_built_upon() -> None:
    """A state of an existing definition takes further steps; its part keeps its bytes."""
    first = llb.image("a").run("x").marshal(platform="linux/arm64")
    state = llb.State.from_definition(llb.Definition.from_bytes(first.to_bytes())).run("y")
    second = state.marshal(platform="linux/amd64")
    assert set(first.ops[:-1]) <= set(second.ops)
    edge = second.to_edge()
    assert edge is not None
    assert str(edge.vertex.platform) == "linux/arm64"


def test_a_long_chain_is_marshalled_without_recursion() -> None:
    """5,000 commands on each other."""
    state = llb.image("a")
    for number in range(5_000):
        state = state.run(["echo", str(number)])
    assert len(state.marshal(platform="linux/amd64").ops) == 5_002


def test_a_bad_image_name_fails_when_marshalled() -> None:
    """The reason is the name's."""
    with pytest.raises(DefinitionError, match="invalid reference format"):
        llb.image("UPPER/x:y:z").marshal()


def test_unbalanced_quotes_in_a_command_are_one_line() -> None:
    """A text that cannot be cut into words is refused at once."""
    with pytest.raises(DefinitionError, match="No closing quotation"):
        llb.image("a").run("echo 'x")
