"""What has to run, told plainly: one vertex after the other, without a solver, a store or anything at the same time.

A step is cached when links of all of its inputs lead to one key, by the input's definition or, where it is marked, by
its content. Content is looked at when no link starts from the definition, or when the definitions agree on nothing; not
at all once an input that cannot match has settled it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.fakes import LINE, read

Link = tuple[str, str, int, str]


@dataclass
class Vertex:
    """One line of a graph, and what has become of it in this build."""

    name: str
    kind: str
    inputs: list[tuple[Vertex, str, bool]]
    keys: set[str] = field(default_factory=set)
    value: str | None = None

    @property
    def op(self) -> str:
        """What its cache map says."""
        return f"{'' if self.kind == 'same' else self.name} {self.kind} {len(self.inputs)}"


class Oracle:
    """Remembers builds, as a cache does."""

    def __init__(self) -> None:
        self.links: dict[Link, set[str]] = {}
        self.values: dict[str, str] = {}
        self.ran: Counter[str] = Counter()
        self.builds = 0

    def build(self, graph: str, files: dict[str, str]) -> Counter[str]:
        """What runs, by op and not by name, since of two that are one either may run."""
        self.builds += 1
        self.ran = Counter()
        vertices: dict[str, Vertex] = {}
        for line in filter(str.strip, graph.splitlines()):
            found = LINE.match(line)
            assert found is not None and not found[3]
            inputs = []
            for word in (found[4] or "").split():
                name, _, part = word.rstrip("*").partition("/")
                inputs.append((vertices[name], part, word.endswith("*")))
            vertex = vertices[found[1]] = Vertex(found[1], found[2], inputs)
            if not inputs:
                text = files.get(vertex.name, vertex.name)
                mark = f"{vertex.name} {self.builds}" if vertex.kind == "local" else f"{vertex.name} {text}"
                vertex.keys = {mark}
            else:
                self._look(vertex, files)
        self._realise(list(vertices.values())[-1], files)
        return self.ran

    def _look(self, vertex: Vertex, files: dict[str, str]) -> None:
        """The keys that lead to a step, as far as they can be known without realising what does not matter."""
        found = [
            self._led(vertex, number, given.keys, part)
            for number, (given, part, _) in enumerate(vertex.inputs)
        ]
        marked = [number for number, (_, _, content) in enumerate(vertex.inputs) if content]
        for wanted in ([n for n in marked if not found[n]], marked):
            vertex.keys = set.intersection(*found)
            dead = any(not keys and number not in marked for number, keys in enumerate(found))
            if vertex.keys or dead:
                return
            for number in wanted:
                given, part, _ = vertex.inputs[number]
                content = self._content(given, part, files)
                found[number] |= self._led(vertex, number, {content}, "")
                for key in given.keys:
                    self.links.setdefault((key, part, number, vertex.op), set()).update(found[number])
        vertex.keys = set.intersection(*found)

    def _led(self, vertex: Vertex, number: int, keys: set[str], part: str) -> set[str]:
        return set().union(*(self.links.get((key, part, number, vertex.op), set()) for key in keys))

    def _content(self, given: Vertex, part: str, files: dict[str, str]) -> str:
        return f"content {read(self._realise(given, files), part)}"

    def _realise(self, vertex: Vertex, files: dict[str, str]) -> str:
        if vertex.value is None:
            known = next((key for key in sorted(vertex.keys) if key in self.values), None)
            if not known and vertex.inputs:
                self._look(vertex, files)  # what it stands on may have been realised since
                known = next((key for key in sorted(vertex.keys) if key in self.values), None)
            vertex.value = self.values[known] if known else self._run(vertex, files)
        return vertex.value

    def _run(self, vertex: Vertex, files: dict[str, str]) -> str:
        self.ran[vertex.op] += 1
        if not vertex.inputs:
            value = files.get(vertex.name, vertex.name)
            if vertex.kind != "local":
                self.values |= dict.fromkeys(vertex.keys, value)
            return value
        parts = [read(self._realise(given, files), part) for given, part, _ in vertex.inputs]
        value = f"{'same' if vertex.kind == 'same' else vertex.name}({', '.join(parts)})"
        key = f"key {len(self.values)} {vertex.op}"
        for number, (given, part, content) in enumerate(vertex.inputs):
            ways = [(one, part) for one in given.keys] + (
                [(f"content {parts[number]}", "")] if content else []
            )
            for one, selector in ways:
                self.links.setdefault((one, selector, number, vertex.op), set()).add(key)
        self.values[key] = value
        vertex.keys.add(key)
        return value
