"""From a view to a graph with coordinates: what to draw, in which order, where.

The layout program is asked about the whole graph, whatever is folded afterwards: a rebuild has the same graph,
so it is asked once, the shape of the picture does not depend on what was cached, and the saved picture costs
no second run.
"""

from __future__ import annotations

from bknb.display import graph, lanes
from bknb.display.boxes import FOLD_ABOVE, Plan, plan
from bknb.display.lanes import Layout
from bknb.display.model import BuildView


def arrange(view: BuildView, *, fold_above: int = FOLD_ABOVE) -> tuple[Plan, Layout] | None:
    """The graph of a build with its coordinates; None where no layout program is."""
    whole = plan(view, fold_above=len(view.steps) + 1)
    places = graph.places(whole) if len(whole.boxes) <= graph.LARGEST else graph.order(whole)
    if places is None:
        return None
    shown = plan(view, fold_above=fold_above)
    return shown, lanes.layout(shown, places)


def arrange_anyhow(view: BuildView, *, fold_above: int = FOLD_ABOVE) -> tuple[Plan, Layout]:
    """As `arrange`, with the order of the graph itself where there is no layout program."""
    found = arrange(view, fold_above=fold_above)
    if found is not None:
        return found
    shown = plan(view, fold_above=fold_above)
    return shown, lanes.layout(shown, graph.order(shown))
