"""The collector is kept away, and comes back; what people froze stays frozen."""

from __future__ import annotations

import asyncio
import gc
import weakref

from bknb.flight import Flight, Waits
from bknb.garbage import SELDOM, no_collection, seldom_collected


class Node:
    """Something that names itself."""

    def __init__(self) -> None:
        self.me = self


def test_what_was_made_is_not_looked_through() -> None:
    """It counts as old afterwards; as garbage it is still found by a whole pass."""
    with no_collection():
        assert not gc.isenabled()
        nodes = [Node() for _ in range(10_000)]
    assert gc.isenabled() and gc.get_freeze_count() == 0
    old = {id(each) for each in gc.get_objects(generation=2)}
    assert all(id(node) in old for node in nodes)
    gone = weakref.ref(nodes[0])
    nodes.clear()
    gc.collect()
    assert gone() is None


def test_whoever_switched_it_off_finds_it_off() -> None:
    """Within one that does the same, too."""
    with no_collection(), no_collection():
        pass
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_frozen_stays_frozen() -> None:
    """A process that has frozen what it started with keeps that."""
    gc.freeze()
    try:
        with no_collection():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_passes_through_everything_are_rarer_during_builds() -> None:
    """From the first build to the last of those that run at once; thresholds that somebody sets meanwhile stay."""
    usual = gc.get_threshold()
    with seldom_collected:
        rarer = gc.get_threshold()
        with seldom_collected:
            assert gc.get_threshold() == rarer == (*usual[:2], usual[2] * SELDOM)
        assert gc.get_threshold() == rarer
    assert gc.get_threshold() == usual
    try:
        with seldom_collected:
            gc.set_threshold(900, 5, 5)
        assert gc.get_threshold() == (900, 5, 5)
    finally:
        gc.set_threshold(*usual)


async def test_a_flight_that_has_landed_is_no_cycle() -> None:
    """What its coroutine closed over goes when the flight's owner does, without the collector."""

    class Owner:
        flight: Flight[None]

    async def work(owner: Owner) -> None:
        pass

    gc.collect()
    gc.disable()
    try:
        async with asyncio.TaskGroup() as group:
            owner = Owner()
            owner.flight = Flight(group.create_task, lambda kept=owner: work(kept), lambda _, kept=owner: None)  # type: ignore[misc]
            with Waits() as waits:
                await waits.on(owner.flight)
        gone = weakref.ref(owner)
        del owner
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
