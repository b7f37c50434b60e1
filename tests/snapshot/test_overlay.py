"""The overlayfs driver: chains that are longer than a mount, and what lies on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bknb.protocols import Mounts
from bknb.snapshot.layered import RUN_LENGTH, STACK_LIMIT, _last_of_each, _run_to_flatten
from tests.snapshot.conftest import Lab, inside, lab, shim

__all__ = ["lab", "shim"]  # fixtures


def upper(mounts: Mounts) -> Path:
    """The directory that an active snapshot is written to."""
    found = [option[6:] for option in mounts[0].options if option.startswith("upper=")]
    return Path(found[0] if found else mounts[0].source)


@pytest.mark.parametrize("lab", ["overlay"], indirect=True)
async def test_a_chain_is_longer_than_a_mount(lab: Lab) -> None:
    """Each step adds a file and deletes an older one, and none is lost or comes back."""
    steps, parent = 3 * STACK_LIMIT, ""
    for number in range(steps):
        mounts = await lab.snapshots.prepare("active", parent)
        assert sum(option.startswith("lower=") for option in mounts[0].options) <= STACK_LIMIT
        folder = upper(mounts)
        os.makedirs(folder / "d")
        (folder / "d" / f"f{number}").write_text(str(number))
        if number >= 250:  # what overlayfs does for unlink: the file is in a flattened layer by now
            os.mknod(folder / "d" / f"f{number - 250}", 0o020000, 0)
        parent = f"s{number}"
        await lab.snapshots.commit(parent, "active")
    kept = {f"f{number}" for number in range(steps - 250, steps)}
    view = await lab.snapshots.view(parent)
    assert set(inside(view, "result = os.listdir('d')")) == kept
    assert await lab.paths("s100") == sorted(["d", *(f"d/f{number}" for number in range(101))])
    await lab.snapshots.diff("delta", "s549", parent)
    assert set(inside(await lab.snapshots.view("delta"), "result = os.listdir('d')")) == {
        f"f{number}" for number in range(550, 600)
    }
    await lab.snapshots.merge("merged", ["s10", "delta"])
    merged = set(inside(await lab.snapshots.view("merged"), "result = os.listdir('d')"))
    assert merged == {f"f{number}" for number in (*range(11), *range(550, 600))}
    for number in range(steps):
        await lab.snapshots.remove(f"s{number}")
    await lab.snapshots.remove("merged")
    await lab.snapshots.remove("delta")
    assert lab.folders() == 0


def test_the_newest_run_is_flattened() -> None:
    """A base image's layers stay as they are, and flattened ones are flattened again only when nothing else is."""
    assert _run_to_flatten([*range(1, 202)]) == (101, 201)
    assert _run_to_flatten([*range(1, 102), -500, *range(300, 399)]) == (102, 201)
    assert _run_to_flatten([*range(1, 152), *([-7] * 50)]) == (151 - RUN_LENGTH, 151)
    assert _run_to_flatten([-number for number in range(1, 202)]) == (101, 201)


def test_repetitions_count_once() -> None:
    """The topmost stays."""
    assert _last_of_each([1, 2, 1, 3, 2]) == [1, 3, 2]
