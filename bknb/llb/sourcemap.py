"""Where vertices come from: files, and places in them, by digest.

In the graph each vertex has its own `Location`s; on the wire (pb.Source) files are counted and places are
kept by digest. This module holds the wire form and the way from one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bknb.digest import Digest
from bknb.errors import Range
from bknb.llb.vertex import Edge, Location, SourceInfo

if TYPE_CHECKING:
    from bknb.llb.marshal import Definition


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that vertices come from, and the definition that would load it (pb.SourceInfo)."""

    filename: str
    data: bytes = field(repr=False)
    language: str = ""
    definition: Definition | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Ranges in the file with this index (pb.Location)."""

    source_index: int
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Files, and the places of each vertex (pb.Source)."""

    files: tuple[SourceFile, ...] = ()
    places: Mapping[Digest, tuple[Place, ...]] = field(default_factory=dict)

    def ranges(self, vertex: str, *, file: int = 0) -> tuple[Range, ...]:
        """The ranges of one vertex in one file."""
        found = self.places.get(Digest(vertex), ())
        return tuple(part for place in found if place.source_index == file for part in place.ranges)

    def vertices_at(self, line: int, *, file: int = 0) -> tuple[Digest, ...]:
        """The vertices that come from a line (counted from 1), in the order of the definition."""
        return tuple(
            vertex
            for vertex in self.places
            if any(part.start_line <= line <= part.end_line for part in self.ranges(vertex, file=file))
        )


class _Marshal(Protocol):
    def __call__(self, edge: Edge | None, /) -> Definition: ...


class Collector:
    """Counts files while vertices are visited: one of equal files stands for all of them."""

    def __init__(self) -> None:
        self._files: list[SourceInfo] = []
        self._indexes: dict[int, int] = {}
        self._places: dict[Digest, list[Place]] = {}

    def add(self, vertex: Digest, locations: Iterable[Location]) -> None:
        """Note the locations of a vertex; those of an equal one that was seen earlier stay before them."""
        places = self._places.setdefault(vertex, [])
        places += (Place(self._index(location.source), location.ranges) for location in locations)

    def _index(self, info: SourceInfo) -> int:
        known = self._indexes.get(id(info))
        if known is not None:
            return known
        index = next((i for i, other in enumerate(self._files) if _equal(other, info)), len(self._files))
        if index == len(self._files):
            self._files.append(info)
        self._indexes[id(info)] = index
        return index

    def finish(self, marshal: _Marshal) -> SourceMap:
        """The wire form; `marshal` makes the definitions of the files."""
        files = (
            SourceFile(
                i.filename, i.data, i.language, None if i.definition is None else marshal(i.definition)
            )
            for i in self._files
        )
        return SourceMap(tuple(files), {vertex: tuple(places) for vertex, places in self._places.items()})


def _equal(one: SourceInfo, other: SourceInfo) -> bool:
    if (one.filename, one.language, one.data) != (other.filename, other.language, other.data):
        return False
    return one.definition is None or other.definition is None or one.definition == other.definition
