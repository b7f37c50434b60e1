"""A build as it was recorded: what a comparison reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bknb.events import BuildEvent, DecisionEvent, Event, Phase, VertexEvent
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.parser import parse
from bknb.llb.marshal import walk
from bknb.llb.vertex import Edge, Vertex
from bknb.record import StepRecord


@dataclass(frozen=True, slots=True)
class Variable:
    """An ARG or ENV of a Dockerfile: the instruction's word, its line, and the value that the text gives."""

    word: str
    line: int
    value: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One build.

    Attributes:
        id: of its record; `targets` what it is compared by, () where it was not asked of a history.
        steps: in the order in which they were first spoken of.
        vertices: the graph, by digest.
        opts: the frontend's options, secrets taken out.
        frontend: which one, in words.
        lines: for each step the first and last line of its instruction.
        content: for each step and input the digest of the files that it reads of it.
        keys: for each source the digests that it was keyed by.
        ignored: steps that were run although the cache might have had them.
        lost: steps of which the cache knew a result that was gone, and what was said of it.
        unreachable: steps for which an imported cache could not be asked: its name, and what was said; under "" what
            holds for the whole build.
        left_out: steps that an exported cache has not: its name, and why.
        remotes: steps that were imported, and the name of the cache that they come from.
        texts: what digests were taken of, where a file brought that along.
        removed: steps whose result had been removed before this build: when (unix seconds), and by what, in words.
        started: unix seconds; `finished` likewise, 0.0 where it is not known.
        variables: ARG and ENV by name, in the order of the Dockerfile.
    """

    id: str
    steps: tuple[StepRecord, ...]
    vertices: Mapping[str, Vertex] = field(default_factory=dict)
    opts: Mapping[str, str] = field(default_factory=dict)
    frontend: str = ""
    source: tuple[str, ...] = ()
    lines: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    content: Mapping[tuple[str, int], str] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    lost: Mapping[str, str] = field(default_factory=dict)
    unreachable: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    remotes: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0
    variables: Mapping[str, tuple[Variable, ...]] = field(default_factory=dict)
    targets: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        id: str,
        steps: Iterable[StepRecord],
        events: Iterable[Event],
        edges: Iterable[Edge | None] = (),
        opts: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
        removed: Mapping[str, tuple[float, str]] | None = None,
    ) -> Seen:
        """A build from what it left: its steps, what it said, and the graph of each platform."""
        steps = tuple(steps)
        # What the builder does for itself (an import, say) speaks for the whole build.
        told = _Told(frozenset(step.digest for step in steps if step.kind != "internal"))
        for event in events:
            told.take(event)
        vertices: dict[str, Vertex] = {
            vertex.digest: vertex for edge in edges if edge is not None for vertex in walk(edge.vertex)
        }
        end = told.end
        return cls(
            id, steps, vertices, opts or {}, end.frontend, tuple(end.dockerfile.splitlines()), told.lines,
            told.content, told.keys, frozenset(told.ignored), told.lost, told.unreachable, told.left_out, told.remotes,
            texts or {}, removed or {}, told.begun, end.time, variables(end.dockerfile),
        )  # fmt: skip

    def text(self, step: StepRecord) -> str:
        """The instruction as it is written; its expanded form where the source is not there."""
        first, last = self.lines.get(step.digest, (0, 0))
        if not 0 < first <= last <= len(self.source):
            return step.command
        return "\n".join(self.source[first - 1 : last]).strip()

    def value(self, name: str) -> str | None:
        """The value of a build argument: as given, else the text's last default."""
        given = self.opts.get(f"build-arg:{name}")
        found = [one.value for one in self.variables.get(name, ()) if one.value is not None]
        return given if given is not None else found[-1] if found else None

    def next_stage(self, line: int) -> int:
        """The line of the first FROM below a line; the one after the last line where there is none."""
        stages = parse("\n".join(self.source)).stages
        lines = (stage.head.start_line for stage in stages)
        return next((found for found in lines if found > line), len(self.source) + 1)


NOTHING: Final = Seen("", ())
"""What a first build is compared with."""


class _Told:
    """What the events of a build say, gathered by step."""

    def __init__(self, known: frozenset[str]) -> None:
        self.known = known
        self.begun = 0.0
        self.end = BuildEvent("", 0.0)
        self.lines: dict[str, tuple[int, int]] = {}
        self.content: dict[tuple[str, int], str] = {}
        self.keys: dict[str, tuple[str, ...]] = {}
        self.ignored: set[str] = set()
        self.lost: dict[str, str] = {}
        self.unreachable: dict[str, tuple[str, str]] = {}
        self.left_out: dict[str, tuple[str, str]] = {}
        self.remotes: dict[str, str] = {}

    def take(self, event: Event) -> None:
        match event:
            case BuildEvent():
                self.begun = self.begun or event.time
                self.end = event
            case VertexEvent(ranges=(first, *_) as ranges):
                last = max(r.end_line or r.start_line for r in ranges)
                self.lines[event.digest] = (first.start_line, last)
            case DecisionEvent():
                self._decided(event)

    def _decided(self, event: DecisionEvent) -> None:
        vertex = event.vertex
        match event.phase, event.outcome, event.causes:
            case Phase.CONTENT, "keyed", (place, digest):
                self.content[vertex, int(place.removeprefix("input:"))] = digest
            case Phase.KEY, "keyed", causes:
                self.keys[vertex] = (*self.keys.get(vertex, ()), *causes)
            case Phase.KEY, "ignored", _:
                self.ignored.add(vertex)
            case ((Phase.KEY | Phase.CONTENT), "hit", (_, _, remote)):
                self.remotes[vertex] = remote
            case Phase.LOAD, "lost", causes:
                self.lost[vertex] = " ".join(causes[2:])
            case Phase.LOAD, "unreachable", (remote, *said):
                place = vertex if vertex in self.known else ""
                self.unreachable[place] = (remote, " ".join(said))
            case Phase.EXPORT, "left-out", (remote, *said):
                self.left_out[vertex] = (remote, " ".join(said))


def variables(source: str) -> dict[str, tuple[Variable, ...]]:
    """ARG and ENV of a Dockerfile by name."""
    if not source:
        return {}
    found: dict[str, tuple[Variable, ...]] = {}
    tree = parse(source)
    for one in (*tree.meta_args, *(command for stage in tree.stages for command in stage.commands)):
        match one:
            case ast.Arg(args=args):
                pairs = [(arg.key, arg.value) for arg in args]
            case ast.Env(pairs=given):
                pairs = [(pair.key, pair.value) for pair in given]
            case _:
                continue
        for name, value in pairs:
            word = "ARG" if isinstance(one, ast.Arg) else "ENV"
            found[name] = (*found.get(name, ()), Variable(word, one.start_line, value))
    return found


def uses(text: str, name: str) -> bool:
    """Whether an instruction names a variable.

    >>> uses("RUN echo ${V:-1}", "V"), uses("RUN echo $VERSION", "V")
    (True, False)
    """
    return re.search(rf"\$(?:{re.escape(name)}\b|\{{{re.escape(name)}\b)", text) is not None
