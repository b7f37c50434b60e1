"""Row k: what a cell's view adds to a build of 10 and of 300 steps.

Measured is the main thread's time: folding, telling the page, and the picture that stays, with everything
that goes over the wire turned into JSON. The layout of the live graph runs in its own thread and is waited for
outside of the clock. The floor program is `dot` alone, on the same graph.

    python -m tests.bench.row_k
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bknb.display import BuildView, fold_all, graph, mimebundle
from bknb.display.boxes import plan
from bknb.events import Event
from tests.display import streams

TICKS = 20
"""Times that a cell feeds its view in a build: one of two seconds."""
BARS = {10: 0.060, 300: 0.150}
"""Seconds, from PERFORMANCE.md."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Seconds for one size: the view's, and the floor's."""

    steps: int
    view: float
    floor: float

    def __str__(self) -> str:
        said = (
            f"k  {self.steps:4} steps  view {self.view * 1000:6.1f} ms  bar {BARS[self.steps] * 1000:.0f} ms"
        )
        return f"{said}  dot {self.floor * 1000:5.1f} ms  ratio {self.view / self.floor:.1f}"


def events(steps: int) -> list[Event]:
    """A rebuild in which a tenth of the steps runs."""
    return streams.edited() if steps == 10 else streams.large(steps)


def one_view(batches: Sequence[Sequence[Event]]) -> float:
    """Seconds of the main thread for one build's view."""
    from kernel_ext.live import LiveView
    from kernel_ext.widget import BuildWidget

    spent = 0.0
    sent: list[Any] = []
    send, BuildWidget.send = (
        BuildWidget.send,
        lambda self, content, buffers=None: sent.append(json.dumps(content)),
    )  # type: ignore[method-assign,assignment]
    graph._run.cache_clear()
    try:
        begun = time.perf_counter()
        live = LiveView("bench", mode="widget")
        for batch in batches:
            live.feed(batch)
        spent += time.perf_counter() - begun
        live.settle()
        begun = time.perf_counter()
        live.feed(())
        live.finish()
        return spent + time.perf_counter() - begun
    finally:
        BuildWidget.send = send  # type: ignore[method-assign]


def floor(stream: Sequence[Event]) -> float:
    """Seconds of the layout program alone."""
    command = graph.program()
    if command is None:
        raise SystemExit("row k needs graphviz: apt-get install graphviz")
    source = graph.skeleton(graph.structure(plan(fold_all(BuildView(), stream), fold_above=10_000))).encode()
    begun = time.perf_counter()
    subprocess.run(
        [command, "-Tplain"], input=source, capture_output=True, check=True, start_new_session=True
    )
    return time.perf_counter() - begun


def measure(steps: int, *, rounds: int = 7) -> Measure:
    """The median of some rounds, after one that loads what is loaded once in a kernel."""
    stream = events(steps)
    size = -(-len(stream) // TICKS)
    batches = [stream[at : at + size] for at in range(0, len(stream), size)]
    one_view(batches)
    views = [one_view(batches) for _ in range(rounds)]
    return Measure(steps, statistics.median(views), statistics.median(floor(stream) for _ in range(rounds)))


def main() -> int:
    """Prints both sizes; 1 if one is over its bar."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output():
        found = [measure(steps) for steps in BARS]
    for line in found:
        print(line)
    sizes = [len(json.dumps(mimebundle(fold_all(BuildView(), events(steps))))) for steps in BARS]
    print(f"k  saved output: {sizes[0] / 1000:.0f} kB and {sizes[1] / 1000:.0f} kB")
    return any(line.view > BARS[line.steps] for line in found)


if __name__ == "__main__":
    sys.exit(main())
