"""Two kernels on one store, building and pruning, killed again and again at moments that a seed chose."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bknb.api import Client, Preferences, disk_usage, prune
from bknb.options import parse
from bknb.settings import GCPolicy
from tests.conftest import need
from tests.kernel_ext.test_kernel import wait_until_gone

ROOT = Path(__file__).parents[2]
VARIANTS = 3
"""Of a context and of an instruction; few, so that most builds find something of an earlier one."""
MOMENTS = 40
"""Lines after which a kernel is killed at the latest: one or two builds or prunes."""

KERNEL = """
import random, sys
sys.path.insert(0, sys.argv[1])
from bknb.api import Client, Preferences, prune
from bknb.errors import BknbError
from bknb.options import parse
from bknb.settings import DiskSpace, GCPolicy
from tests.builder.test_kill import dockerfile, expected, shim_pid

def say(*words):
    print(*words, flush=True)

state, folder, chance = sys.argv[2], sys.argv[3], random.Random(int(sys.argv[4]))
client = Client(Preferences(root=state, offline=True, gc=False))
say("shim", client.call(shim_pid))
while True:
    try:
        act = chance.random()
        if act < 0.75:
            context, text = chance.randrange(3), chance.randrange(3)
            running = client.start(parse([f"{folder}/{context}"], cell=False), dockerfile=dockerfile(text))
            built = running.wait(lambda: [say(type(event).__name__) for event in running.new_events()])
            if built.files.text("/out") != expected(context, text):
                say("!wrong", context, text, repr(built.files.text("/out")), built.table.to_string())
        else:
            say("prune")
            policy = GCPolicy(all=True) if act < 0.9 else GCPolicy(max_used_space=DiskSpace(chance.randrange(3_000_000)))
            say(prune(client, policy))
    except BknbError as error:
        if "another kernel is pruning" not in str(error):
            say("!failed", repr(error))
"""


def dockerfile(text: int) -> str:
    """A build with steps side by side, a merge, a cache mount and a result that tells all that went into it."""
    return f"""FROM busybox AS one
COPY . /src
RUN cat /src/name /src/deep/name > /one && echo one {text} >> /one
FROM busybox AS two
RUN --mount=type=cache,target=/kept echo x >> /kept/log && echo two {text % 2} > /two
FROM busybox
COPY --link --from=one /one /one
COPY --from=two /two /two
RUN cat /one /two > /out
"""


def expected(context: int, text: int) -> str:
    """What is in /out."""
    return f"name {context}\ndeep {context}\none {text}\ntwo {text % 2}\n"


async def shim_pid(builder: object) -> int:
    """The process below which everything of a builder runs."""
    return int(builder.parts.shim.pid)  # type: ignore[attr-defined]


class Kernel:
    """A process that builds and prunes until it is killed; it says a line for all that happens."""

    def __init__(self, state: Path, folder: Path, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", KERNEL, str(ROOT), str(state), str(folder), str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.seed = seed
        self.shim = int(self.next().split()[1])

    def next(self) -> str:
        """Its next line, which is no complaint."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line and not line.startswith(("!", "Traceback")), f"seed {self.seed}: {line}{self._rest(line)}"
        return line

    def _rest(self, line: str) -> str:
        """What else it says, where it speaks of an error."""
        assert self._process.stdout is not None
        self.kill()
        return "".join(self._process.stdout.readlines()[-40:])

    def kill(self) -> None:
        """As the machine does that is out of memory."""
        self._process.kill()
        self._process.wait()


def alive(pid: int, seconds: float = 2.0) -> bool:
    """Whether a process is still there after at most some seconds; one that waits to be reaped is not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        os.sched_yield()
    return True


def rounds(tmp_path: Path, count: int) -> None:
    """Kill one of two kernels so many times, while the other works; then look for what is left."""
    need("busybox")
    chance = random.Random(20261122)
    state, folder = tmp_path / "state", tmp_path / "contexts"
    for context in range(VARIANTS):
        (folder / str(context) / "deep").mkdir(parents=True)
        (folder / str(context) / "name").write_text(f"name {context}\n")
        (folder / str(context) / "deep" / "name").write_text(f"deep {context}\n")
    before = wait_until_gone(state, "", set(), 0.0)
    kernels = [Kernel(state, folder, seed) for seed in range(2)]
    try:
        for number in range(count):
            for _ in range(chance.randrange(1, MOMENTS)):
                for kernel in kernels:
                    kernel.next()
            victim = chance.randrange(2)
            kernels[victim].kill()
            assert not alive(kernels[victim].shim), f"round {number}: a shim outlived its kernel"
            kernels[victim] = Kernel(state, folder, number + 2)
    finally:
        for kernel in kernels:
            kernel.kill()
    assert not wait_until_gone(state, "", before, 2.0)

    client = Client(Preferences(root=str(state), offline=True))
    try:
        for context, text in ((0, 0), (1, 2)):
            built = client.build(parse([str(folder / str(context))], cell=False), dockerfile=dockerfile(text))
            assert built.files.text("/out") == expected(context, text)
        del built
        prune(client, GCPolicy(all=True))
        assert disk_usage(client)["size"].sum() == 0
    finally:
        client.close()
    left = [path for path in (state / "snapshots").glob("*/layers/*") if path.is_dir()]
    blobs = [
        path for path in (state / "content").rglob("*") if path.is_file() and path.stat().st_size > 100_000
    ]
    assert not left and not blobs


@pytest.mark.timeout(300)
def test_twenty_kills(tmp_path: Path) -> None:
    """No wrong hit, no failed build, nothing left."""
    rounds(tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills(tmp_path: Path) -> None:
    """More of them."""
    rounds(tmp_path, 200)
