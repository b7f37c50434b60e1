"""What happens in a build, as a stream.

Every floor says what it does by calling an `Emit` function with one of these values; everything that people
see is folded from them (`bknb.display.model`). The first four mirror BuildKit's Status stream
(api/services/control/control.proto). A `VertexEvent` is the state as of now: a later one for the same digest
replaces the earlier. Events are plain data and turn into JSON and back without loss: a recorded stream
replays.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from bknb.digest import Digest
from bknb.errors import Range
from bknb.plain import Plain, of_json


class Outcome(enum.StrEnum):
    """How a vertex came to its result, told apart honestly."""

    DEFINITION = "definition"
    """Cached: its definition and all of its inputs' keys were known."""
    CONTENT = "content"
    """Cached: the definition was new, the content of its inputs was known."""
    REMOTE = "remote"
    """Cached: an imported cache had it."""
    RAN = "ran"
    MERGED = "merged"
    """It ran once for this and another vertex with the same key."""
    SKIPPED = "skipped"
    """Nothing that was asked for needs it."""
    COMPILED = "compiled"
    """It was only asked for the graph: nothing runs."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    WOULD_RUN = "would run"
    """Of a plan: a build would run it."""
    WOULD_FAIL = "would fail"
    """Of a plan: a build would run it, and it would fail."""
    OPEN = "open"
    """Of a plan: whether it would run is known only at run time."""

    @property
    def cached(self) -> bool:
        """Whether no work was done because a cache had the result."""
        return self in (Outcome.DEFINITION, Outcome.CONTENT, Outcome.REMOTE)


class Phase(enum.StrEnum):
    """What a decision is about."""

    KEY = "key"
    """Looking for the vertex by its definition."""
    CONTENT = "content"
    """Looking for it by the content of its inputs."""
    LOAD = "load"
    EXECUTE = "execute"
    WAIT = "wait"
    """Waiting is a decision too; the cause says for what."""
    PULL = "pull"
    FILTER = "filter"
    """Files that were withheld from a context."""
    EXPORT = "export"
    """What a cache that is written has, and has not."""


class BuildEvent(Plain, frozen=True, gc=False, tag_field="event", tag="build"):
    """The beginning and the end of one build.

    Attributes:
        build: the id of the record.
        time: unix seconds.
        finished: False for the first of the two.
        title: what people call the build: tag, target or file.
        dockerfile: the source text, for excerpts ("" for LLB).
        filename: its name.
        frontend: which frontend ran, in words ("built-in dockerfile/1.26").
        error: why it failed; "" if it did not.
        result: digest of what was made, if anything was.
        cancelled: it was stopped by its user.
    """

    build: str
    time: float
    finished: bool = False
    title: str = ""
    dockerfile: str = ""
    filename: str = ""
    frontend: str = ""
    error: str = ""
    result: str = ""
    cancelled: bool = False


class VertexEvent(Plain, frozen=True, gc=False, tag_field="event", tag="vertex"):
    """One vertex as it is now.

    Attributes:
        digest: of the vertex in the definition that was asked for.
        name: for people ("[build 2/4] RUN make").
        inputs: digests of the vertices that it reads, in order.
        kind: ``image local git http oci-layout exec file merge diff build passthrough internal``.
        stage: the stage's name, "" where there is none.
        ranges: the lines of the Dockerfile that it comes from.
        started: unix seconds; None while it waits, and for ever if it never starts.
        completed: unix seconds; None while it is not done.
        outcome: None while it is not known.
        error: one line when it failed.
        size: bytes that its result adds, None where not known.
        result: digest of its content key or layer, "" where not known.
        solver_digest: the digest that the cache knows it by, if another.
        progress_group: id of the group that it is shown in.
        note: a remark for people ("from this store", "mirror 127.0.0.1:5000").
        command: the instruction without the "[stage n/m]" prefix.
    """

    digest: Digest
    name: str
    inputs: tuple[Digest, ...] = ()
    kind: str = ""
    stage: str = ""
    ranges: tuple[Range, ...] = ()
    started: float | None = None
    completed: float | None = None
    outcome: Outcome | None = None
    error: str = ""
    size: int | None = None
    result: str = ""
    solver_digest: str = ""
    progress_group: str = ""
    note: str = ""
    command: str = ""

    @property
    def cached(self) -> bool:
        """As in BuildKit's Vertex message."""
        return self.outcome is not None and self.outcome.cached


class StatusEvent(Plain, frozen=True, gc=False, tag_field="event", tag="status"):
    """Progress of one thing inside of a vertex: a layer's download, a context's transfer.

    `current` and `total` are bytes, or files where the name says so; total 0 is unknown.
    """

    vertex: Digest
    id: str
    current: int
    total: int
    time: float
    name: str = ""
    started: float | None = None
    completed: float | None = None


class LogEvent(Plain, frozen=True, gc=False, tag_field="event", tag="log"):
    """Output of a step as it came: stream 1 is stdout, 2 is stderr."""

    vertex: Digest
    stream: int
    data: bytes
    time: float


class ResourceEvent(Plain, frozen=True, gc=False, tag_field="event", tag="resource"):
    """What a finished process took: CPU seconds (user and system), peak memory in bytes."""

    vertex: Digest
    cpu: float
    peak_memory: int


class WarningEvent(Plain, frozen=True, gc=False, tag_field="event", tag="warning"):
    """A build check that spoke (level 1 is a warning), or another remark about a vertex."""

    vertex: Digest
    level: int
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    filename: str = ""
    ranges: tuple[Range, ...] = ()
    rule: str = ""


class DecisionEvent(Plain, frozen=True, gc=False, tag_field="event", tag="decision"):
    """A decision of the solver, where it fell: what "why" is made of.

    Attributes:
        sequence: counts decisions of one build from 1.
        vertex: whom it is about.
        phase: what was decided.
        outcome: a word of a closed vocabulary for the phase: hit, miss, ignored (``--no-cache``), merged,
            loaded, lost (a result that was gone), unreachable (an imported cache could not be asked), begin, end,
            withheld, keyed (a source's key, or that of an input's content, is known), left-out (of an exported cache).
        causes: what decided it: cache keys, for an input its number as ``input:0``, or for WAIT one of ``slot lock input pull session content-hash``.
            Of a hit: key, result, and the name of the cache if it was imported; of lost: key, result, what was said;
            of unreachable and left-out: the name of the cache, and why.
        time: unix seconds.
    """

    sequence: int
    vertex: Digest
    phase: Phase
    outcome: str
    causes: tuple[str, ...]
    time: float


Event: TypeAlias = (
    BuildEvent | VertexEvent | StatusEvent | LogEvent | ResourceEvent | WarningEvent | DecisionEvent
)
Emit: TypeAlias = Callable[[Event], None]


def from_json(values: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote.

    >>> from_json(LogEvent(Digest("sha256:a"), 1, b"hi", 2.0).to_json())
    LogEvent(vertex='sha256:a', stream=1, data=b'hi', time=2.0)

    Raises:
        ValueError: not an event.
    """
    try:
        return of_json(values, Event)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"not an event: {error}") from None
