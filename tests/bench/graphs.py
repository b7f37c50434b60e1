"""Rows g1 and g2: graphs of many small vertices, solved for the first time and again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bknb import keys
from bknb.llb.marshal import Definition, vertex
from bknb.llb.ops import FileAction, FileOp, MergeOp, MkFileAction
from bknb.llb.vertex import Edge, OpMetadata
from bknb.options import parse
from bknb.platforms import Platform
from tests.bench.measure import Row, in_turn
from tests.bench.rows import Bench

SIZES = (625, 2500, 10_000)
CHAIN = 100


def wide(count: int, salt: int) -> bytes:
    """So many files, each by itself, laid over each other."""
    return _merged([_file(f"{salt}.{number}") for number in range(count)])


def chains(count: int, salt: int) -> bytes:
    """So many files, each on the one before, in chains of a hundred."""
    ends = []
    for chain in range(count // CHAIN):
        edge = None
        for number in range(CHAIN):
            edge = _file(f"{salt}.{chain}.{number}", edge)
        ends.append(edge)
    return _merged([edge for edge in ends if edge is not None])


def _file(name: str, below: Edge | None = None) -> Edge:
    action = MkFileAction(f"/{name}", 0o644, name.encode(), timestamp=0)
    op = FileOp((FileAction(-1 if below is None else 0, -1, 0, action),))
    meta = OpMetadata(description={"llb.customname": f"mkfile /{name}"})
    return Edge(vertex(op, () if below is None else (below,), meta=meta))


def _merged(edges: list[Edge]) -> bytes:
    head = Edge(vertex(MergeOp(tuple(range(len(edges)))), edges))
    return Definition.from_edge(head).to_bytes()


def load_and_key(data: bytes) -> None:
    """The floor of g1: the definition read, and every vertex keyed."""
    edge = Definition.from_bytes(data).to_edge()
    assert edge is not None
    platform = Platform("linux", "amd64")
    stack, seen = [edge.vertex], {edge.vertex.digest}
    while stack:
        found = stack.pop()
        keys.cache_map(found, platform)
        for below in found.inputs:
            if below.vertex.digest not in seen:
                seen.add(below.vertex.digest)
                stack.append(below.vertex)


def row_g(bench: Bench) -> list[Row]:
    """First and cached solves of graphs of three sizes, and how their cost grows."""
    rows: list[Row] = []
    shapes: list[tuple[str, Callable[[int, int], bytes]]] = [("wide", wide), ("chains of 100", chains)]
    for shape, make in shapes:
        again, first = [], []
        for size in SIZES:
            data = make(size, next(bench.numbers))
            begun = time.perf_counter()
            solve(bench, data)
            first.append(time.perf_counter() - begun)
            contenders = bench.contenders(
                lambda data=data: solve(bench, data),  # type: ignore[misc]
                lambda data=data: load_and_key(data),  # type: ignore[misc]
                None,
            )
            seconds = in_turn(contenders)
            again.append(seconds["bknb"])
            rows.append(Row("g1", f"cached solve, {size} vertices, {shape}", seconds, {"floor": 5.0}))
            rows.append(Row("g2", f"first solve, {size} file ops, {shape}", {"bknb": first[-1]}, {}))
        for name, times in (("g1", again), ("g2", first)):
            slope = math.log(times[-1] / times[0]) / math.log(SIZES[-1] / SIZES[0])
            print(f"{name}   slope of log time over log size, {shape}: {slope:.2f} (bar 1.1)")
    return rows


def solve(bench: Bench, data: bytes) -> None:
    """One solve, from wire bytes to the result."""
    edge = Definition.from_bytes(data).to_edge()
    bench.client.build(parse([], cell=True), edge=edge, llb=True)
