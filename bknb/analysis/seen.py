"""A build as it was recorded: what a comparison reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
        id: of its record.
        steps: in the order in which they were first spoken of.
        vertices: the graph, by digest.
        opts: the frontend's options, secrets taken out.
        frontend: which one, in words.
        lines: for each step the first and last line of its instruction.
        content: for each step and input the digest of the files that it reads of it.
        keys: for each source the digests that it was keyed by.
        ignored: steps that were run although the cache might have had them.
        lost: steps of which the cache knew a result that was gone.
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
    lost: frozenset[str] = frozenset()
    variables: Mapping[str, tuple[Variable, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        id: str,
        steps: Iterable[StepRecord],
        events: Iterable[Event],
        edges: Iterable[Edge | None] = (),
        opts: Mapping[str, str] | None = None,
    ) -> Seen:
        """A build from what it left: its steps, what it said, and the graph of each platform."""
        lines: dict[str, tuple[int, int]] = {}
        content: dict[tuple[str, int], str] = {}
        keys: dict[str, tuple[str, ...]] = {}
        ignored, lost = set(), set()
        end = BuildEvent("", 0.0)
        for event in events:
            match event:
                case BuildEvent():
                    end = event
                case VertexEvent(ranges=(first, *_) as ranges):
                    lines[event.digest] = (first.start_line, max(r.end_line or r.start_line for r in ranges))
                case DecisionEvent(phase=Phase.CONTENT, outcome="keyed", causes=(place, digest)):
                    content[event.vertex, int(place.removeprefix("input:"))] = digest
                case DecisionEvent(phase=Phase.KEY, outcome="keyed"):
                    keys[event.vertex] = (*keys.get(event.vertex, ()), *event.causes)
                case DecisionEvent(phase=Phase.KEY, outcome="ignored"):
                    ignored.add(event.vertex)
                case DecisionEvent(phase=Phase.LOAD, outcome="lost"):
                    lost.add(event.vertex)
        vertices: dict[str, Vertex] = {
            vertex.digest: vertex for edge in edges if edge is not None for vertex in walk(edge.vertex)
        }
        return cls(
            id, tuple(steps), vertices, opts or {}, end.frontend, tuple(end.dockerfile.splitlines()), lines,
            content, keys, frozenset(ignored), frozenset(lost), variables(end.dockerfile),
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
