"""What is said of active vertices: their state, to every job that shows them, and the decisions about them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from bknb.errors import StepError
from bknb.events import Outcome, Phase
from bknb.protocols import CacheRecord, Ref
from bknb.solver.graph import ActiveEdge, ActiveVertex

_OPEN: Final = (None, Outcome.CANCELLED, Outcome.FAILED)
"""Outcomes that another attempt may change."""
_BY_DEFINITION: Final = Outcome.DEFINITION
"""Looked up once: in Python 3.11 a member of an enum takes as long as the rest of `mark_hit`."""
NO_SIZES: Final[Mapping[str, int]] = {}


def show(active: ActiveVertex) -> None:
    """Emit a vertex as it is now, to all jobs that show it."""
    for job in list(active.jobs):
        job.show(active)


def decide(active: ActiveVertex, phase: Phase, outcome: str, *causes: str) -> None:
    """Emit a decision about a vertex, to all jobs that show it."""
    for job in list(active.jobs):
        job.decide(active, phase, outcome, causes)


def mark_hit(edge: ActiveEdge, now: float, sizes: Mapping[str, int] = NO_SIZES) -> None:
    """The cache has it: that is the outcome of its vertex, unless it turns out to be gone; `sizes` of results, if known."""
    status = edge.vertex.status
    record = edge.records[0]
    size = sizes.get(record.result)
    if size is not None:
        status.size = size + (status.size or 0)
    if status.outcome not in _OPEN:
        return
    if record.remote:
        status.outcome = Outcome.REMOTE
    else:
        status.outcome = Outcome.CONTENT if record.key in edge.by_content else _BY_DEFINITION
    status.solver_digest = record.key
    status.completed = now
    if status.started is None:
        status.started = now


def hit(edge: ActiveEdge) -> None:
    """As `mark_hit`, and say so."""
    if edge.vertex.status.outcome in _OPEN:
        mark_hit(edge, time.time())
        record = edge.records[0]
        phase = Phase.CONTENT if record.key in edge.by_content else Phase.KEY
        show(edge.vertex)
        decide(edge.vertex, phase, "hit", *taken(record))


def taken(record: CacheRecord) -> tuple[str, ...]:
    """The causes of a hit: key, result, and the cache that it is imported from."""
    return (record.key, record.result, record.remote) if record.remote else (record.key, record.result)


def miss(edge: ActiveEdge) -> None:
    """Nothing in the cache leads to it; the causes are its digest and the inputs that nothing stands on."""
    active = edge.vertex
    if active.ignore_cache:
        decide(active, Phase.KEY, "ignored")
        return
    unmatched = [f"input:{number}" for number, found in enumerate(edge.found) if not found]
    digest = [active.map.digest] if active.map is not None else []
    decide(active, Phase.CONTENT if active.content else Phase.KEY, "miss", *digest, *unmatched)


def begin(active: ActiveVertex) -> None:
    """It starts now."""
    status = active.status
    status.started, status.completed, status.outcome, status.error = time.time(), None, None, ""
    show(active)


def pause(active: ActiveVertex) -> None:
    """It is not known any more how it ends, and it is not at work."""
    status = active.status
    status.started = status.completed = status.outcome = None
    show(active)


def complete(active: ActiveVertex, outcome: Outcome) -> None:
    """It has ended."""
    status = active.status
    status.completed, status.outcome = time.time(), outcome
    keys = next((edge.result_keys for edge in active.edges.values() if edge.result_keys), ())
    status.solver_digest = keys[0] if keys else ""
    show(active)
    decide(active, Phase.EXECUTE, "end", outcome.value)


def fail(active: ActiveVertex, error: Exception, inputs: Sequence[Ref | None] = ()) -> StepError:
    """It has failed; the error that is returned holds what is needed to look into it, until the vertex goes."""
    status = active.status
    status.started = status.started or time.time()
    status.error = str(error)
    complete(active, Outcome.FAILED)
    if isinstance(error, StepError):
        active.broken += (error,)
        return error
    name = active.vertex.meta.name or next(
        (job.graph[active].name for job in active.jobs if active in job.graph), repr(active.vertex)
    )
    step = StepError(active.vertex.digest, name, error)
    step.inputs = tuple(ref.clone() if ref is not None else None for ref in inputs)
    step.outputs = tuple(getattr(error, "outputs", ()))
    active.broken += (step,)
    return step
