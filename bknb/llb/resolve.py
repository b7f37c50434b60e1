"""Running the coroutines that make parts of a graph (`State.then`)."""

from __future__ import annotations

import asyncio

from bknb.llb.graph import Deferred, Output, Pending
from bknb.llb.state import State


async def resolve(state: State) -> None:
    """Run every coroutine that a state needs; those that do not wait for each other run side by side.

    Raises:
        Exception: what the first failing coroutine raised.
    """
    while ready := _ready(state):
        try:
            async with asyncio.TaskGroup() as group:
                for deferred in ready:
                    group.create_task(deferred.resolve())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None


def _ready(state: State) -> list[Deferred]:
    """The deferred states that can run now: all that their own base needs has run."""
    seen: set[int] = set()
    states: list[tuple[State, Deferred | None]] = [(state, None)]
    blocked: set[int] = set()
    waiting: list[tuple[Deferred, Deferred | None]] = []

    def visit(pending: Pending, owner: Deferred | None) -> None:
        stack = [pending]
        while stack:
            current = stack.pop()
            if isinstance(current, Deferred) and current.target is None:
                if owner is not None:
                    blocked.add(id(owner))
                if id(current) not in seen:
                    seen.add(id(current))
                    waiting.append((current, owner))
                    states.append((current.base, current))
                continue
            if id(current) in seen and owner is None:
                continue
            seen.add(id(current))
            if isinstance(current, Deferred):
                assert current.target is not None
                states.append((current.target, owner))
            states.extend((each, owner) for each in current.states())
            stack.extend(_below(current))

    done: set[tuple[int, int]] = set()
    while states:
        each, owner = states.pop()
        if (id(each), id(owner)) in done:
            continue
        done.add((id(each), id(owner)))
        if each.deferred is not None:
            visit(each.deferred, owner)
        if each.output is not None:
            visit(each.output.pending, owner)
    return [deferred for deferred, _ in waiting if id(deferred) not in blocked]


def _below(pending: Pending) -> list[Pending]:
    sources: list[Output] = [] if isinstance(pending, Deferred) else list(pending.sources())
    return [output.pending for output in sources]
