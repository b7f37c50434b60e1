"""The graph: vertices and edges.

Invariant: a vertex's digest is the sha256 of its op's canonical bytes (`bknb.llb.marshal`), which contain
the digests of its inputs. So a digest names a whole graph, and two graphs are compared by one comparison;
comparing structurally would be exponential on a shared diamond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bknb.digest import Digest
from bknb.errors import Range
from bknb.llb.ops import Op
from bknb.platforms import Platform


@dataclass(frozen=True, slots=True)
class ProgressGroup:
    """Vertices that are shown as one."""

    id: str
    name: str = ""
    weak: bool = False


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """Limits of an exec, not part of its identity. Memory in bytes, period and quota in microseconds."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


@dataclass(frozen=True, slots=True)
class OpMetadata:
    """What is known of a vertex without being part of its identity (pb.OpMetadata)."""

    ignore_cache: bool = False
    description: Mapping[str, str] = field(default_factory=dict)
    export_cache: bool | None = None
    caps: frozenset[str] = frozenset()
    progress_group: ProgressGroup | None = None
    linux_resources: LinuxResources | None = None

    @property
    def name(self) -> str:
        """The name that the frontend gave it, or ""."""
        return self.description.get("llb.customname", "")


@dataclass(frozen=True, slots=True, eq=False)
class SourceInfo:
    """A file that vertices come from: a Dockerfile, mostly."""

    filename: str
    data: bytes
    language: str = ""
    definition: Edge | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """The place in a source file that a vertex comes from."""

    source: SourceInfo
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """One op and its inputs. Make one with `bknb.llb.marshal.vertex`, which computes the digest.

    Attributes:
        op: what it does.
        inputs: the edges that the op's indexes count, already without repetitions.
        platform: as marshalled: for execs, images and layouts only.
        constraints: filters that a worker must pass.
        data: the op's canonical bytes.
        digest: sha256 of `data`.
        meta: name, caps, cache flags; not part of the identity.
        locations: where it comes from.
        walk: the edges that a marshaller visits, in its order, where that is not `inputs`: a file op is
            walked from its last action back, and two vertices with one digest are one input but are both
            visited, since each has its own name and place.
    """

    op: Op
    inputs: tuple[Edge, ...]
    platform: Platform | None
    constraints: tuple[str, ...]
    data: bytes
    digest: Digest
    meta: OpMetadata = OpMetadata()
    locations: tuple[Location, ...] = ()
    walk: tuple[Edge, ...] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vertex) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Vertex {self.digest.short} {self.meta.name or type(self.op).__name__}>"


@dataclass(frozen=True, slots=True)
class Edge:
    """One output of a vertex."""

    vertex: Vertex
    index: int = 0
