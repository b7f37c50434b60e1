"""How results are shown: a build shows itself, but not twice.

While it runs a build has a live view, which is replaced by its picture at the end. The magic returns the build as
well, for ``_`` and ``Out[n]``; shown by IPython it would stand there a second time. So the one display that
follows at once is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.display import display

from bknb import llb
from bknb.api import Build
from bknb.display import definition_beside_source, definition_bundle

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_GRAPHS = (llb.Definition, llb.State)


def _graph_bundle(
    graph: llb.Definition | llb.State, include: Any = None, exclude: Any = None
) -> dict[str, str]:
    return definition_bundle(graph)


class Formatters:
    """Registered with one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._just_shown: Build | None = None

    def register(self) -> None:
        """Take over the display of builds."""
        formatter = self._shell.display_formatter
        if formatter is not None:
            formatter.ipython_display_formatter.for_type(Build, self._show)
            for type_ in _GRAPHS:
                formatter.mimebundle_formatter.for_type(type_, _graph_bundle)

    def unregister(self) -> None:
        """Give it back."""
        formatter = self._shell.display_formatter
        if formatter is not None:
            formatter.ipython_display_formatter.type_printers.pop(Build, None)
            for type_ in _GRAPHS:
                formatter.mimebundle_formatter.type_printers.pop(type_, None)

    def shown(self, build: Build) -> None:
        """The live view has left the picture of this build: its next display is left out."""
        self._just_shown = build

    def compiled(self, build: Build) -> None:
        """Show the definition of a build that was only compiled, below its picture."""
        page = definition_beside_source(build.definition)
        display({"text/html": page, "text/plain": ""}, raw=True)  # type: ignore[no-untyped-call]

    def _show(self, build: Build) -> None:
        shown, self._just_shown = self._just_shown, None
        if shown is not build:
            display(dict(build._repr_mimebundle_()), raw=True)  # type: ignore[no-untyped-call]
