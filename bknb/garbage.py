"""Python's garbage collector, kept away where much is made at once and none of it is garbage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SELDOM: Final = 10
"""How many times as rare a pass through everything is during a build."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the collector from looking, again and again, through all that is being made.

    Without it, it takes two thirds of a cached solve of 10,000 vertices, and the cost of a compile grows faster
    than the file. What was made counts as old afterwards, or the next pass would look through all of it after
    all. For work that does not wait: nothing else on this thread may run meanwhile.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # else somebody has frozen what is to stay so
                gc.freeze()  # all that is young, in one step,
                gc.unfreeze()  # becomes old
            gc.enable()


class _Seldom:
    """Makes passes through old objects rarer, from the first who asks for it to the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._usual = self._ours = gc.get_threshold()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._usual = gc.get_threshold()
                self._ours = (*self._usual[:2], self._usual[2] * SELDOM)
                gc.set_threshold(*self._ours)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and gc.get_threshold() == self._ours:  # else somebody has chosen others meanwhile
                gc.set_threshold(*self._usual)


seldom_collected: Final = _Seldom()
"""``with seldom_collected:`` while a build runs: what it makes lives until its end, and each pass through all that is
there would look at all of it (a quarter of the first build of 10,000 steps, and more the more there are). Young
objects are looked through as ever, and `gc.collect` does what it always does."""
