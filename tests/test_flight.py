"""Work that is shared: who starts it, who stops it, who hears of its end."""

from __future__ import annotations

import asyncio

import pytest

from bknb.flight import AT_ONCE, Flight, Waits


async def test_runs_once_for_all() -> None:
    """Two who wait get one run's value."""
    runs = []

    async def body() -> int:
        runs.append(1)
        await asyncio.sleep(0)
        return 7

    async def wait() -> int:
        with Waits() as waits:
            return await waits.on(flight)

    async with asyncio.TaskGroup() as group:
        flight = Flight(group.create_task, body)
        tasks = [group.create_task(wait()) for _ in range(3)]
    assert [task.result() for task in tasks] == [7, 7, 7] and len(runs) == 1


async def test_cancelled_only_when_the_last_leaves() -> None:
    """One who leaves takes nobody down; the last one ends it, and it can be forgotten at once."""
    gone, ended = asyncio.Event(), []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with asyncio.TaskGroup() as group:
        flight: Flight[None] = Flight(group.create_task, body, ended.append)
        first, second = Waits(), Waits()
        first.join(flight)
        second.join(flight)
        await asyncio.sleep(0)
        with first:
            pass
        assert not flight.done and flight.waiting == 1
        with second:
            pass
        assert flight.done and ended == [flight] and isinstance(flight.error, asyncio.CancelledError)
        await gone.wait()


async def test_errors_reach_everyone_who_waits() -> None:
    """An error is raised where it is waited for, and not in the task group."""

    async def body() -> None:
        raise ValueError("no")

    async with asyncio.TaskGroup() as group:
        flight: Flight[None] = Flight(group.create_task, body)
        with Waits() as waits:
            waits.join(flight)
            with pytest.raises(ValueError, match="no"):
                await waits.change()
        with Waits() as late, pytest.raises(ValueError, match="no"):
            await late.on(flight)


async def test_one_of_several() -> None:
    """A change is whatever lands first."""
    gate = asyncio.Event()

    async def fast() -> str:
        return "fast"

    async def slow() -> str:
        await gate.wait()
        return "slow"

    async with asyncio.TaskGroup() as group:
        flights = [Flight(group.create_task, slow), Flight(group.create_task, fast)]
        with Waits() as waits:
            for flight in flights:
                waits.join(flight)
            await waits.change()
            assert [flight.done for flight in flights] == [False, True]
            gate.set()
            await waits.change()
            assert [flight.value for flight in flights] == ["slow", "fast"]


async def test_many_are_not_all_in_the_air_at_once() -> None:
    """Of very many flights some start at once and the others as those land; all of them land."""
    flying, most = 0, 0

    async def body() -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1

    async with asyncio.TaskGroup() as group:
        flights = [Flight(group.create_task, body) for _ in range(3 * AT_ONCE)]
        with Waits() as waits:
            waits.join_each(flights)
            while not all(flight.done for flight in flights):
                await waits.change()
    assert most == AT_ONCE
