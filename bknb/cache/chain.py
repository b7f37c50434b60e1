"""Which layers a result is made of: steps add one, merges join, differences cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bknb.cache.records import Record
from bknb.digest import Digest

Need = Callable[[str], Record]
"""Finds a record, or raises."""


def layer_chain(need: Need, id: str) -> tuple[str, ...]:
    """Ids of the layer records that a record is made of, bottom first."""
    known: dict[str, tuple[str, ...]] = {}
    todo = [id]
    while todo:  # not by recursion: chains are thousands long
        steps, record = _steps(need, todo[-1])
        parents = record.parents if record is not None else ()
        missing = [parent for parent in parents if parent is not None and parent not in known]
        if missing:
            todo += missing
            continue
        below = _chain_of(record, [known[parent] if parent else () for parent in parents]) if record else ()
        known[todo.pop()] = (*below, *steps)
    return known[id]


def _steps(need: Need, id: str) -> tuple[list[str], Record | None]:
    """The steps in a row that a record ends, bottom first, and the merge or difference that they stand on."""
    steps: list[str] = []
    record = need(id)
    while record.kind == "layer":
        steps.append(record.id)
        if not record.parents or record.parents[0] is None:
            return steps[::-1], None
        record = need(record.parents[0])
    return steps[::-1], record


def _chain_of(record: Record, parents: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The layers of a merge or difference, given those of its parents.

    A difference is the layers between the two where one stands on the other, else one of its own.
    """
    if record.kind == "merge":
        return tuple(layer for parent in parents for layer in parent)
    lower, upper = parents
    return upper[len(lower) :] if upper and upper[: len(lower)] == lower else (record.id,)


def chain_id(parent: str, diff_id: Digest) -> str:
    """The chain id of a layer on top of others (OCI config.md, "Layer ChainID")."""
    return Digest.of_text(f"{parent} {diff_id}") if parent else diff_id
