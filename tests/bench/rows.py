"""The rows. Each returns a `Row`; `Bench` holds what they share."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bknb import llb
from bknb.api import Build, Client, Preferences
from bknb.builder.thread import SolverThread
from bknb.content.store import DiskContentStore
from bknb.options import parse
from bknb.registry.seed import find_busybox, seed
from bknb.registry.server import RegistryServer
from tests.bench import floors
from tests.bench.measure import Row, in_turn
from tests.bench.peer import Peer, is_there, peer
from tests.bench.row_k import measure as row_k_of

TEN_STEPS = """FROM busybox AS build
WORKDIR /app
COPY a.txt .
RUN cp a.txt b.txt
RUN cp b.txt c.txt
COPY src src
RUN cat src/* > d.txt
FROM busybox
COPY --from=build /app/d.txt /d.txt
RUN cat /d.txt
"""


@dataclass(slots=True)
class Bench:
    """A place for one run: a client that reaches only itself, a context, maybe a peer."""

    place: Path
    client: Client
    peer: Peer | None
    numbers: itertools.count[int]
    mirror: str

    def folder(self, name: str, dockerfile: str) -> Path:
        """A small context with a Dockerfile in it."""
        folder = self.place / name
        (folder / "src").mkdir(parents=True)
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / "a.txt").write_text("a\n")
        for number in range(8):
            (folder / "src" / f"{number}.txt").write_text(f"{number}\n")
        return folder

    def build(self, folder: Path, dockerfile: str | None = None) -> Build:
        """What is measured: text to result, all events emitted."""
        text = dockerfile if dockerfile is not None else (folder / "Dockerfile").read_text()
        return self.client.build(parse([str(folder)], cell=False), dockerfile=text)

    def contenders(
        self, ours: Callable[[], object], floor: Callable[[], object], peers: Callable[[Peer], object] | None
    ) -> Mapping[str, Callable[[], None]]:
        """bknb, its floor, and BuildKit where it is there."""
        found: dict[str, Callable[[], object]] = {"bknb": ours, "floor": floor}
        peer = self.peer
        if peer is not None and peers is not None:
            found["BuildKit"] = lambda: peers(peer)
        return found  # type: ignore[return-value]

    def containers(self) -> floors.Containers:
        """The floor of rows that run containers: the same root, the same runtime, the same filter."""
        root = Path(tempfile.mkdtemp(dir=self.place))
        lower = root / "lower"
        (lower / "bin").mkdir(parents=True)
        (lower / "dev").mkdir()
        (lower / "proc").mkdir()
        (lower / "sys").mkdir()
        (lower / "etc").mkdir()
        shutil.copy(find_busybox(), lower / "bin" / "busybox")
        for name in ("sh", "true", "sleep"):
            os.symlink("busybox", lower / "bin" / name)
        return floors.Containers(root, lower)


def row_a(bench: Bench) -> Row:
    """A fully cached rebuild."""
    folder = bench.folder("a", TEN_STEPS)
    bench.build(folder)
    database = bench.place / "a.db"
    floors.prepare_cached(database, 10)
    seconds = in_turn(
        bench.contenders(
            lambda: bench.build(folder),
            lambda: floors.cached(folder, database, 10),
            lambda p: p.build(folder),
        )
    )
    return Row("a", "cached rebuild, 10 steps, 2 stages", seconds, {"BuildKit": 0.20})


def row_a3(bench: Bench) -> Row:
    """A hundred cached steps."""
    folder = bench.folder("a3", "FROM busybox\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(100)))
    bench.build(folder)
    database = bench.place / "a3.db"
    floors.prepare_cached(database, 100)
    seconds = in_turn(
        bench.contenders(
            lambda: bench.build(folder),
            lambda: floors.cached(folder, database, 100),
            lambda p: p.build(folder),
        )
    )
    return Row("a3", "100 cached RUN steps", seconds, {"BuildKit": 0.15})


def row_b(bench: Bench) -> Row:
    """One uncached RUN, out of twenty."""
    folder = bench.folder("b", "")
    containers = bench.containers()

    def text() -> str:
        tag = next(bench.numbers)
        return "FROM busybox\n" + "".join(f'RUN ["true", "{tag}-{n}"]\n' for n in range(20))

    def theirs(peer: Peer) -> None:
        (folder / "Dockerfile").write_text(text())
        peer.build(folder)

    def floor() -> None:
        for _ in range(20):
            containers.run(["/bin/true"])

    seconds = in_turn(bench.contenders(lambda: bench.build(folder, text()), floor, theirs))
    containers.close()
    each = {who: value / 20 for who, value in seconds.items()}
    return Row("b", "one RUN true, uncached, of 20", each, {"BuildKit": 0.9, "floor": 2.0})


def row_c(bench: Bench) -> Row:
    """Sixteen stages that sleep, joined; a seventeenth that nobody needs."""
    folder = bench.folder("c", "")
    containers = bench.containers()

    def text() -> str:
        tag = next(bench.numbers)
        stages = "".join(f"FROM busybox AS s{n}\nRUN sleep 1 && echo {tag} > /out\n" for n in range(17))
        return stages + "FROM busybox\n" + "".join(f"COPY --from=s{n} /out /out{n}\n" for n in range(16))

    def ours() -> None:
        done = bench.build(folder, text())
        assert [s.outcome for s in done.steps if s.stage == "s16"] and {
            s.outcome for s in done.steps if s.stage == "s16"
        } == {"skipped"}

    def theirs(peer: Peer) -> None:
        (folder / "Dockerfile").write_text(text())
        peer.build(folder)

    seconds = in_turn(
        bench.contenders(ours, lambda: containers.run(["/bin/sleep", "1"], 16), theirs), rounds=3
    )
    containers.close()
    return Row(
        "c",
        "16 stages of RUN sleep 1, joined; a 17th never starts",
        seconds,
        {"BuildKit": 0.95, "floor": 1.2},
    )


def row_g4(bench: Bench) -> Row:
    """A chain that BuildKit cannot build."""
    place = bench.place / "g4"

    def ours() -> None:
        state = llb.scratch()
        tag = next(bench.numbers)
        for number in range(2000):
            state = state.file(llb.mkfile(f"/{number}", f"{tag}"))
        edge = state.marshal().to_edge()
        bench.client.build(parse([], cell=False), edge=edge, llb=True)

    def floor() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        floors.chain(place, 2000)

    return Row(
        "g4",
        "a chain of 2,000 file steps (BuildKit fails at 600)",
        in_turn({"bknb": ours, "floor": floor}, rounds=1),
        {},
    )


def row_h(bench: Bench) -> Row:
    """A new process on an empty folder; BuildKit's start of the daemon is included."""
    folder = bench.folder("h", TEN_STEPS.replace("busybox", f"{bench.mirror}/library/busybox"))

    def ours() -> None:
        root = tempfile.mkdtemp(dir=bench.place)
        words = [sys.executable, "-m", "bknb", "build", "--progress=quiet", str(folder)]
        subprocess.run(words, check=True, env={**os.environ, "BKNB_ROOT": root}, stdout=subprocess.DEVNULL)

    contenders = {"bknb": ours, "floor": floors.imports}
    if is_there():

        def theirs() -> None:
            with peer(bench.mirror) as fresh:
                assert fresh is not None
                fresh.build(folder)

        contenders["BuildKit"] = theirs
    return Row("h", "a new process, an empty root, 10 steps", in_turn(contenders), {"BuildKit": 1.3})


def row_h2(bench: Bench) -> Row:
    """A warm process on an empty folder."""
    folder = bench.folder("h2", TEN_STEPS.replace("busybox", f"{bench.mirror}/library/busybox"))

    def ours() -> None:
        client = Client(Preferences(root=tempfile.mkdtemp(dir=bench.place)))
        client.build(parse([str(folder)], cell=False))
        client.close()

    contenders = {"bknb": ours, "floor": floors.imports}
    if is_there():

        def theirs() -> None:
            with peer(bench.mirror) as fresh:
                assert fresh is not None
                fresh.build(folder)

        contenders["BuildKit"] = theirs
    return Row("h2", "a warm process, an empty root, 10 steps", in_turn(contenders), {"BuildKit": 0.6})


def row_i(bench: Bench) -> list[Row]:
    """Dockerfile to LLB, at three sizes."""
    rows = []
    for size, bar in ((30, 6.0), (1000, 1.5), (4000, 0.5)):
        lines = ["FROM busybox"] + [
            f"ENV V{n % 20}=v{n}" if n % 4 == 0 else f"RUN echo ${{V{n % 20}}} {n}" for n in range(size - 1)
        ]
        text = "\n".join(lines) + "\n"
        folder = bench.folder(f"i{size}", text)
        options = parse(["--llb", str(folder)], cell=True)
        contenders = bench.contenders(
            lambda options=options, text=text: bench.client.build(options, dockerfile=text),  # type: ignore[misc]
            lambda text=text: floors.read_lines(text),  # type: ignore[misc]
            lambda p, folder=folder: p.build(folder, "--opt", "requestid=frontend.convertllb"),  # type: ignore[misc]
        )
        rows.append(
            Row("i", f"Dockerfile to LLB, {size} instructions", in_turn(contenders), {"BuildKit": bar})
        )
    first, last = rows[0].seconds["bknb"], rows[-1].seconds["bknb"]
    middle = rows[1].seconds["bknb"]
    slope = math.log(last / middle) / math.log(4000 / 1000)
    print(
        f"i    slope of log time over log size, 1,000 to 4,000: {slope:.2f} (bar 1.1); 30 to 4,000: {math.log(last / first) / math.log(4000 / 30):.2f}"
    )
    return rows


def row_k(bench: Bench) -> list[Row]:
    """What the view of a cell adds: the live widget and the picture that stays."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    rows = []
    for size, bar in ((10, 0.060), (300, 0.150)):
        with capture_output():
            found = row_k_of(size)
        verdict = "holds" if found.view <= bar else "MISSED"
        seconds = {"bknb": found.view, "floor": found.floor}
        rows.append(Row("k", f"the view of {size} steps (bar {bar * 1e3:.0f} ms: {verdict})", seconds, {}))
    return rows


ROWS: Mapping[str, Callable[[Bench], Row | list[Row]]] = {
    "a": row_a, "a3": row_a3, "b": row_b, "c": row_c, "g4": row_g4, "h": row_h, "h2": row_h2, "i": row_i, "k": row_k,
}  # fmt: skip


class Mirror:
    """A registry of this process for the peer, with the same busybox as bknb's own."""

    def __init__(self, place: Path) -> None:
        self._thread = SolverThread()
        content = DiskContentStore(place / "content")
        self._server = RegistryServer(place / "repositories", content)
        seed(content, self._server.repositories.repository("library/busybox"))
        self._thread.run(self._server.start())
        self.host = self._server.host

    def close(self) -> None:
        """Stop serving."""
        self._thread.run(self._server.aclose())
        self._thread.stop()


def now() -> str:
    """When this was measured."""
    return time.strftime("%Y-%m-%d %H:%M")
