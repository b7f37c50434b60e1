"""Keeps values that look like secrets out of what is written down of a build.

A build argument is no place for a secret, and people put them there all the same. What a build leaves (its record,
its definition, the texts of its keys, a saved file) then has a stand-in for the value: a dot and eight digits of its
hash, so that it can still be told whether the value was another. (The digest of the step's op, which is written down
anyway, gives no less away.)

The graph of such a definition has other digests than the one that was built: `Veil.definition` gives both, and
`named` puts the digests of the build on the graph that is read back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, overload

import msgspec

from bknb.digest import Digest
from bknb.llb.marshal import Definition, vertex, walk
from bknb.llb.vertex import Edge, Vertex

_SECRET: Final = re.compile("token|secret|passw|credential|auth|api_?key|private", re.IGNORECASE)
SHORTEST: Final = 4
"""Characters of a value that is replaced wherever it stands; a shorter one only behind its name."""
ARGUMENT: Final = "build-arg:"

T = TypeVar("T")


def looks_secret(text: str) -> bool:
    """Whether a text speaks of something that nobody but its owner should read."""
    return _SECRET.search(text) is not None


def stand_in(value: str) -> str:
    """What is written for a value; another one for another value.

    >>> stand_in("hush")
    '…dc8331bc'
    """
    return "…" + hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Veil:
    """Texts, and what is written in their place. One without any changes nothing."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, opts: Mapping[str, str]) -> Veil:
        """For the build arguments whose names look like a secret's.

        >>> Veil.of({"build-arg:API_TOKEN": "hush", "build-arg:V": "1"}).text("a hush b 1")
        'a …dc8331bc b 1'
        """
        found: dict[str, str] = {}
        for option, value in opts.items():
            name = option.removeprefix(ARGUMENT)
            if option.startswith(ARGUMENT) and value and looks_secret(name):
                found[f"{name}={value}"] = f"{name}={stand_in(value)}"
                if len(value) >= SHORTEST:
                    found[value] = stand_in(value)
        return cls(tuple(sorted(found.items(), key=lambda pair: -len(pair[0]))))

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __or__(self, other: Veil) -> Veil:
        return Veil(tuple(sorted({*self.pairs, *other.pairs}, key=lambda pair: (-len(pair[0]), pair))))

    def touches(self, data: bytes) -> bool:
        """Whether anything of it would be changed."""
        return any(given.encode(errors="surrogateescape") in data for given, _ in self.pairs)

    def text(self, text: str) -> str:
        """A text without them."""
        for given, written in self.pairs:
            text = text.replace(given, written)
        return text

    def data(self, data: bytes) -> bytes:
        """Bytes without them."""
        for given, written in self.pairs:
            data = data.replace(given.encode(errors="surrogateescape"), written.encode())
        return data

    def value(self, value: T) -> T:
        """A value made of texts, bytes, tuples, mappings and dataclasses without them."""
        return self._value(value) if self.pairs else value

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return type(value)(self.text(value))
            case bytes():
                return self.data(value)
            case tuple():
                made = tuple(self._value(item) for item in value)
                return value if made == value else made
            case Mapping():
                return {self._value(name): self._value(item) for name, item in value.items()}
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
                changed = {name: made for name, item in fields.items() if (made := self._value(item)) != item}
                return replace(value, **changed) if changed else value
            case msgspec.Struct():
                fields = msgspec.structs.asdict(value)
                changed = {name: made for name, item in fields.items() if (made := self._value(item)) != item}
                return msgspec.structs.replace(value, **changed) if changed else value
            case _:
                return value

    @overload
    def edge(self, edge: Edge) -> Edge: ...

    @overload
    def edge(self, edge: Edge | None) -> Edge | None: ...

    def edge(self, edge: Edge | None) -> Edge | None:
        """The graph without them, under the digests that it was built by: to be compared, not to be built."""
        if not self.pairs or edge is None:
            return edge
        made: dict[Digest, Vertex] = {}
        for old in walk(edge.vertex):
            made[old.digest] = replace(
                old, op=self._value(old.op), meta=self._value(old.meta), data=b"", locations=(), walk=None,
                inputs=_inputs(old, made),
            )  # fmt: skip
        return Edge(made[edge.vertex.digest], edge.index)

    def definition(self, edge: Edge | None) -> tuple[bytes, Mapping[str, str]]:
        """The definition of a graph without them, and for each digest in it that is another the one that was built."""
        if not self.pairs or edge is None:
            return Definition.from_edge(edge).to_bytes(), {}
        made: dict[Digest, Vertex] = {}
        for old in walk(edge.vertex):
            made[old.digest] = vertex(
                self._value(old.op), _inputs(old, made), old.platform, old.constraints, self._value(old.meta)
            )
        changed = {str(new.digest): str(old) for old, new in made.items() if old != new.digest}
        return Definition.from_edge(Edge(made[edge.vertex.digest], edge.index)).to_bytes(), changed


def named(edge: Edge | None, digests: Mapping[str, str]) -> Edge | None:
    """A graph that was read back, under the digests that it was built by."""
    if not digests or edge is None:
        return edge
    made: dict[Digest, Vertex] = {}
    for read in walk(edge.vertex):
        built = Digest(digests.get(read.digest, read.digest))
        made[read.digest] = replace(read, digest=built, inputs=_inputs(read, made), walk=None)
    return Edge(made[edge.vertex.digest], edge.index)


def _inputs(old: Vertex, made: Mapping[Digest, Vertex]) -> tuple[Edge, ...]:
    return tuple(Edge(made[given.vertex.digest], given.index) for given in old.inputs)
