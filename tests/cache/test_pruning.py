"""What pruning asks of the records: holds that know that a record is gone, leftovers swept, tombstones bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bknb.cache import tombstones
from bknb.cache.tombstones import Tombstone, Tombstones
from bknb.errors import SnapshotError
from tests.cache.test_refs import Desk, desk
from tests.snapshot.conftest import inside, lab, shim

__all__ = ["desk", "lab", "shim"]  # fixtures


async def test_a_record_that_is_gone_is_not_held(desk: Desk) -> None:
    """Pruned by another kernel between being found and being held: a miss, and an error for who needs it."""
    one = await desk.step(None, "open('a', 'w')")
    await one.release()
    await asyncio.sleep(0)  # what is let go is written at the end of the turn
    other = await desk.again()
    assert await other.store.evict(one.id) == []
    assert desk.store.try_hold(one.id) is None and await desk.store.get(one.id) is None
    with pytest.raises(SnapshotError, match="build again"):
        desk.store.hold(one.id)
    assert desk.store.records.held() == set() and desk.lab.folders() == 0
    await other.store.aclose()
    await other.lab.snapshots.aclose()


async def test_layers_of_an_image_that_are_pruned_meanwhile_are_made_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's record may go between being found and being held; the image is there all the same."""
    blobs, fetch = await desk.image("open('a', 'w')", "open('b', 'w')")
    whole = desk.store.try_hold
    asked: list[str] = []

    def pruned_once(id: str) -> object:
        asked.append(id)
        if len(asked) == 1:
            desk.store.records.remove(id)
        return whole(id)

    monkeypatch.setattr(desk.store, "try_hold", pruned_once)
    ref = await desk.store.from_layers(blobs, fetch, description="image")
    assert ref is not None and len(asked) == 3
    assert await desk.paths(ref) == ["a", "b"]


async def test_a_cache_mount_that_is_pruned_meanwhile_is_made_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step gets an empty directory, and no error."""
    whole = desk.store.try_hold
    asked: list[str] = []

    def pruned_once(id: str) -> object:
        asked.append(id)
        if len(asked) == 1:
            desk.store.records.remove(id)
        return whole(id)

    monkeypatch.setattr(desk.store, "try_hold", pruned_once)
    async with desk.store.cache_mount("k", None, "locked", description="cache"):
        (record,) = desk.store.records.by_key("k")
        assert asked[1] == record.id != asked[0]


async def test_a_cache_mount_that_a_killed_kernel_had_begun_is_made_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is not there, or not whole: nobody takes it for one, even before it is swept."""
    other = await desk.again()

    async def killed(name: str, base: str = "") -> None:
        other.lab.snapshots._db.insert_active(name, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(other.lab.snapshots, "prepare_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        async with other.store.cache_mount("k", None, "locked", description="cache"):
            pass
    async with desk.store.cache_mount("k", None, "locked", description="cache") as mounts:
        inside(mounts, "open('x', 'w')")
    async with desk.store.cache_mount("k", None, "shared", description="cache") as mounts:
        assert inside(mounts, "result = sorted(show())") == ["x"]
    await other.store.aclose()
    await other.lab.snapshots.aclose()


async def test_what_a_killed_kernel_left_is_swept(desk: Desk) -> None:
    """Files without a record go; records, cache mounts and what is being written stay."""
    one = await desk.step(None, "open('a', 'w')")
    lost = await desk.step(one, "open('b', 'w')")
    writing = await desk.store.new(one, description="writing")
    await lost.release()
    async with desk.store.cache_mount("k", None, "shared", description="cache"):
        desk.store.records.forget(lost.id)
        before = desk.lab.folders()
        await desk.store.sweep()
        assert desk.lab.folders() == before - 1
    ref = await writing.commit()
    assert await desk.paths(ref) == ["a"]
    await desk.store.sweep()
    assert await desk.paths(ref) == ["a"]


async def test_use_while_held_is_use(desk: Desk) -> None:
    """What is held all day and used again was used now."""
    one = await desk.step(None, "open('a', 'w')")
    first = desk.store.records.find(one.id)
    await one.clone().release()
    await desk.store.measure()
    second = desk.store.records.find(one.id)
    assert first is not None and second is not None and second.used > first.used


def test_tombstones_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found by id and by key, also by another kernel; the oldest go."""
    monkeypatch.setattr(tombstones, "MAX_TOMBSTONES", 3)
    stones = [Tombstone(f"r{i}", float(i), "rule 1", "regular", "RUN x", i, ("k", f"k{i}")) for i in range(5)]
    memory = Tombstones(tmp_path / "t.db")
    memory.add(stones[:2])
    memory.add(stones[2:])
    memory.close()
    memory = Tombstones(tmp_path / "t.db")
    assert memory.all() == stones[:1:-1]
    assert memory.find("r4") == stones[4] and memory.find("r0") is None
    assert memory.by_key("k") == stones[4] and memory.by_key("k2") == stones[2] and memory.by_key("k1") is None
    assert str(stones[4]).startswith("evicted on ") and str(stones[4]).endswith("by rule 1")
    memory.close()
