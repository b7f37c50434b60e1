"""Which earlier build a build is compared with.

The rule: the last run of the same cell. Where there is none, or it was of another Dockerfile, the last build of the
same tag from the same folder; else the last of the same Dockerfile, folder and ``--target``, and then of any target;
of a Dockerfile that was written in a cell the last one in that notebook.

A build of the same cell, tag or file has to be like it (half of its steps have a counterpart); one that only stands in
the same notebook has to be the same but for an edit (more than half of its instructions are there word for word). A
build that failed is taken where no other is. What is like none of them was built for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bknb.history.store import History
from bknb.protocols import SolveRequest
from bknb.record import Record, StepRecord, pair

_LOOKED_AT: Final = 8
"""Builds of each target."""
_CELLS: Final = "cells"
"""Begins the target of builds that have in common only where they were written."""


def targets_of(request: SolveRequest) -> tuple[str, ...]:
    """What a build could be compared by, the nearest first: its cell, its tags, its Dockerfile."""
    origin = request.origin
    names = [name for export in request.exports for name in export.attrs.get("name", "").split(",") if name]
    found = [f"cell {origin.notebook} {origin.cell}"] if origin.cell else []
    found += [f"tag {name} {origin.context}" for name in dict.fromkeys(names)]
    place = f"file {origin.dockerfile}"
    if origin.notebook and not origin.dockerfile:
        place = f"{_CELLS} {origin.notebook}"
    place += f" {request.frontend or 'llb'} {origin.context}"
    return (*found, f"{place} target {request.opts.get('target', '')}", place)


def baseline(
    history: History, id: str, targets: Iterable[str], steps: Sequence[StepRecord]
) -> Record | None:
    """The earlier build that a build is compared with; None where it was built for the first time.

    Args:
        history: where builds are looked for.
        id: of the build; later ones are no baseline.
        targets: its own, as of `targets_of`.
        steps: its own.
    """
    failed: Record | None = None
    for target in targets:
        for record in history.walk(target, before=id, most=_LOOKED_AT):
            if not record.definition or not _alike(record.steps, steps, target):
                continue
            if any(step.outcome == "compiled" for step in record.steps):
                continue  # only its graph was asked for: it says nothing of the cache
            if not record.error and not record.cancelled:
                return record
            failed = failed or record
    return failed


def _alike(before: Sequence[StepRecord], after: Sequence[StepRecord], target: str) -> bool:
    """Whether two builds of a target have enough in common to be compared."""
    works = [one for one in pair(before, after) if one.after is not None and one.after.kind in ("exec", "file")]
    if target.startswith(_CELLS):
        return 2 * sum(one.how in ("digest", "text") for one in works) > len(works)
    return 2 * sum(one.before is not None for one in works) >= len(works)
