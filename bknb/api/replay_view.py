"""What is shown of a replay: its findings in the words and figures of the page."""

from __future__ import annotations

from typing import Final

from bknb.analysis.replay import Change, Outcome, Reordering, Replay
from bknb.display import amounts
from bknb.display.heat import CACHED, NONE, OPEN, RAN, HeatColumn, HeatMap, HeatRow
from bknb.display.replay import ReplayMove, ReplayView

_CELLS: Final = {Outcome.CACHED: CACHED, Outcome.RAN: RAN, Outcome.UNKNOWN: OPEN}


def view_of(found: Replay, name: str) -> ReplayView:
    """What is shown of a replay."""
    timeline = found.timeline
    ran, unknown = timeline.total(Outcome.RAN), timeline.total(Outcome.UNKNOWN)
    cells = ran + unknown + timeline.total(Outcome.CACHED)
    count = len(timeline.columns)
    share = f"{round(100 * ran / cells)} % of the steps" if cells else "No step"
    of = f"{ran:,} of {cells:,}" + (f", and {unknown:,} known only at run time" if unknown else "")
    dearest = found.costs[0] if found.costs and found.costs[0].seconds else None
    most = (
        f" Most time: {amounts.cut(dearest.row.command, 60)}, {amounts.seconds(dearest.seconds)}."
        if dearest
        else ""
    )
    over = f"the last {count:,} commits" if count > 1 else "one commit"
    last = timeline.columns[-1] if timeline.columns else None
    if not cells and last is not None and all(column.error for column in timeline.columns):
        share, why = "Nothing", f"{last.commit.short}: {last.error}"
        headline = f"can be said: none of {over} of {name} can be built. The last one, {why}"
        return ReplayView(share, headline, _heat(found), [], found.notes)
    headline = f"would have run over {over} of {name}: {of}.{most}"
    return ReplayView(share, headline, _heat(found), [_move(one) for one in found.reorderings], found.notes)


def _heat(found: Replay) -> HeatMap:
    costs = {id(cost.row): cost for cost in found.costs}
    rows = []
    for number, row in enumerate(found.timeline.rows):
        cost = costs[id(row)]
        cells = [column.cells[number] if column.cells else None for column in found.timeline.columns]
        values = [_CELLS[cell.outcome] if cell is not None else NONE for cell in cells]
        time = amounts.seconds(cost.seconds) if cost.seconds else ""
        rows.append(HeatRow(row.stage, row.command, values, cost.ran, cost.unknown, time, not row.now))
    columns = [
        HeatColumn(column.commit.short, column.commit.time, bool(column.error))
        for column in found.timeline.columns
    ]
    return HeatMap(rows, columns)


def _move(one: Reordering) -> ReplayMove:
    time = f"{amounts.seconds(one.seconds)}: " if one.seconds else ""
    basis = [_basis(change) for change in one.changes[:6]]
    if len(one.changes) > 6:
        basis.append(f"and {len(one.changes) - 6} more instructions")
    if one.seconds is None:
        basis.append("No earlier durations of these instructions are known: counted in runs")
    if one.commits < one.of:
        basis.append(
            f"The change is possible in {one.commits} of {one.of} commits; the others are as they were"
        )
    saved = f"would have saved {time}{amounts.count(one.runs, 'run')} in {amounts.count(one.of, 'commit')}"
    return ReplayMove(one.title, saved, basis, one.because, one.diff)


def _basis(change: Change) -> str:
    """What one instruction contributes to what is saved."""
    step, times = amounts.cut(change.command, 70), amounts.count(change.after, "commit")
    may = f", and may have in {change.open:,} more" if change.open else ""
    instead = f" and not in {change.before:,}" if change.before else ": it is new"
    took = "" if change.each is None else f"; {amounts.seconds(change.each)} each, {_samples(change.samples)}"
    return f"{step} would have run in {times}{may}{instead}{took}"


def _samples(count: int) -> str:
    return "from one earlier run" if count == 1 else f"the median of {count:,} earlier runs"
