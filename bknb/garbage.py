"""Python's garbage collector, kept away where much is made at once and none of it is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
