"""kill -9 of the kernel at any moment of a build."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import need
from tests.kernel_ext.kernel import Kernel
from tests.kernel_ext.test_kernel import group_of, traces, wait_until_gone

CELL = """%%dockerfile --progress=plain -t {tag} --out build
FROM busybox AS a
COPY . /src
RUN cat /src/* > /a && echo {tag} >> /a
FROM busybox AS b
RUN --mount=type=cache,target=/c echo {tag} >> /c/log && cp /c/log /b
FROM busybox
COPY --from=a /a /a
COPY --from=b /b /b
RUN sleep 0.1 && cat /a /b > /c
"""
LONGEST = 0.8
"""Seconds after the start of the build at which the kernel is killed at the latest: the build takes about as long."""


def rounds(tmp_path: Path, count: int) -> None:
    """Kill so many kernels, each in a build; after each nothing is left, and the next one builds."""
    need("busybox")
    chance = random.Random(20261121)
    folder, state = tmp_path / "work", tmp_path / "state"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text("x" * 10_000 + "\n")
    before = {trace for trace in traces(state) if trace.startswith("netns")}
    for number in range(count):
        kernel = Kernel(folder, state)
        try:
            kernel.run("%load_ext bknb\n%config Bknb.offline = True")
            group = group_of(kernel)
            done = kernel.run(CELL.format(tag=f"whole{number}"))
            assert done.status == "ok", "\n".join(done.error)
            assert kernel.run("print(build.run('tail -n 1 /a').stdout)").stdout.strip() == f"whole{number}"
            kernel.client.execute(CELL.format(tag=f"killed{number}"))
            alarm = threading.Event()
            alarm.wait(chance.random() * LONGEST)
            os.kill(kernel.pid, signal.SIGKILL)
            begun = time.monotonic()
            left = wait_until_gone(state, group, before, 2.0)
            assert not left, f"round {number}: after {time.monotonic() - begun:.1f} s there is {left}"
        finally:
            kernel.close()


@pytest.mark.timeout(300)
def test_five_killed_kernels(tmp_path: Path) -> None:
    """Five kernels, killed at moments that a seed chose."""
    rounds(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_killed_kernels(tmp_path: Path) -> None:
    """Fifty of them."""
    rounds(tmp_path, 50)
