"""Builds that shall run nothing: each step is in the cache, or the build fails (``--fail-on-miss``)."""

from __future__ import annotations

from collections.abc import Iterable

from bknb.errors import MissError
from bknb.events import Outcome
from bknb.llb.ops import PassthroughOp, SourceOp
from bknb.llb.vertex import Vertex
from bknb.solver.graph import ActiveVertex


def refuse(vertex: Vertex) -> MissError | None:
    """Why a step must not run; None of what only brings something from outside."""
    if isinstance(vertex.op, SourceOp | PassthroughOp):
        return None
    return MissError(
        "not cached, so it was not run (--fail-on-miss): what it reads was never built with before"
    )


def check(graph: Iterable[ActiveVertex]) -> None:
    """Look for steps that another build ran meanwhile, and this one would have had to.

    Raises:
        MissError: there is one.
    """
    for active in graph:
        ran = active.status.outcome in (Outcome.RAN, Outcome.MERGED)
        if ran and refuse(active.vertex) is not None:
            name = active.vertex.meta.name or repr(active.vertex)
            raise MissError(f"not cached: {name}: another build ran it meanwhile (--fail-on-miss)")
