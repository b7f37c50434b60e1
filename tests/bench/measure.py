"""Measuring in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One row: medians in seconds by who was measured, and the bars (a ratio each, by whom to compare with)."""

    name: str
    what: str
    seconds: Mapping[str, float]
    bars: Mapping[str, float]

    def lines(self) -> list[str]:
        """The row for people."""
        ours = self.seconds["bknb"]
        out = [f"{self.name:<4} {self.what}", f"       bknb      {_time(ours)}"]
        for who, seconds in self.seconds.items():
            if who == "bknb":
                continue
            bar = self.bars.get(who)
            verdict = (
                "" if bar is None else f"  bar {bar:g}: {'holds' if ours / seconds <= bar else 'MISSED'}"
            )
            out.append(f"       {who:<9} {_time(seconds)}  ratio {ours / seconds:.2f}{verdict}")
        return out


def in_turn(
    contenders: Mapping[str, Callable[[], None]],
    *,
    before: Callable[[], None] = lambda: None,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Run each contender once for warmth, then all in turn; the median of each, in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, act in contenders.items():
            before()
            begun = time.perf_counter()
            act()
            if round_:
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in taken.items()}


def settle(pids: Collection[int]) -> None:
    """Wait until these processes rest, or half a minute: nobody is measured beside what another has left to do."""
    ticks = [_ticks(pid) for pid in pids]
    for _ in range(300):
        time.sleep(0.1)
        before, ticks = ticks, [_ticks(pid) for pid in pids]
        if ticks == before:
            return


def _ticks(pid: int) -> int:
    """Processor time of a process, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:9.1f} ms"
