"""Small file operations made together: what they make, whose error it is, and what a cancelled one leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb.api import Client, Preferences
from bknb.builder.local import LocalBuilder
from bknb.errors import BuildError, PathError
from bknb.llb.marshal import vertex
from bknb.llb.ops import FileAction, FileOp, MergeOp, MkDirAction, MkFileAction, RmAction, SymlinkAction
from bknb.llb.vertex import Edge
from bknb.options import parse
from bknb.protocols import Ref
from tests.conftest import need


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """One builder, with an empty cache."""
    need("busybox")
    client = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    yield client
    client.close()


def file(path: str, data: str, below: Edge | None = None) -> Edge:
    """A file on top of another step."""
    action = MkFileAction(path, 0o644, data.encode(), timestamp=0)
    op = FileOp((FileAction(-1 if below is None else 0, -1, 0, action),))
    return Edge(vertex(op, () if below is None else (below,)))


def merged(*edges: Edge) -> Edge:
    """Steps laid over each other."""
    return Edge(vertex(MergeOp(tuple(range(len(edges)))), edges))


def read(client: Client, edge: Edge, *paths: str) -> list[str]:
    """Build, and read files of the result."""
    done = client.build(parse([], cell=True), edge=edge, llb=True)
    (id,) = done._result.results[edge.vertex.digest]

    async def get(builder: LocalBuilder) -> list[str]:
        ref = await builder.get(id)
        assert ref is not None
        found = [await builder.parts.worker.read(ref, path, 1 << 20) for path in paths]
        await ref.release()
        return ["gone" if data is None else data.decode() for data in found]

    return client.call(get)


def test_wide_and_deep(client: Client) -> None:
    """Hundreds of files by themselves and chains of files are what each of them says."""
    leaves = [file(f"/w{n}", f"{n}") for n in range(300)]
    ends = []
    for chain in range(6):
        edge = file(f"/c{chain}", "0")
        for step in range(1, 12):
            edge = file(f"/c{chain}" if step % 3 else f"/c{chain}.{step}", f"{step}", edge)
        ends.append(edge)
    wanted = [*(f"/w{n}" for n in range(300)), *(f"/c{chain}" for chain in range(6)), "/c3.9"]
    assert read(client, merged(*leaves, *ends), *wanted) == [*map(str, range(300)), *["11"] * 6, "9"]


def test_a_chain_of_actions_is_one_layer(client: Client) -> None:
    """The actions of one step are done in order, each seeing what the one before did."""
    actions = (
        MkDirAction("/d", 0o755, timestamp=0),
        MkFileAction("/d/a", 0o600, b"a", timestamp=0),
        SymlinkAction("d/a", "/link", timestamp=0),
        MkFileAction("/d/b", 0o600, b"b", timestamp=0),
        RmAction("/d/b"),
    )
    last = len(actions) - 1
    op = FileOp(
        tuple(
            FileAction(n - 1 if n else -1, -1, 0 if n == last else -1, each) for n, each in enumerate(actions)
        )
    )
    assert read(client, Edge(vertex(op)), "/d/a", "/link", "/d/b") == ["a", "a", "gone"]


def test_one_that_fails_is_the_only_one(client: Client) -> None:
    """Of many that are made together one cannot be: it is named, and the others are kept."""
    good = [file(f"/f{n}", "x") for n in range(40)]
    bad = Edge(vertex(FileOp((FileAction(-1, -1, 0, RmAction("/nothing")),))))
    with pytest.raises(BuildError) as caught:
        client.build(parse([], cell=True), edge=merged(*good[:20], bad, *good[20:]), llb=True)
    error = caught.value.__cause__
    assert "nothing" in str(error) and "not found" in str(error)
    again = client.build(parse([], cell=True), edge=merged(*good), llb=True)
    kept = {step.outcome for step in again.steps}
    assert kept <= {"definition", "ran"} and len(again.steps) == 41


def test_errors_and_cancelling_in_a_batch(client: Client) -> None:
    """Each gets its own answer; one that nobody waits for any more is thrown away; nothing stays held."""

    async def run(builder: LocalBuilder) -> None:
        files, refs = builder.parts.worker.files, builder.parts.refs
        before = len(refs.records.all())

        def make(path: str, kind: str = "mkfile") -> asyncio.Future[Ref]:
            action = {
                "kind": kind,
                "target": 0,
                "path": path,
                "mode": 0o644,
                "data": b"x",
                "owner": None,
                "timestamp": 0,
            }
            action |= {"allow_not_found": False, "allow_wildcard": False}
            return asyncio.ensure_future(files.make(None, [action], (), path))

        tasks = [make("/a"), make("/b"), make("/none", "rm"), make("/c")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[1], asyncio.CancelledError) and isinstance(done[2], PathError)
        made = [done[0], done[3]]
        assert [await ref.size() > 0 for ref in made if not isinstance(ref, BaseException)] == [True, True]
        for ref in made:
            assert not isinstance(ref, BaseException)
            await ref.release()
        await asyncio.sleep(0)
        assert refs.records.held() == set() and len(refs.records.all()) == before + 2

    client.call(run)


def test_a_parent_that_is_gone_fails_its_own_step(client: Client) -> None:
    """Where a batch cannot even begin, each is tried by itself."""

    async def run(builder: LocalBuilder) -> None:
        files, refs = builder.parts.worker.files, builder.parts.refs
        action = {
            "kind": "mkfile",
            "target": 0,
            "path": "/x",
            "mode": 0o644,
            "data": b"x",
            "owner": None,
            "timestamp": 0,
        }
        base = await files.make(None, [action], (), "base")
        refs.records.forget(base.id)
        tasks = [
            asyncio.ensure_future(files.make(parent, [action], (), "step")) for parent in (None, base, None)
        ]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, BaseException) for each in done] == [False, True, False]
        assert "build again" in str(done[1])
        for ref in (base, done[0], done[2]):
            assert not isinstance(ref, BaseException)
            await ref.release()

    client.call(run)
