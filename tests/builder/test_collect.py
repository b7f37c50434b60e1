"""A real store, filled beyond its limit and collected: what goes, what stays, and what the disk says."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bknb.api import Build, Client, Preferences, disk_usage, images, prune
from bknb.api.store import PruneOptions, UsageOptions, explain, prune_of, usage_of
from bknb.builder import collect
from bknb.builder.collect import Pruned
from bknb.builder.local import LocalBuilder
from bknb.cache.gc import Fact
from bknb.errors import UsageError
from bknb.options import parse, prune_parser, usage_parser
from bknb.protocols import Ref
from bknb.settings import DiskSpace, GCPolicy, Settings
from tests.conftest import need

MB = 1_000_000
LIMIT = 40 * MB


@dataclass(frozen=True, slots=True)
class Limited(Preferences):
    """Preferences with a limit on the cache."""

    limit: int = LIMIT

    def settings(self) -> Settings:
        """The settings of a builder."""
        return replace(Preferences.settings(self), gc_max_used_space=DiskSpace(self.limit))


@pytest.fixture
def open_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Client]]:
    """Opens clients on one state folder; they collect by themselves only where a test wants it."""
    need("busybox")
    monkeypatch.setattr(collect, "DELAY", 3600.0)
    opened: list[Client] = []

    def open(limit: int = LIMIT) -> Client:
        opened.append(Client(Limited(root=str(tmp_path / "state"), offline=True, limit=limit)))
        return opened[-1]

    yield open
    for client in opened:
        client.close()


def build(client: Client, text: str, context: Path | str = "-", *words: str) -> Build:
    """Build a Dockerfile."""
    return client.build(parse([*words, str(context)], cell=False), dockerfile=text)


def outcomes(done: Build) -> list[str]:
    """What became of the steps that run something."""
    return [step.outcome for step in done.steps if step.command.startswith(("RUN", "COPY"))]


def fill(client: Client, context: Path, number: int) -> Build:
    """A build that leaves 10 MB of every sort: steps, a merge, a context and a cache mount."""
    context.mkdir(exist_ok=True)
    (context / "data").write_bytes(random.Random(number).randbytes(2 * MB))
    return build(
        client,
        f"""FROM busybox
RUN head -c 2000000 /dev/urandom > /made{number}
RUN --mount=type=cache,id=c{number},target=/c head -c 2000000 /dev/urandom > /c/kept
COPY --link data /data{number}
RUN head -c 2000000 /dev/urandom > /more{number}
""",
        context,
    )


def on_disk(root: Path) -> int:
    """What `du` says of the store, without the offline registry's own image."""
    seen: set[int] = set()
    total = 0
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders.remove("offline")
        for state in (os.lstat(os.path.join(folder, name)) for name in (*folders, *files)):
            if state.st_ino not in seen:
                seen.add(state.st_ino)
                total += state.st_blocks * 512
    return total


def facts(client: Client) -> dict[str, Fact]:
    """The records of a store."""

    async def look(builder: LocalBuilder) -> dict[str, Fact]:
        return {fact.id: fact for fact in (await builder.collector.survey()).facts}

    return client.call(look)


def collected(client: Client) -> Pruned:
    """Apply the builder's policies now."""

    async def act(builder: LocalBuilder) -> Pruned:
        return await builder.collector.collect()

    return client.call(act)


def test_a_full_store_is_brought_below_its_limit(open_client: Callable[..., Client], tmp_path: Path) -> None:
    """Filled to twice the limit: what goes is free on disk, what is used or named stays, and all still builds."""
    client = open_client()
    build(client, "FROM busybox\nRUN head -c 3000000 /dev/urandom > /named\n", "-", "-t", "kept")
    first = fill(client, tmp_path / "context", 0)
    mine = client.call(lambda builder: hold(builder, first))
    for number in range(1, 9):
        fill(client, tmp_path / "context", number)
    before = facts(client)
    assert sum(fact.size for fact in before.values() if not fact.image) > 1.9 * LIMIT
    plan = explain(client, None)
    done = collected(client)
    assert {verdict.fact.id[:12] for verdict in done.removed} == set(plan[plan.goes].id)
    assert any("rule 2" in reason for reason in plan[plan.goes].reason)

    after = facts(client)
    assert 0.5 * LIMIT < sum(fact.size for fact in after.values() if not fact.image) <= LIMIT
    assert mine.id in after and all(parent in after for fact in after.values() for parent in fact.parents)
    assert {fact.type for fact in before.values() if fact.id not in after} >= {"regular", "exec.cachemount"}
    usage = disk_usage(client)
    stone = client.call(lambda builder: tombstone(builder, done.removed[0].fact.id))
    assert "evicted on" in stone and "by rule" in stone
    again = fill(client, tmp_path / "context", 1)
    assert "ran" in outcomes(again) and again.files.read("/data1") == random.Random(1).randbytes(2 * MB)
    named = build(client, "FROM kept\nRUN wc -c < /named > /size\n")
    assert named.files.text("/size") == "3000000\n"
    assert list(images(client).name) == ["kept:latest"]
    prune(client)
    usage = disk_usage(client)
    client.call(lambda builder: mine.release())
    client.close()
    disk = on_disk(tmp_path / "state")
    assert abs(disk - usage["size"].sum()) < 0.05 * disk, (disk, usage["size"].sum())


async def hold(builder: LocalBuilder, done: Build) -> Ref:
    """A hold on the result of a build."""
    ref = await builder.get(done.files.id)
    assert ref is not None
    return ref


async def tombstone(builder: LocalBuilder, id: str) -> str:
    """What is remembered of a removed record, found by its id and by its keys."""
    stone = builder.parts.tombstones.find(id)
    assert stone is not None
    for key in stone.keys:
        assert builder.parts.tombstones.by_key(key) is not None
    return str(stone)


def test_nothing_waits_and_nothing_is_taken_twice(open_client: Callable[..., Client], tmp_path: Path) -> None:
    """Of two kernels one collects; the other goes on, and finds what was removed to be a miss."""
    one, two = open_client(), open_client()
    for client in (one, two):
        assert "ran" in outcomes(fill(client, tmp_path / f"context{client is one}", int(client is one)))
    held = two.call(lambda builder: alone(builder, one))
    assert held == Pruned(())
    known = facts(one)
    assert sum(fact.held for fact in known.values()) == 1, "the other kernel's context is in use"
    assert prune(one).startswith("removed")
    assert set(facts(two)) < set(known)
    assert "ran" in outcomes(fill(two, tmp_path / "contextFalse", 0))


async def alone(builder: LocalBuilder, other: Client) -> Pruned:
    """What another kernel collects while this one is at it."""
    async with builder.collector._alone(wait=0) as mine:
        assert mine
        return await asyncio.to_thread(collected, other)


def test_it_collects_by_itself_after_a_build(
    open_client: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build beyond the limit is followed by a collection in the background."""
    monkeypatch.setattr(collect, "DELAY", 0.0)
    monkeypatch.setattr(collect, "PAUSE", 0.0)
    client = open_client(3 * MB)
    fill(client, tmp_path / "context", 0)

    async def settle(builder: LocalBuilder) -> int:
        async with asyncio.timeout(30):
            while not (stones := builder.parts.tombstones.all()):
                await asyncio.sleep(0.01)
        assert builder.collector.failed is None
        return len(stones)

    assert client.call(settle) > 0


def test_blobs_that_nothing_names(
    open_client: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go after a time of grace, but not while a build runs anywhere; those of named images never do."""
    client, other = open_client(), open_client()
    build(client, "FROM busybox\nRUN head -c 300000 /dev/urandom > /named\n", "-", "-t", "kept")

    async def put(builder: LocalBuilder) -> str:
        return str(builder.parts.content.path(builder.parts.content.put(bytes(200_000))))

    lost = Path(client.call(put))
    prune(client, GCPolicy(all=True))
    assert lost.exists()
    os.utime(lost, (time.time() - 2 * collect.GRACE,) * 2)

    async def during(builder: LocalBuilder) -> None:
        with builder.collector.building():
            await asyncio.to_thread(prune, client)

    other.call(during)
    assert lost.exists()
    prune(client)
    assert not lost.exists()
    assert not facts(client)
    assert build(client, "FROM kept\nRUN wc -c < /named > /size\n").files.text("/size") == "300000\n"


def test_what_prune_and_du_take(open_client: Callable[..., Client], tmp_path: Path) -> None:
    """Their options are BuildKit's; filters choose, --explain only tells."""
    client = open_client()
    build(client, "FROM busybox\nRUN echo 1 > /named\n", "-", "-t", "kept")
    fill(client, tmp_path / "context", 0)
    whole = disk_usage(client, verbose=True)
    kinds = set(whole.kind)
    assert kinds == {"regular", "source.local", "exec.cachemount", "internal"}
    assert set(disk_usage(client, filters=["type==exec.cachemount"]).kind) == {"exec.cachemount"}
    assert disk_usage(client, until=3600).empty
    told = explain(client)
    assert any("named image: docker.io/library/kept:latest" in text for text in told.reason)
    assert prune(client, GCPolicy(filters=("type==exec.cachemount",))).startswith("removed 1 ")
    assert prune(client, GCPolicy(keep_duration=3600)).startswith("removed 0 ")
    prune(client)
    assert all(fact.image for fact in facts(client).values())
    again = fill(client, tmp_path / "context", 0)
    stone = client.call(lambda builder: missed(builder, again["RUN head -c 2000000 /dev/urandom > /made0"].files.id))
    assert "by prune" in stone
    prune(client)
    prune(client, GCPolicy(all=True))
    assert not facts(client)


async def missed(builder: LocalBuilder, id: str) -> str:
    """What is remembered under the keys of a result that was missed and made again."""
    (stone,) = {builder.parts.tombstones.by_key(key) for key in builder.parts.store.keys_of(id)}
    return str(stone)


def parse_prune(words: list[str]) -> PruneOptions:
    """The words after prune, read."""
    return prune_of(prune_parser("bknb prune").parse_args(words))


def parse_usage(words: list[str]) -> UsageOptions:
    """The words after du, read."""
    return usage_of(usage_parser("bknb du").parse_args(words))


def test_words() -> None:
    """The words after prune and du."""
    found = parse_prune(["--filter", "until=48h", "--all", "--max-used-space=1GB", "--reserved-space", "10%", "--explain"])
    assert found.explain and found.policy == GCPolicy(
        DiskSpace(percentage=10), DiskSpace(1 << 30), keep_duration=48 * 3600.0, all=True
    )
    assert parse_prune(["--keep-duration", "90"]).policy == GCPolicy(keep_duration=90)
    assert parse_prune(["--gc"]).policy is None
    assert parse_usage(["--filter", "type=regular", "-v"]).filters == ('type=="regular"',)
    for wrong in (["--al"], ["--filter"], ["--filter", "x=1"], ["--gc", "--all"], ["--min-free-space", "much"], ["--keep-storage="], ["a"]):
        with pytest.raises(UsageError):
            parse_prune(wrong)
        with pytest.raises(UsageError):
            parse_usage(wrong)


KILLED = """
import sys
from bknb.api import Client, Preferences, prune
from bknb.settings import GCPolicy
client = Client(Preferences(root=sys.argv[1], offline=True))
client.call(lambda builder: builder.collector.survey())
print("ready", flush=True)
sys.stdin.readline()
prune(client, GCPolicy(all=True))
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.timeout(300)
def test_killed_while_it_prunes(open_client: Callable[..., Client], tmp_path: Path) -> None:
    """Killed at any moment: the next build is right, and the next collection finds all that was left."""
    rounds(open_client, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_a_hundred_times(open_client: Callable[..., Client], tmp_path: Path) -> None:
    """More of them."""
    rounds(open_client, tmp_path, 100)


def rounds(open_client: Callable[..., Client], tmp_path: Path, count: int) -> None:
    """Kill a kernel that prunes, again and again, beside one that lives."""
    chance = random.Random(7)
    client = open_client()
    for number in range(count):
        fill(client, tmp_path / "context", number % 2)
        build(client, "FROM busybox\n" + "".join(f"RUN echo {i} > /f{i}\n" for i in range(8)))
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "state")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("\n")
            process.stdin.flush()
            with_deadline(process, chance.uniform(0.0, 0.15))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        again = fill(client, tmp_path / "context", number % 2)
        assert again.files.read(f"/data{number % 2}") == random.Random(number % 2).randbytes(2 * MB)
    client.close()
    last = open_client()
    prune(last, GCPolicy(all=True))
    usage = disk_usage(last)["size"].sum()
    last.close()
    left = [path for path in (tmp_path / "state" / "snapshots").glob("*/layers/*") if path.is_dir()]
    assert usage == 0 and not left


def with_deadline(process: subprocess.Popen[str], seconds: float) -> None:
    """Let it work for so long, or until it is done."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
