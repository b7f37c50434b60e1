"""A build as people see it, folded from its events.

`fold` and `fold_all` are pure: a view and events give another view, and everything that is drawn or printed
is a function of a view. So the live picture, the saved one and a replay of a recording cannot disagree.

Events may come in any order, because they cross threads and, from a remote builder, a network: a log line
may stand before its vertex, a vertex's end before its beginning. What has ended does not begin again, unless
the new beginning lies after the end (BuildKit reports a vertex anew when it is keyed first and executed
later, util/progress/progressui/display.go, `mergeIntervals`).
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bknb.digest import Digest
from bknb.display.ansi import plain
from bknb.errors import Range
from bknb.events import (
    BuildEvent,
    DecisionEvent,
    Event,
    LogEvent,
    Outcome,
    Phase,
    StatusEvent,
    VertexEvent,
    WarningEvent,
)

_PREFIX = re.compile(r"\[(?:(?P<stage>[^\]\s]+) +)?(?P<number>\d+)/(?P<of>\d+)\] +(?P<command>.*)", re.DOTALL)
_INTERNAL = re.compile(r"\[(?:[^\]]* )?internal\] +(?P<command>.*)", re.DOTALL)
HIDDEN_KINDS = frozenset({"internal", "passthrough"})


class State(enum.StrEnum):
    """What a step is doing, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    DEFINITION = "definition"
    CONTENT = "content"
    REMOTE = "remote"
    RAN = "ran"
    MERGED = "merged"
    SKIPPED = "skipped"
    COMPILED = "compiled"
    CANCELLED = "cancelled"
    FAILED = "failed"
    WOULD_RUN = "would run"
    WOULD_FAIL = "would fail"
    OPEN = "open"

    @property
    def cached(self) -> bool:
        """Whether a cache had the result."""
        return self in (State.DEFINITION, State.CONTENT, State.REMOTE)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the step."""
        return self not in (State.WAITING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Wait:
    """A step waited for something: `cause` is one of slot, lock, input, pull, session, content-hash."""

    cause: str
    started: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class StepView:
    """One vertex, as far as the events told.

    Attributes:
        digest: in the definition that was asked for.
        known: a VertexEvent has named it; without one it is not shown.
        number: place of the instruction in its stage from 1, 0 where there is none.
        intervals: (started, completed) in unix seconds, in order; the last may be open.
        outcome: what the solver said; `state` is what follows from it and from the build's end.
        statuses: one for each id, as of now.
        waits: by their beginning.
    """

    digest: Digest
    known: bool = False
    name: str = ""
    command: str = ""
    stage: str = ""
    number: int = 0
    kind: str = ""
    inputs: tuple[Digest, ...] = ()
    ranges: tuple[Range, ...] = ()
    intervals: tuple[tuple[float, float | None], ...] = ()
    outcome: Outcome | None = None
    state: State = State.WAITING
    error: str = ""
    size: int | None = None
    result: str = ""
    solver_digest: str = ""
    progress_group: str = ""
    note: str = ""
    log: tuple[LogEvent, ...] = ()
    statuses: Mapping[str, StatusEvent] = field(default_factory=dict)
    warnings: tuple[WarningEvent, ...] = ()
    decisions: tuple[DecisionEvent, ...] = ()

    @property
    def started(self) -> float | None:
        return self.intervals[0][0] if self.intervals else None

    @property
    def completed(self) -> float | None:
        return self.intervals[-1][1] if self.intervals else None

    @property
    def duration(self) -> float | None:
        """Seconds spent, without the gaps; None while it runs and when it never began."""
        if not self.intervals or self.intervals[-1][1] is None:
            return None
        return sum((end or start) - start for start, end in self.intervals)

    @property
    def keys(self) -> tuple[str, ...]:
        """The cache keys that were asked for, cheap ones first; causes that are no digests are not keys."""
        if not self.decisions:
            return ()
        asked = (d for d in self.decisions if d.phase in (Phase.KEY, Phase.CONTENT))
        causes = (cause for decision in asked for cause in decision.causes)
        return tuple(dict.fromkeys(cause for cause in causes if cause.startswith(("sha256:", "random:"))))

    @property
    def withheld(self) -> tuple[str, ...]:
        """Files that the session kept back from a context."""
        return tuple(cause for d in self.decisions if d.phase is Phase.FILTER for cause in d.causes)

    @property
    def waits(self) -> tuple[Wait, ...]:
        if not self.decisions:
            return ()
        done: list[Wait] = []
        for decision in sorted(self.decisions, key=lambda d: (d.time, d.sequence)):
            if decision.phase is not Phase.WAIT:
                continue
            for cause in decision.causes:
                if decision.outcome != "end":
                    done.append(Wait(cause, decision.time))
                    continue
                for at in reversed(range(len(done))):
                    if done[at].cause == cause and done[at].ended is None:
                        done[at] = Wait(cause, done[at].started, decision.time)
                        break
        return tuple(done)

    @property
    def log_bytes(self) -> bytes:
        """The whole log, both streams as they came."""
        return b"".join(event.data for event in self.log)

    @property
    def label(self) -> str:
        """What people call the step: its instruction."""
        return self.command or self.name or self.digest.short

    @property
    def words(self) -> tuple[str, str]:
        """The first word, which is shown strong, and the rest; an identifier's scheme is its first word."""
        if self.kind == "local":
            return "context", ""
        first, _, rest = self.label.partition(" ")
        scheme, mark, place = first.partition("://")
        if not mark:
            return first, rest
        return scheme, f"{place.removeprefix('docker.io/library/')} {rest}".rstrip()

    @property
    def counted(self) -> bool:
        """Whether "5 of 9 steps" counts it: not contexts, not what the frontend does for itself."""
        return self.known and self.kind not in HIDDEN_KINDS and self.kind != "local"


@dataclass(frozen=True, slots=True)
class BuildView:
    """One build.

    Attributes:
        started, completed: unix seconds; completed is None while it runs.
        steps: by digest, in order of first appearance. Treat it as frozen.
    """

    build: str = ""
    title: str = ""
    started: float | None = None
    completed: float | None = None
    dockerfile: str = ""
    filename: str = ""
    frontend: str = ""
    error: str = ""
    result: str = ""
    cancelled: bool = False
    steps: Mapping[Digest, StepView] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.completed is not None

    @property
    def duration(self) -> float | None:
        """Seconds from the first to the last event of the build; None while it runs."""
        if self.started is None or self.completed is None:
            return None
        return max(0.0, self.completed - self.started)

    @property
    def shown(self) -> tuple[StepView, ...]:
        """The steps that pictures and tables show, inputs before their users."""
        return tuple(s for s in in_order(self) if s.known and s.kind not in HIDDEN_KINDS)

    @property
    def failed(self) -> tuple[StepView, ...]:
        """Failed steps, the one that failed first in front."""
        broken = [s for s in self.steps.values() if s.state in (State.FAILED, State.WOULD_FAIL)]
        return tuple(sorted(broken, key=lambda s: s.completed or 0.0))

    @property
    def warnings(self) -> tuple[WarningEvent, ...]:
        return tuple(w for step in self.steps.values() for w in step.warnings)

    def counts(self) -> dict[State, int]:
        """How many counted steps are in each state; states without any are left out."""
        found: dict[State, int] = {}
        for step in self.steps.values():
            if step.counted:
                found[step.state] = found.get(step.state, 0) + 1
        return found


def in_order(view: BuildView) -> list[StepView]:
    """All steps, each after its inputs, otherwise as they appeared. A cycle does not hang it."""
    placed: dict[Digest, StepView] = {}
    open_: set[Digest] = set()
    for root in view.steps:
        stack = [root]
        while stack:
            digest = stack[-1]
            step = view.steps.get(digest)
            if step is None or digest in placed:
                stack.pop()
                continue
            missing = [i for i in step.inputs if i not in placed and i not in open_ and i in view.steps]
            if digest in open_ or not missing:
                placed[digest] = step
                stack.pop()
            else:
                open_.add(digest)
                stack.extend(reversed(missing))
    return list(placed.values())


def fold(view: BuildView, event: Event) -> BuildView:
    """The view after one more event."""
    return fold_all(view, (event,))


def fold_all(view: BuildView, events: Iterable[Event]) -> BuildView:
    """The view after some more events; one call for many costs less than many calls."""
    steps = dict(view.steps)
    logs: dict[Digest, list[LogEvent]] = {}
    statuses: dict[Digest, dict[str, StatusEvent]] = {}
    warnings: dict[Digest, list[WarningEvent]] = {}
    decisions: dict[Digest, list[DecisionEvent]] = {}
    touched: set[Digest] = set()
    head = view
    for event in events:
        match event:
            case BuildEvent():
                head = _build(head, event)
            case VertexEvent():
                step = steps.get(event.digest) or StepView(event.digest)
                steps[event.digest] = _vertex(step, event)
                touched.add(event.digest)
            case LogEvent():
                logs.setdefault(event.vertex, []).append(event)
            case StatusEvent():
                _status(statuses.setdefault(event.vertex, {}), event)
            case WarningEvent():
                warnings.setdefault(event.vertex, []).append(event)
            case DecisionEvent():
                decisions.setdefault(event.vertex, []).append(event)
    for digest in {*logs, *statuses, *warnings, *decisions}:
        step = steps.get(digest) or StepView(digest)
        merged = dict(step.statuses)
        for status in statuses.get(digest, {}).values():
            _status(merged, status)
        steps[digest] = dataclasses.replace(
            step,
            log=(*step.log, *logs.get(digest, ())),
            statuses=merged,
            warnings=(*step.warnings, *warnings.get(digest, ())),
            decisions=(*step.decisions, *decisions.get(digest, ())),
        )
        touched.add(digest)
    if head.finished:
        touched = set(steps)
    for digest in touched:
        step = steps[digest]
        state = _state(step, head)
        if state is not step.state:
            steps[digest] = dataclasses.replace(step, state=state)
    return dataclasses.replace(head, steps=steps)


def _build(view: BuildView, event: BuildEvent) -> BuildView:
    started, completed = view.started, view.completed
    if event.finished:
        completed = event.time
    else:
        started = event.time
    return dataclasses.replace(
        view,
        build=event.build or view.build,
        title=_clean(event.title) or view.title,
        started=started,
        completed=completed,
        dockerfile=event.dockerfile or view.dockerfile,
        filename=_clean(event.filename) or view.filename,
        frontend=_clean(event.frontend) or view.frontend,
        error=_clean(event.error) or view.error,
        result=event.result or view.result,
        cancelled=event.cancelled or view.cancelled,
    )


def _clean(text: str) -> str:
    """A text from outside on one line, without control characters; drawing need not look again."""
    return text if text.isprintable() else plain(text).replace("\n", " ").replace("\t", " ")


def _vertex(step: StepView, event: VertexEvent) -> StepView:
    intervals = _intervals(step.intervals, event.started, event.completed)
    restarted = len(intervals) > len(step.intervals)
    name = _clean(event.name)
    named = _PREFIX.match(name)
    internal = _INTERNAL.match(name)
    found = named or internal
    command = _clean(event.command) or (found["command"] if found else name)
    return dataclasses.replace(
        step,
        known=True,
        name=name,
        command=command,
        stage=_clean(event.stage) or (named["stage"] or "" if named else ""),
        number=int(named["number"][:6]) if named else 0,
        kind=event.kind or ("internal" if internal else step.kind),
        inputs=event.inputs or step.inputs,
        ranges=event.ranges or step.ranges,
        intervals=intervals,
        outcome=event.outcome or (None if restarted else step.outcome),
        error=_clean(event.error) or ("" if restarted else step.error),
        size=event.size if event.size is not None else step.size,
        result=event.result or step.result,
        solver_digest=event.solver_digest or step.solver_digest,
        progress_group=event.progress_group or step.progress_group,
        note=_clean(event.note) or step.note,
    )


def _intervals(
    known: tuple[tuple[float, float | None], ...], started: float | None, completed: float | None
) -> tuple[tuple[float, float | None], ...]:
    """The spans with one more report, where an older report of the same span changes nothing."""
    if started is None:
        return known
    if completed is not None:
        completed = max(started, completed)
    if not known or (len(known) == 1 and known[0][0] == started):
        return ((started, completed if completed is not None or not known else known[0][1]),)
    spans = dict(known)
    spans[started] = completed if completed is not None else spans.get(started)
    last = max(spans)
    # Only the last span may be open: an open one before it was ended by what came after.
    return tuple((at, at if end is None and at != last else end) for at, end in sorted(spans.items()))


def _status(known: dict[str, StatusEvent], event: StatusEvent) -> None:
    before = known.get(event.id)
    if before is not None and (before.completed is not None and event.completed is None):
        return
    if before is None or event.time >= before.time or event.completed is not None:
        known[event.id] = event


def _state(step: StepView, view: BuildView) -> State:
    if step.outcome is not None:
        return State(step.outcome.value)
    if step.error:
        return State.CANCELLED if step.error.endswith("context canceled") else State.FAILED
    if step.completed is not None:
        return State.RAN
    if not view.finished:
        return State.RUNNING if step.intervals else State.WAITING
    return State.CANCELLED if step.intervals or view.error or view.cancelled else State.SKIPPED
