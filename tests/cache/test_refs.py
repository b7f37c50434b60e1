"""Results on disk: holds, lazy files, layers, cache mounts; over both snapshot drivers and a real shim."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bknb.cache.handles import StoredRef
from bknb.cache.refs import DiskRefStore
from bknb.content import DiskContentStore
from bknb.digest import Digest
from bknb.errors import RegistryError, SnapshotError, StoreError, UsageError
from bknb.layers import ShimLayers
from bknb.protocols import Compression, Descriptor, LayerBlob, Mounts, Progress, Ref
from tests.snapshot.conftest import Lab, inside, lab, shim

__all__ = ["lab", "shim"]  # fixtures


@dataclass
class Desk:
    """A store of results, and words to test it with."""

    lab: Lab
    store: DiskRefStore
    content: DiskContentStore
    layers: ShimLayers
    root: Path
    fetched: list[Digest] = field(default_factory=list)

    async def step(self, parent: Ref | None, code: str) -> StoredRef:
        """A result that some Python made."""
        mutable = await self.store.new(parent, description="a step")
        inside(await mutable.mounts(), code)
        return await mutable.commit()

    async def paths(self, ref: Ref) -> list[str]:
        """What a result shows."""
        return sorted(inside(await ref.mounts(), "result = show()"))

    async def image(self, *steps: str) -> tuple[list[LayerBlob], Callable[..., Awaitable[None]]]:
        """Layers of an image that lies elsewhere, and what fetches them."""
        elsewhere = DiskContentStore(self.root / "elsewhere")
        made = ShimLayers(self.lab.shim, elsewhere)
        blobs, parent = [], ""
        for number, code in enumerate(steps):
            await self.lab.step(f"image{number}", parent, code)
            parent = f"image{number}"
            directory = await self.lab.snapshots.layer(parent)
            assert directory is not None
            blobs.append(await made.create(directory, Compression()))
        made.close()

        async def fetch(descriptor: Descriptor, progress: Progress | None) -> None:
            self.fetched.append(descriptor.digest)
            self.content.put(elsewhere.read(descriptor.digest))

        return blobs, fetch

    async def again(self) -> Desk:
        """Another kernel on the same folder."""
        lab = await self.lab.again()
        store = await DiskRefStore.open(self.root / "refs", lab.snapshots, self.content, self.layers)
        return Desk(lab, store, self.content, self.layers, self.root)


@pytest.fixture
async def desk(lab: Lab, tmp_path: Path) -> AsyncIterator[Desk]:
    """An empty store."""
    content = DiskContentStore(tmp_path / "content")
    layers = ShimLayers(lab.shim, content)
    store = await DiskRefStore.open(tmp_path / "refs", lab.snapshots, content, layers)
    yield Desk(lab, store, content, layers, tmp_path)
    await store.aclose()
    layers.close()


async def test_a_result_is_found_again(desk: Desk) -> None:
    """By its id, also by another kernel; its parent stays though nobody holds it."""
    one = await desk.step(None, "open('a', 'w').write('a' * 5000)")
    two = await desk.step(one, "open('b', 'w')")
    assert await desk.paths(two) == ["a", "b"]
    assert 4096 <= await one.size() < 20000
    await one.release()
    await two.release()
    other = await desk.again()
    found = await other.store.get(two.id)
    assert found is not None and await other.paths(found) == ["a", "b"]
    assert await other.store.layer_mounts(found) == (one.id, two.id)
    assert await other.store.get("nothing") is None
    await other.store.aclose()
    await other.lab.snapshots.aclose()


async def test_what_is_discarded_leaves_nothing(desk: Desk) -> None:
    """Neither record nor folder; commit and discard afterwards do nothing, or say so."""
    mutable = await desk.store.new(None, description="x")
    await mutable.discard()
    await mutable.discard()
    assert desk.lab.folders() == 0 and desk.store.records.all() == []
    with pytest.raises(SnapshotError):
        await mutable.commit()


async def test_only_what_nobody_holds_is_removed(desk: Desk) -> None:
    """Not by this kernel, not by another, and not below a child."""
    one = await desk.step(None, "open('a', 'w')")
    two = await desk.step(one, "open('b', 'w')")
    held = two.clone()
    await two.release()
    await two.release()
    await one.release()
    other = await desk.again()
    assert not await other.store.remove(two.id) and not await other.store.remove(one.id)
    await held.release()
    await asyncio.sleep(0)  # what is let go is written at the end of the turn
    assert not await other.store.remove(one.id)
    assert await other.store.remove(two.id) and await other.store.remove(one.id)
    assert desk.lab.folders() == 0
    await other.store.aclose()
    await other.lab.snapshots.aclose()


async def test_a_lazy_result_is_gone_with_what_it_is_made_of(desk: Desk) -> None:
    """However often it was found before."""
    parts = [await desk.step(None, f"open('{name}', 'w')") for name in "ab"]
    merged = await desk.store.merge(parts, description="m")
    assert merged is not None
    for _ in range(2):
        found = await desk.store.get(merged.id)
        assert found is not None
        await found.release()
    shutil.rmtree(next((desk.lab.root / "layers").iterdir()))
    assert await desk.store.get(merged.id) is None


async def test_what_is_missing_is_told_of_many_at_once(desk: Desk) -> None:
    """Of what is there with its files, lazy or not, of what has lost them, and of what never was; nothing is forgotten for it."""
    one = await desk.step(None, "open('a', 'w')")
    two = await desk.step(None, "open('b', 'w')")
    merged = await desk.store.merge([one, two], description="both")
    assert merged is not None
    ids = [one.id, two.id, merged.id]
    assert not desk.store.missing(ids) and not desk.store.missing([])
    assert list(desk.store.missing([*ids, "nothing"])) == ["nothing"]
    await desk.store.snapshots.remove(two.id)
    assert list(desk.store.missing(ids)) == [two.id, merged.id]
    assert {record.id for record in desk.store.records.all()} == set(ids)
    assert await desk.store.get(two.id) is None


async def test_files_that_are_gone_are_a_miss(desk: Desk) -> None:
    """A record without its folder is forgotten, and never an error."""
    one = await desk.step(None, "open('a', 'w')")
    two = await desk.step(one, "open('b', 'w')")
    await one.release()
    await two.release()
    shutil.rmtree(next((desk.lab.root / "layers").iterdir()))
    assert await desk.store.get(two.id) is None
    assert desk.store.records.find(two.id) is None


async def test_an_image_is_lazy(desk: Desk) -> None:
    """Nothing is fetched before its files are wanted, and then once, whoever asks."""
    blobs, fetch = await desk.image("open('a', 'w')", "os.unlink('a'); open('b', 'w')")
    ref = await desk.store.from_layers(blobs, fetch, description="image")
    same = await desk.store.from_layers(blobs, fetch, description="image")
    shorter = await desk.store.from_layers(blobs[:1], fetch, description="image")
    assert ref is not None and same is not None and shorter is not None
    assert ref.id == same.id and desk.fetched == []
    assert await desk.store.from_layers([], fetch, description="x") is None
    shown: list[Mounts] = await asyncio.gather(ref.mounts(), same.mounts(), shorter.mounts())
    assert shown[0] == shown[1]
    assert sorted(desk.fetched) == sorted(blob.descriptor.digest for blob in blobs)
    assert await desk.paths(ref) == ["b"] and await desk.paths(shorter) == ["a"]
    child = await desk.step(ref, "open('c', 'w')")
    made = await desk.store.layers(child, Compression())
    assert [blob.descriptor.digest for blob in made[:2]] == [blob.descriptor.digest for blob in blobs]


async def test_a_lazy_image_outlives_its_kernel_only_with_its_blobs(desk: Desk) -> None:
    """Without the way to fetch, it is a miss until the image is resolved again."""
    blobs, fetch = await desk.image("open('a', 'w')")
    ref = await desk.store.from_layers(blobs, fetch, description="image")
    assert ref is not None
    other = await desk.again()
    assert await other.store.get(ref.id) is None
    found = await other.store.from_layers(blobs, fetch, description="image")
    assert found is not None and found.id == ref.id and await other.paths(found) == ["a"]
    await other.store.aclose()
    await other.lab.snapshots.aclose()


async def test_an_image_whose_files_are_gone_is_unpacked_again(desk: Desk) -> None:
    """And another kernel that names the same layers at the same time finds the same record."""
    blobs, fetch = await desk.image("open('a', 'w')", "open('b', 'w')")
    ref = await desk.store.from_layers(blobs, fetch, description="image")
    assert ref is not None
    await ref.mounts()
    for folder in (desk.lab.root / "layers").iterdir():
        shutil.rmtree(folder)
    assert await desk.store.get(ref.id) is None
    again = await desk.store.from_layers(blobs, fetch, description="image")
    assert again is not None and again.id == ref.id and await desk.paths(again) == ["a", "b"]
    record = desk.store.records.find(ref.id)
    assert record is not None and not desk.store.records.insert_chain(replace(record, id="x"), blobs[1])


async def test_an_error_of_a_fetch_is_raised_as_itself(desk: Desk) -> None:
    """Also when several layers are fetched side by side; the next one who asks tries again."""
    blobs, fetch = await desk.image("open('a', 'w')", "open('b', 'w')")
    down = [RegistryError("no answer")]

    async def flaky(descriptor: Descriptor, progress: Progress | None) -> None:
        if down:
            raise down[0]
        await fetch(descriptor, progress)

    ref = await desk.store.from_layers(blobs, flaky, description="image")
    assert ref is not None
    for ask in (ref.mounts(), desk.store.layers(ref, Compression())):
        with pytest.raises(RegistryError):
            await ask
    down.clear()
    assert await desk.paths(ref) == ["a", "b"]


async def test_merge_and_diff(desk: Desk) -> None:
    """They are made when they are wanted, and None is scratch."""
    base = await desk.step(None, "open('a', 'w'); open('x', 'w')")
    left = await desk.step(base, "open('b', 'w')")
    right = await desk.step(base, "os.unlink('x'); open('c', 'w')")
    merge, diff = desk.store.merge, desk.store.diff
    merged = await merge([left, None, right], description="m")
    delta = await diff(base, right, description="d")
    strange = await diff(left, right, description="s")
    gone = await diff(base, None, description="g")
    assert merged and delta and strange and gone
    assert desk.store.records.find(merged.id).snapshot == ""  # type: ignore[union-attr]
    assert await desk.paths(merged) == ["a", "b", "c"]
    assert await desk.paths(delta) == ["c"] and await desk.paths(strange) == ["c"]
    assert await desk.paths(gone) == []
    applied = await merge([left, strange], description="m2")
    assert applied is not None and await desk.paths(applied) == ["a", "c"]
    assert await desk.store.layer_mounts(merged) == (base.id, left.id, base.id, right.id)
    assert await desk.store.layer_mounts(delta) == (right.id,)
    assert await desk.store.layer_mounts(strange) == (strange.id,)
    assert await merge([None], description="m") is None
    alone = await merge([None, left], description="m")
    assert alone is not None and alone.id == left.id
    assert await diff(left, left, description="d") is None
    assert await diff(None, None, description="d") is None
    whole = await diff(None, left, description="d")
    assert whole is not None and whole.id == left.id
    blobs = await desk.store.layers(applied, Compression())
    assert len(blobs) == 3 and await desk.store.layers(None, Compression()) == ()


async def test_a_layer_is_made_once(desk: Desk) -> None:
    """Then it is kept; another compression is made of it only by force."""
    ref = await desk.step(None, "open('a', 'w').write('a' * 9999)")
    first, second = await asyncio.gather(*(desk.store.layers(ref, Compression()) for _ in range(2)))
    assert first == second and len(desk.content.walk()) == 1
    assert first[0].description == "a step" and first[0].created
    assert (await desk.store.layers(ref, Compression("zstd")))[0].descriptor == first[0].descriptor
    forced = await desk.store.layers(ref, Compression("zstd", force=True))
    assert forced[0].descriptor.media_type.endswith("zstd") and forced[0].diff_id == first[0].diff_id
    desk.content.delete(first[0].descriptor.digest)
    desk.content.delete(forced[0].descriptor.digest)
    assert (await desk.store.layers(ref, Compression()))[0] == first[0]


async def test_a_killed_kernel_leaves_no_half_result(desk: Desk) -> None:
    """A record whose snapshot never came is forgotten at the next start; one whose did is kept."""
    other = await desk.again()
    done = await other.step(None, "open('a', 'w')")
    from bknb.cache.records import Record

    other.store.records.insert(Record("halfmade", "layer"))
    other.store.records._db.execute("UPDATE record SET snapshot = '' WHERE id = ?", (done.id,))
    other.store._owner.release()  # what the end of its process does
    third = await desk.again()
    assert await third.store.get("halfmade") is None
    assert third.store.records.find("halfmade") is None
    kept = await third.store.get(done.id)
    assert kept is not None and await third.paths(kept) == ["a"]
    for end in (third.store, third.lab.snapshots, other.lab.snapshots):
        await end.aclose()


async def test_a_newer_file_is_refused(desk: Desk, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "newer").mkdir()
    with closing(sqlite3.connect(tmp_path / "newer" / f"{desk.lab.snapshots.name}.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer bknb"):
        await DiskRefStore.open(tmp_path / "newer", desk.lab.snapshots, desk.content, desk.layers)


async def test_a_cache_mount_keeps_its_files(desk: Desk) -> None:
    """Between uses and kernels; a new one starts as a copy of its base."""
    base = await desk.step(None, "open('seed', 'w'); os.chown('.', 3, 4)")
    async with desk.store.cache_mount("k", base, "shared", description="cache") as mounts:
        inside(mounts, "assert os.stat('.').st_uid == 3; open('new', 'w')")
    other = await desk.again()
    async with other.store.cache_mount("k", base, "locked", description="cache") as mounts:
        assert inside(mounts, "result = sorted(show())") == ["new", "seed"]
        assert mounts[0].type == "bind"
    assert await desk.paths(base) == ["seed"]
    await other.store.aclose()
    await other.lab.snapshots.aclose()
    await desk.lab.snapshots.sweep()
    async with desk.store.cache_mount("k", base, "private", description="cache") as mounts:
        assert inside(mounts, "result = sorted(show())") == ["new", "seed"]
    with pytest.raises(UsageError):
        async with desk.store.cache_mount("k", None, "stolen", description="cache"):
            pass


async def test_cache_mounts_are_shared_as_asked(desk: Desk) -> None:
    """Shared is one directory, private one for each, locked one after the other; between kernels too."""
    other = await desk.again()

    def mount(desk: Desk, sharing: str) -> object:
        return desk.store.cache_mount("k", None, sharing, description="cache")

    async with mount(desk, "shared") as one, mount(other, "shared") as two:  # type: ignore[attr-defined]
        assert one == two
    async with mount(desk, "private") as one, mount(other, "private") as two:  # type: ignore[attr-defined]
        assert one != two
    order: list[str] = []
    inside_first = asyncio.Event()

    async def first() -> None:
        async with mount(desk, "locked"):  # type: ignore[attr-defined]
            inside_first.set()
            async with desk.store.cache_mount("k", None, "private", description="x"):
                pass  # takes the other directory
            await asyncio.sleep(0.05)
            order.append("first")

    async def second() -> None:
        await inside_first.wait()
        async with other.store.cache_mount("only", None, "locked", description="x"):
            task = asyncio.ensure_future(third())
            await asyncio.sleep(0.05)
            order.append("second")
        await task

    async def third() -> None:
        async with desk.store.cache_mount("only", None, "locked", description="x"):
            order.append("third")

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        group.create_task(second())
    assert order.index("second") < order.index("third")
    assert len(desk.store.records.by_key("k")) == 2 and len(desk.store.records.by_key("only")) == 1
    await other.store.aclose()
    await other.lab.snapshots.aclose()


async def test_a_cancelled_commit_leaves_nothing(desk: Desk) -> None:
    """What was written can still be discarded, and then neither record, hold nor folder is left."""
    mutable = await desk.store.new(None, description="x")
    task = asyncio.ensure_future(mutable.commit())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await mutable.discard()
    assert desk.store.records.all() == [] and desk.store.records.held() == set()
    assert desk.lab.folders() == 0


async def test_a_cancelled_pull_takes_nobody_along(desk: Desk) -> None:
    """Who waits for the same files gets them."""
    blobs, fetch = await desk.image("open('a', 'w')")
    gate = asyncio.Event()

    async def slow(descriptor: Descriptor, progress: Progress | None) -> None:
        gate.set()
        await asyncio.sleep(0.01)
        await fetch(descriptor, progress)

    ref = await desk.store.from_layers(blobs, slow, description="image")
    assert ref is not None
    first, second = asyncio.ensure_future(ref.mounts()), asyncio.ensure_future(ref.mounts())
    await gate.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert await desk.paths(ref) == ["a"]


async def test_cache_mounts_are_measured_and_pruned(desk: Desk) -> None:
    """Their size is that of now; one in use stays."""
    async with desk.store.cache_mount("k", None, "shared", description="cache") as mounts:
        inside(mounts, "open('big', 'wb').write(bytes(1 << 20))")
        (record,) = desk.store.records.by_key("k")
        assert not await desk.store.remove(record.id)
    await desk.store.measure()
    assert desk.store.size(record.id) >= 1 << 20
    assert await desk.store.remove(record.id)
    assert desk.lab.folders() == 0 and not [*(desk.root / "refs" / "locks").glob(record.id)]
