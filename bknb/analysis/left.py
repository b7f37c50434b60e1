"""Which steps of a predicted build are left before they begin, and may begin all the same if others take longer.

A step that nothing in the cache leads to waits for all of its inputs. When some of them have run, it may be found
after all, by the keys that they had before: then it leaves the others as they are at that moment. One of those begins
before that moment, if it does not wait itself for everything that the keys took: two steps that run side by side take
another time in each build, and which ends first no plan knows. It is said of such a step that it runs; and that it is
known only at run time, where the moment depends on content that is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from bknb.analysis.doubt import RAN
from bknb.events import Outcome
from bknb.solver.graph import ActiveVertex

LEFT: Final = (None, Outcome.CANCELLED)
FOUND: Final = (Outcome.DEFINITION, Outcome.CONTENT, Outcome.REMOTE)


def may_begin(
    graph: Sequence[ActiveVertex], blind: Collection[ActiveVertex]
) -> tuple[set[ActiveVertex], set[ActiveVertex]]:
    """The vertices that are left before they begin in the prediction, and need not be in a build.

    Args:
        graph: every vertex, inputs first, as the prediction has left it.
        blind: those that stand on content that is not known.

    Returns:
        Those that run, unless they are stopped, and those of which that depends on content that is not known: also such
        that have run here for nobody, and may be stopped in a build.
    """
    keyed, there = _ended(graph)
    begins: set[ActiveVertex] = set()
    unsure = set(blind)
    until: dict[ActiveVertex, int] = {}  # what has ended when nobody wants a vertex any more
    for active in reversed(graph):
        moment = _any(until[above] for above in active.consumers)
        until[active] = keyed[active] if active.status.outcome in FOUND else 0
        if active.status.outcome in LEFT:
            until[active] = moment
            if moment & ~there[active] and _is_wanted(active, begins):
                begins.add(active)
                if any(above in unsure for above in active.consumers):
                    unsure.add(active)
        elif active in blind and active.status.outcome in RAN and there[active] & ~moment and not _is_taken(active):
            begins.add(active)  # it was done before it could be stopped, and need not be
    return begins - unsure, begins & unsure


def _ended(graph: Sequence[ActiveVertex]) -> tuple[dict[ActiveVertex, int], dict[ActiveVertex, int]]:
    """Which steps and looks at content, a bit each, have ended when a vertex has its keys, and when it has its result.

    Of one that is left it is what has ended when it begins: its inputs are there, and their content has been looked at.

    Of ``m = run! s``, ``k = run m``, ``a = run k`` the first two ran and the third was found: `m` has ended when `k` has
    its result, both have when `a` has its keys, and so they have when `a` has its result.
    """
    keyed: dict[ActiveVertex, int] = {}
    there: dict[ActiveVertex, int] = {}
    following = 1
    for active in graph:
        before = _any(there[given.vertex] for given in active.inputs)
        ran = active.status.outcome in RAN
        looked, done = (following if active.content else 0), (following << 1 if ran else 0)
        following <<= 2 if looked or done else 0
        if ran and not _is_keyed(active):
            keyed[active] = before | looked | done
        else:
            keyed[active] = _any(keyed[given.vertex] for given in active.inputs) | looked
        there[active] = keyed[active] if active.status.outcome in FOUND else before | looked | done
    return keyed, there


def _is_taken(active: ActiveVertex) -> bool:
    """Whether somebody needed the result of a vertex that ran: whoever asked for it, to run, or for its content."""
    uses = [(above, number) for above, numbers in active.consumers.items() for number in numbers]
    return not uses or any(above.status.outcome in RAN or number in above.content for above, number in uses)


def _is_wanted(active: ActiveVertex, begins: Collection[ActiveVertex]) -> bool:
    """Whether somebody waited for a vertex, or would have if that had begun."""
    return any(edge.wanted for edge in active.edges.values()) or any(above in begins for above in active.consumers)


def _is_keyed(active: ActiveVertex) -> bool:
    """Whether the cache knew a key of a vertex before it ran."""
    return any(not edge.found or frozenset.intersection(*edge.found) for edge in active.edges.values())


def _any(bits: Iterable[int]) -> int:
    """The bits of several numbers."""
    every = 0
    for each in bits:
        every |= each
    return every
