"""A definition beside its source: each step names its lines, each line its steps.

Static, for pages that keep no script and no style sheet (`bknb.display.html` says why): hovering shows the other
side through ``title``, on elements that pages keep it on, and the numbers stand there for who cannot hover.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bknb.digest import Digest
from bknb.display import amounts
from bknb.display.ansi import plain
from bknb.display.markup import CODE, PRE, QUIET, fill, fold, short_digest, words
from bknb.display.model import BuildView, fold_all
from bknb.display.operation import describe
from bknb.display.palette import SANS
from bknb.errors import BknbError
from bknb.events import BuildEvent, Outcome, VertexEvent
from bknb.llb import Definition, SourceMap, State
from bknb.llb import render as llb
from bknb.llb.load import load
from bknb.llb.marshal import walk
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex

MOST_STEPS, MOST_LINES, MOST_TIPS, MOST_MARKED = 120, 200, 6, 1_000
"""Rows of the two tables, entries of one hover text, steps and lines that are matched: files may be large."""
_CELL = (
    "text-align:left;padding:2px 14px 2px 0;border:0;white-space:nowrap;background:none;vertical-align:top"
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A definition, read: its vertices in order, and where each comes from.

    Attributes:
        vertices: inputs first; a vertex's place counted from 1 is its number on the page.
        source: the files; empty where the definition names none.
    """

    vertices: tuple[Vertex, ...]
    source: SourceMap

    @classmethod
    def read(cls, graph: Definition | State) -> Compiled:
        """Check a definition, or marshal a state.

        Raises:
            DefinitionError: it does not hold together.
        """
        definition = graph if isinstance(graph, Definition) else graph.marshal()
        edge = load(definition)
        return cls(() if edge is None else tuple(walk(edge.vertex)), definition.source or SourceMap())

    def numbers(self) -> Mapping[Digest, int]:
        """The number of each vertex."""
        return {vertex.digest: number for number, vertex in enumerate(self.vertices, 1)}

    def lines_of(self, vertex: Digest, file: int) -> list[int]:
        """The lines of a file that a vertex comes from; at most `MOST_MARKED`."""
        spans = self.source.ranges(vertex, file=file)
        lines = (line for span in spans for line in range(span.start_line, span.end_line + 1))
        return sorted(set(itertools.islice(lines, MOST_MARKED)))

    def steps_of(self, file: int) -> Mapping[int, list[int]]:
        """The numbers of the steps that come from each line of a file."""
        found: dict[int, list[int]] = {}
        for number, vertex in enumerate(self.vertices[:MOST_MARKED], 1):
            for line in self.lines_of(vertex.digest, file):
                found.setdefault(line, []).append(number)
        return found


def definition_bundle(graph: Definition | State) -> dict[str, str]:
    """What a notebook shows of a definition or a state: picture, source, steps."""
    try:
        found = Compiled.read(graph)
    except BknbError as error:
        said = f"not a definition that can be built: {error}"
        return {"text/plain": said, "text/html": f'<pre style="{PRE}">{html.escape(said)}</pre>'}
    return {"text/plain": _text(found), "text/html": _framed(_picture(found) + _beside(found))}


def beside_source(graph: Definition | State) -> str:
    """Only the source and the steps, as HTML, for a page that has the picture already.

    Raises:
        DefinitionError: it does not hold together.
    """
    return _framed(_beside(Compiled.read(graph)))


def compiled_view(found: Compiled) -> BuildView:
    """The steps of a definition as a build that only compiled it."""
    events = [
        VertexEvent(
            vertex.digest,
            vertex.meta.name or llb.describe(vertex.op) or "exec",
            tuple(dict.fromkeys(edge.vertex.digest for edge in vertex.inputs)),
            kind=_kind(vertex),
            ranges=found.source.ranges(vertex.digest),
            outcome=Outcome.COMPILED,
        )
        for vertex in found.vertices
    ]
    return fold_all(BuildView(), [BuildEvent("", 0.0), *events, BuildEvent("", 0.0, finished=True)])


def _kind(vertex: Vertex) -> str:
    if isinstance(vertex.op, SourceOp) and vertex.op.identifier.startswith("local://"):
        return "local"
    return type(vertex.op).__name__.removesuffix("Op").lower()


def _name(vertex: Vertex) -> str:
    return plain(vertex.meta.name or llb.describe(vertex.op)).replace("\n", " ") or "exec"


def _text(found: Compiled) -> str:
    from bknb.display.text import columns

    if not found.vertices:
        return "scratch: no op"
    numbers = found.numbers()
    rows = [("", "step", "op", "inputs", "lines", "bytes", "digest")]
    rows += [
        (
            str(numbers[vertex.digest]),
            amounts.cut(_name(vertex), 60),
            _kind(vertex),
            _inputs(vertex, numbers),
            _spans(found.lines_of(vertex.digest, 0)),
            str(len(vertex.data)),
            amounts.short(vertex.digest, 12),
        )
        for vertex in found.vertices[:MOST_STEPS]
    ]
    left_out = len(found.vertices) - MOST_STEPS
    more = f"\nand {amounts.count(left_out, 'more step')}" if left_out > 0 else ""
    return columns(rows, right=(0, 5)) + more


def _inputs(vertex: Vertex, numbers: Mapping[Digest, int]) -> str:
    shown = [str(numbers[edge.vertex.digest]) for edge in vertex.inputs[:MOST_TIPS]]
    return " ".join(shown) + (" …" if len(vertex.inputs) > MOST_TIPS else "")


def _spans(lines: Sequence[int]) -> str:
    """Numbers as spans.

    >>> _spans([1, 2, 3, 7])
    '1-3, 7'
    """
    spans: list[list[int]] = []
    for line in lines:
        if spans and line == spans[-1][1] + 1:
            spans[-1][1] = line
        else:
            spans.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _framed(content: str) -> str:
    return (
        f'<div class="tex2jax_ignore mathjax_ignore" style="font-family:{html.escape(SANS)};font-size:13px;'
        f'line-height:1.5;max-width:1180px;padding:4px 2px">{content}</div>'
    )


def _picture(found: Compiled) -> str:
    from bknb.display.html import graph_image

    return graph_image(compiled_view(found)) if found.vertices else ""


def _beside(found: Compiled) -> str:
    if not found.vertices:
        return f'<div style="{QUIET}">scratch: no op</div>'
    sides = [_file(found, index) for index in range(min(len(found.source.files), 4))]
    columns = f"minmax(0,{'2' if any(sides) else '0'}fr) minmax(0,3fr)"
    if not any(sides):
        return _steps(found) + _details(found)
    return (
        f'<div style="display:grid;grid-template-columns:{columns};gap:18px;align-items:start">'
        f"<div>{''.join(sides)}</div><div>{_steps(found)}</div></div>{_details(found)}"
    )


def _file(found: Compiled, index: int) -> str:
    """One source file, a row for each line: its number, its text, the steps that it becomes."""
    file = found.source.files[index]
    text = [plain(line) for line in file.data.decode("utf-8", "replace").splitlines()]
    steps = found.steps_of(index)
    rows = "".join(
        _line(found, number, line, steps.get(number, ())) for number, line in enumerate(text[:MOST_LINES], 1)
    )
    left_out = len(text) - MOST_LINES
    more = f'<div style="{QUIET}">and {amounts.count(left_out, "more line")}</div>' if left_out > 0 else ""
    title = f'<div style="{QUIET}">{words(amounts.cut(plain(file.filename), 80))}</div>'
    return f'{title}<div style="overflow-x:auto">{_table("", rows)}</div>{more}'


def _line(found: Compiled, number: int, text: str, steps: Sequence[int]) -> str:
    names = [f"{step} {_name(found.vertices[step - 1])[:70]}" for step in steps[:MOST_TIPS]]
    if len(steps) > MOST_TIPS:
        names.append(f"and {len(steps) - MOST_TIPS} more")
    tip = html.escape("\n".join(names) or "no step")
    shown = " ".join(map(str, steps[:4]))
    dim = "" if steps else f";{QUIET}"
    return (
        f'<tr style="background:none{dim}"><td style="{_CELL};text-align:right;{QUIET}">{number}</td>'
        f'<td style="{_CELL}"><code title="{tip}" style="{CODE};white-space:pre">{html.escape(text[:300]) or " "}</code></td>'
        f'<td style="{_CELL};{QUIET}">{"→ " if steps else ""}{shown}{" …" if len(steps) > 4 else ""}</td></tr>'
    )


def _steps(found: Compiled) -> str:
    numbers = found.numbers()
    files = [file.data.decode("utf-8", "replace").splitlines() for file in found.source.files[:4]]
    rows = "".join(_step(found, vertex, numbers, files) for vertex in found.vertices[:MOST_STEPS])
    left_out = len(found.vertices) - MOST_STEPS
    more = f'<div style="{QUIET}">and {amounts.count(left_out, "more step")}: <code style="{CODE}">bknb.llb.render.frame(definition)</code></div>'
    return f'<div style="overflow-x:auto">{_table("#,step,op,inputs,lines,digest", rows)}</div>{more if left_out > 0 else ""}'


def _step(
    found: Compiled, vertex: Vertex, numbers: Mapping[Digest, int], files: Sequence[Sequence[str]]
) -> str:
    tips, places = [], []
    for index, text in enumerate(files):
        lines = found.lines_of(vertex.digest, index)
        if lines:
            places.append(_spans(lines))
            tips.append(f"{found.source.files[index].filename}:{_spans(lines)}")
            tips += [text[line - 1][:80] for line in lines[:MOST_TIPS] if line <= len(text)]
    tip = html.escape(plain("\n".join(tips)) or "it comes from no line")
    name = amounts.cut(_name(vertex), 46)
    cells = (
        f"{numbers[vertex.digest]}",
        f'<code title="{tip}" style="{CODE}">{html.escape(name)}</code>',
        _kind(vertex),
        _inputs(vertex, numbers),
        "; ".join(places),
        short_digest(vertex.digest, 12),
    )
    return f'<tr style="background:none">{"".join(f"""<td style="{_CELL}">{cell}</td>""" for cell in cells)}</tr>'


def _table(titles: str, rows: str) -> str:
    heads = "".join(
        f'<th scope="col" style="{_CELL};font-weight:500;opacity:.65">{title}</th>' for title in titles.split(",") if title
    )  # fmt: skip
    return fill("table", {"heads": heads, "rows": rows})


def _details(found: Compiled) -> str:
    """Each op in full, folded; as many as fit."""
    return fold("Ops in full", "every field that is not empty", "".join(_ops(found)), opened=False)


def _ops(found: Compiled) -> Iterator[str]:
    room = 60_000
    for number, vertex in enumerate(found.vertices[:MOST_STEPS], 1):
        said = html.escape(plain(f"{number} {vertex.digest}\n{describe(vertex.op)}"))
        room -= len(said)
        if room < 0:
            return
        yield f'<pre style="{PRE}">{said}</pre>'
