"""A build as a table and as a picture, for people to keep."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bknb import display
from bknb.display.model import BuildView, State
from bknb.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    import pandas

    from bknb.display.reasons import Reasons

_SHAPES = (".svg", ".png", ".dot", ".mmd", ".md", ".txt")
_PALETTE = {
    "cached": "fill:#dbeafe",
    "ran": "fill:#dcfce7",
    "failed": "fill:#fee2e2",
    "skipped": "fill:#f4f4f5",
}


def table(view: BuildView, reasons: Reasons | None = None) -> pandas.DataFrame:
    """One row for each step.

    Columns: ``step`` (the instruction), ``stage``, ``cache`` (definition, content, remote, ran, merged, skipped,
    compiled, cancelled, failed), ``why`` (the cause in short, "" for what is as it was),
    ``started`` (seconds after the build's begin), ``seconds``, ``size`` (bytes that it adds), ``digest``, ``name``.
    """
    import pandas

    from bknb.api.frames import table

    begun = view.started or 0.0
    rows = [
        {
            "step": step.label,
            "stage": step.stage,
            "cache": str(step.state),
            "why": reasons.steps.get(step.digest, "") if reasons is not None else "",
            "started": None if step.started is None else round(step.started - begun, 4),
            "seconds": None if step.duration is None else round(step.duration, 4),
            "size": step.size,
            "digest": str(step.digest),
            "name": step.name,
        }
        for step in view.shown
    ]
    frame = pandas.DataFrame(
        rows, columns=["step", "stage", "cache", "why", "started", "seconds", "size", "digest", "name"]
    )
    return table(frame.astype({"size": "Int64", "cache": pandas.CategoricalDtype([str(state) for state in State])}))


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph of a build. It shows itself; `save` writes it for elsewhere."""

    view: BuildView

    def to_dot(self) -> str:
        """In the language of graphviz."""
        return display.render_dot(self.view)

    def to_svg(self) -> str:
        """As a picture."""
        return display.render_svg(self.view)

    def to_mermaid(self) -> str:
        """In the language of mermaid, which GitHub and JupyterLab draw in markdown."""
        lines = ["flowchart LR"]
        names = {step.digest: f"v{number}" for number, step in enumerate(self.view.shown)}
        for step in self.view.shown:
            label = step.label.replace('"', "#quot;").replace("\n", " ")[:80]
            lines.append(f'  {names[step.digest]}["{label}<br/>{step.state}"]:::{_family(step.state)}')
        for step in self.view.shown:
            lines += [
                f"  {names[source]} --> {names[step.digest]}" for source in step.inputs if source in names
            ]
        lines += [
            f"  classDef {name} {style},stroke:#71717a,color:#18181b" for name, style in _PALETTE.items()
        ]
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.svg``, ``.png``, ``.dot``, ``.mmd`` (mermaid) or ``.txt``.

        Raises:
            UsageError: another ending, or the file cannot be written.
            UnsupportedError: a PNG without graphviz.
        """
        ending = os.path.splitext(os.fspath(path))[1].lower()
        if ending not in _SHAPES:
            raise UsageError(f"{os.fspath(path)}: the ending says the form: {', '.join(_SHAPES)}")
        data = _png(self.to_dot()) if ending == ".png" else self._text(ending).encode()
        try:
            with open(path, "wb") as file:
                file.write(data)
        except OSError as error:
            raise UsageError(f"{os.fspath(path)} cannot be written ({error.strerror})") from None

    def _text(self, ending: str) -> str:
        match ending:
            case ".svg":
                return self.to_svg()
            case ".dot":
                return self.to_dot()
            case ".txt":
                return display.render_text(self.view)
            case _:
                return self.to_mermaid()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> Mapping[str, str]:
        return {"image/svg+xml": self.to_svg(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return display.render_text(self.view)


def _family(state: State) -> str:
    if state.cached or state == State.MERGED:
        return "cached"
    return (
        "failed"
        if state in (State.FAILED, State.WOULD_FAIL)
        else "skipped"
        if state in (State.SKIPPED, State.CANCELLED)
        else "ran"
    )


def _png(dot: str) -> bytes:
    import subprocess

    from bknb.display.graph import program

    command = program()
    if command is None:
        raise UnsupportedError("a PNG needs graphviz: apt-get install graphviz, or save as .svg")
    return subprocess.run(
        [command, "-Tpng"], input=dot.encode(), capture_output=True, check=True, start_new_session=True
    ).stdout
