"""Rows g1 to g3: graphs of many small vertices, solved for the first time and again, and the memory afterwards."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bknb.api import Client, Preferences
from bknb.llb.marshal import Definition, vertex
from bknb.llb.ops import FileAction, FileOp, MergeOp, MkFileAction
from bknb.llb.vertex import Edge, OpMetadata
from bknb.options import parse
from bknb.pb import ops_pb2
from tests.bench.measure import Row, in_turn, settle
from tests.bench.peer import peer as fresh
from tests.bench.rows import Bench

SIZES = (625, 2500, 10_000)
CHAIN = 100
Shape = Callable[[int, int], bytes]


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
    """The floor of g1: the definition parsed, each op hashed, and a key made for each."""
    message = ops_pb2.Definition.FromString(data)
    keys: dict[str, str] = {}
    for op in getattr(message, "def"):
        parsed = ops_pb2.Op.FromString(op)
        below = "".join(keys[each.digest] for each in parsed.inputs)
        keys["sha256:" + hashlib.sha256(op).hexdigest()] = hashlib.sha256(op + below.encode()).hexdigest()


def solve(client: Client, data: bytes) -> None:
    """One solve, from wire bytes to the result."""
    client.build(parse([], cell=True), edge=client.load(data), llb=True)


def row_g1(bench: Bench) -> list[Row]:
    """Cached solves of three sizes."""
    return _sizes(
        bench, "g1", "cached solve", {"wide": (wide, 0.10), "chains of 100": (chains, 0.03)}, _again
    )


def row_g2(bench: Bench) -> list[Row]:
    """First solves of three sizes."""
    return _sizes(bench, "g2", "first solve", {"wide": (wide, 0.35)}, _first)


def _sizes(
    bench: Bench,
    name: str,
    what: str,
    shapes: Mapping[str, tuple[Shape, float]],
    take: Callable[[Bench, Shape, int], Mapping[str, float]],
) -> list[Row]:
    """A row for each shape and size; the bars are of the largest size."""
    rows = []
    for shape, (make, bar) in shapes.items():
        times = []
        for size in SIZES:
            seconds = take(bench, make, size)
            times.append(seconds["bknb"])
            bars = {"BuildKit": bar, "floor": 5.0} if size == SIZES[-1] else {}
            rows.append(Row(name, f"{what}, {size} vertices, {shape}", seconds, bars))
        slope = math.log(times[-1] / times[0]) / math.log(SIZES[-1] / SIZES[0])
        print(f"{name}   slope of log time over log size, {shape}: {slope:.2f} (bar 1.1)")
    return rows


def _again(bench: Bench, make: Shape, size: int) -> Mapping[str, float]:
    data = make(size, next(bench.numbers))
    solve(bench.client, data)
    return in_turn(
        bench.contenders(
            lambda: solve(bench.client, data), lambda: load_and_key(data), lambda p: p.solve(data)
        ),
        before=lambda: settle(_processes(bench)),
        rounds=3 if size == SIZES[-1] else 5,
    )


def _first(bench: Bench, make: Shape, size: int) -> Mapping[str, float]:
    """A new graph each time, the same for all who are measured."""
    made: dict[str, bytes] = {}

    def new() -> None:
        made["graph"] = make(size, next(bench.numbers))
        settle(_processes(bench))

    contenders: dict[str, Callable[[], None]] = {"bknb": lambda: solve(bench.client, made["graph"])}
    if (peer := bench.peer) is not None:
        contenders["BuildKit"] = lambda: peer.solve(made["graph"])
    return in_turn(contenders, before=new, rounds=1 if size == SIZES[-1] else 2)


def _processes(bench: Bench) -> list[int]:
    return [os.getpid(), *([bench.peer.pid] if bench.peer is not None else [])]


def row_g3(bench: Bench) -> Row:
    """What a first and a cached solve of 10,000 wide vertices leave in memory: of whole processes, the shim's too."""
    data = wide(SIZES[-1], next(bench.numbers))
    graph = bench.place / "g3.llb"
    graph.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", "from tests.bench.rows_g import alone; alone()", str(bench.place / "g3"), str(graph)],
        check=True, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    taken = {"bknb": float(done.stdout) / 1e9}
    if bench.peer is not None:
        with fresh(bench.mirror) as other:
            assert other is not None
            for _ in range(2):
                other.solve(data)
            taken["BuildKit"] = resident(other.pid) / 1e9
    return Row("g3", "memory after g; GB, where other rows have seconds", taken, {"BuildKit": 0.25})


def alone() -> None:
    """A process of its own for g3: solve twice, print the bytes that it and its shim have in memory."""
    root, graph = sys.argv[1:]
    client = Client(Preferences(root=root, offline=True))
    for _ in range(2):
        solve(client, Path(graph).read_bytes())
    children = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for each in children for pid in each.read_text().split()]
    print(sum(resident(pid) for pid in [os.getpid(), *pids]))
    client.close()


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


ROWS: Mapping[str, Callable[[Bench], Row | list[Row]]] = {"g1": row_g1, "g2": row_g2, "g3": row_g3}
