"""Which steps of a predicted build are found too late to tell what becomes of them.

A step that nothing in the cache leads to waits for all of its inputs. When one of them has run and comes to the key
that it had before, the step may be found after all, and leaves the others as they are at that moment. An input that
content has led to a key of meanwhile, but no result is left of it, then counts as cached if nobody has looked for the
result yet, and else is about to run, runs or has run: which, is a matter of what ends first. The same holds for what
is needed only if such an input runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from bknb.analysis.doubt import RAN, Doubts
from bknb.digest import Digest
from bknb.events import DecisionEvent, Emit, Event, Outcome, Phase
from bknb.protocols import CacheRecord
from bknb.solver.graph import ActiveVertex

FOUND: Final = (Outcome.DEFINITION, Outcome.CONTENT, Outcome.REMOTE)


class Watch:
    """Passes the events of a prediction on, and keeps what the end of it does not show.

    Attributes:
        waited: vertices that waited for their inputs to be realised.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.waited: set[Digest] = set()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case DecisionEvent(phase=Phase.WAIT, outcome="begin", causes=("input",)):
                self.waited.add(event.vertex)
        self._emit(event)


async def late(
    graph: Sequence[ActiveVertex],
    goals: Collection[ActiveVertex],
    doubts: Doubts,
    watch: Watch,
    stood_in: Collection[tuple[Digest, int]],
    is_there: Callable[[CacheRecord], Awaitable[bool]],
) -> set[ActiveVertex]:
    """The vertices of which nobody knows before what becomes of them.

    Args:
        graph: every vertex, inputs first, as the prediction has left it.
        goals: those that were asked for.
        doubts: what else is in doubt.
        watch: what was seen of the prediction.
        stood_in: the inputs, by vertex and number, whose content is not known.
        is_there: whether a result can be had.
    """

    async def may_run(active: ActiveVertex) -> bool:
        """Whether it would run to be taken, and for nothing else."""
        if active.status.outcome not in FOUND:
            return _is_keyed(active)
        records = [record for edge in active.edges.values() if not edge.done for record in edge.records]
        return bool(records) and not any([await is_there(record) for record in records])

    found: set[ActiveVertex] = set()
    left = {each for each in graph if each.vertex.digest in watch.waited and each.status.outcome not in RAN}
    blind = _blind(graph, stood_in) if left else set()
    unsure = set(doubts.idle)
    for active in reversed(graph) if blind else ():
        uses = [(above, number) for above, numbers in active.consumers.items() for number in numbers]
        if active in goals or any(doubts.surely_takes(above, number, unsure) for above, number in uses):
            continue
        is_left = any(above in left and above not in found for above, _ in uses)
        follows = not is_left and any(above in found for above, _ in uses)
        if (follows or (is_left and active in blind)) and await may_run(active):
            found.add(active)
            unsure.add(active)
    return found


def _blind(
    graph: Sequence[ActiveVertex], stood_in: Collection[tuple[Digest, int]]
) -> set[ActiveVertex]:
    """Vertices that stand on content that is not known."""
    blind: set[ActiveVertex] = set()
    for active in graph:
        for number, given in enumerate(active.inputs):
            if given.vertex in blind or (active.vertex.digest, number) in stood_in:
                blind.add(active)
                break
    return blind


def _is_keyed(active: ActiveVertex) -> bool:
    """Whether the cache knows a key of a vertex without running it: nobody has to run it for that."""
    return any(not edge.found or frozenset.intersection(*edge.found) for edge in active.edges.values())
