"""A kernel that is killed at any moment leaves a store that works, and nothing that nobody knows."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bknb.cache.refs import DiskRefStore
from bknb.content import DiskContentStore
from bknb.executor.shim import ShimProcess
from bknb.layers import ShimLayers
from bknb.protocols import Compression
from bknb.snapshot import open_snapshotter

ROOT = Path(__file__).parents[2]

BUSY = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bknb.cache.refs import DiskRefStore
from bknb.content import DiskContentStore
from bknb.executor.shim import ShimProcess
from bknb.layers import ShimLayers
from bknb.protocols import Compression
from bknb.snapshot import open_snapshotter

async def main(root):
    async with ShimProcess(root / "state") as shim:
        snapshots = await open_snapshotter(root / "snapshots", shim)
        content = DiskContentStore(root / "content")
        store = await DiskRefStore.open(root / "refs", snapshots, content, ShimLayers(shim, content))
        ref = None
        for number in range(100000):
            print(number, flush=True)
            mutable = await store.new(ref, description=str(number))
            for option in (await mutable.mounts())[0].options:
                if option.startswith("upper="):
                    open(f"{option[6:]}/f{number}", "w").write("x" * number)
            before, ref = ref, await mutable.commit()
            await store.layers(ref, Compression())
            async with store.cache_mount("k", None, "locked", description="cache"):
                merged = await store.merge([ref, before], description="m")
                await merged.mounts()
            await merged.release()
            if number % 3 == 0:
                await store.remove(merged.id)
            if before is not None:
                await before.release()

asyncio.run(main(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_two_kernels_are_killed(rounds: int, tmp_path: Path) -> None:
    """Every record that is found shows its files, and every folder on disk belongs to a snapshot."""
    chance = random.Random(rounds)
    for _ in range(rounds):
        asked = [sys.executable, "-c", BUSY, str(ROOT), str(tmp_path)]
        busy = [
            subprocess.Popen(
                asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            for _ in range(2)
        ]
        for process in busy:
            steps = chance.randrange(1, 8)
            assert process.stdout is not None and process.stderr is not None
            while steps and process.stdout.readline():
                steps -= 1
            assert not steps, process.stderr.read()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            process.stderr.close()
    async with ShimProcess(tmp_path / "state") as shim:
        snapshots = await open_snapshotter(tmp_path / "snapshots", shim)
        content = DiskContentStore(tmp_path / "content")
        layers = ShimLayers(shim, content)
        store = await DiskRefStore.open(tmp_path / "refs", snapshots, content, layers)
        assert store.records.held() == set() and os.listdir(tmp_path / "content" / "ingest") == []
        assert [info for info in await snapshots.walk() if info.kind == "active"] == [
            info for info in await snapshots.walk() if info.kind == "active" and store.records.find(info.name)
        ]
        found = 0
        for record in store.records.all():
            ref = await store.get(record.id)
            if ref is not None and record.kind != "folder":
                await ref.mounts()
                blobs = await store.layers(ref, Compression())
                assert None not in [content.info(blob.descriptor.digest) for blob in blobs]
                found += 1
            if ref is not None:
                await ref.release()
        assert found
        folders = {
            int(name) for root in (tmp_path / "snapshots").glob("*/layers") for name in os.listdir(root)
        }
        assert folders == snapshots._db.known_layers()
        for record in reversed(store.records.all()):
            await store.remove(record.id)
        assert store.records.all() == [] and not [*(tmp_path / "snapshots").glob("*/layers/*")]
        assert content.walk() == []
        await store.aclose()
        await snapshots.aclose()
        layers.close()
