"""What people see of a build: every picture, table and line is a function of a `BuildView`.

``events -> model.fold -> BuildView -> plain | text | html | the live widget``. `model` folds; `sentence`
says in one line what happened; `palette` gives each state its colour, sign and word. The graph is planned
in `boxes`, ordered by `graph` (DOT), laid into lanes by `lanes`, drawn by `svg` (`picture` does it all);
`timeline` is a chart of its own; `definition` shows LLB beside its source; `html` joins both with `table` and `details`, made of `markup`. Nothing
here reads the solver or keeps state, save `plain.PlainProgress`: it knows what it printed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bknb.digest import Digest
from bknb.display.model import BuildView, State, StepView, fold, fold_all

if TYPE_CHECKING:
    from bknb.display.details import Files
    from bknb.display.html import render_html
    from bknb.display.plain import PlainProgress
    from bknb.display.reasons import Reasons
    from bknb.display.text import render_failure, render_text
    from bknb.llb import Definition
    from bknb.llb import State as LLBState

__all__ = [
    "BuildView",
    "PlainProgress",
    "State",
    "StepView",
    "definition_beside_source",
    "definition_bundle",
    "fold",
    "fold_all",
    "mimebundle",
    "render_dot",
    "render_failure",
    "render_html",
    "render_svg",
    "render_text",
]

_LAZY: Final = {"PlainProgress": "plain", "render_failure": "text", "render_html": "html", "render_text": "text"}
"""Where names are that are loaded when first used: a build on a command line draws nothing."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def mimebundle(
    view: BuildView, *, definition: Mapping[Digest, object] | None = None, files: Files | None = None,
    reasons: Reasons | None = None,
) -> dict[str, str]:  # fmt: skip
    """What a notebook shows and keeps of a build: HTML, and text for where there is none."""
    from bknb.display.html import render_html
    from bknb.display.text import render_text

    return {
        "text/plain": render_text(view, reasons=reasons),
        "text/html": render_html(view, definition=definition, files=files, reasons=reasons),
    }


def definition_bundle(graph: Definition | LLBState) -> dict[str, str]:
    """What a notebook shows of LLB: its picture, and its steps beside the lines that they come from."""
    from bknb.display import definition

    return definition.definition_bundle(graph)


def definition_beside_source(graph: Definition | LLBState) -> str:
    """The second half of that, as HTML.

    Raises:
        DefinitionError: it does not hold together.
    """
    from bknb.display import definition

    return definition.beside_source(graph)


def render_dot(view: BuildView) -> str:
    """The graph in DOT, every step a box of its own."""
    from bknb.display import boxes, graph

    return graph.dot(boxes.plan(view, fold_above=len(view.steps)))


def render_svg(view: BuildView, *, fold_above: int | None = None) -> str:
    """The graph as an SVG document; cached runs are folded when there are more than `fold_above` boxes."""
    from bknb.display import svg
    from bknb.display.boxes import FOLD_ABOVE
    from bknb.display.picture import arrange_anyhow

    return svg.standalone(*arrange_anyhow(view, fold_above=FOLD_ABOVE if fold_above is None else fold_above))
