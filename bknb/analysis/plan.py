"""A plan: what a build would do, step by step, and how long it would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from bknb.analysis.plan_facts import Folder
from bknb.analysis.plan_time import Durations, Expected, longest
from bknb.analysis.predict import Foreseen, Prediction, Verdict
from bknb.analysis.seen import Seen
from bknb.digest import Digest
from bknb.events import BuildEvent, Event, Outcome, VertexEvent
from bknb.history.recorder import step_records
from bknb.llb.vertex import Edge
from bknb.patterns import PatternMatcher
from bknb.record import StepRecord

_OUTCOMES: Mapping[Foreseen, Outcome] = {
    Foreseen.RUN: Outcome.WOULD_RUN,
    Foreseen.UNKNOWN: Outcome.OPEN,
    Foreseen.FAIL: Outcome.WOULD_FAIL,
}


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step.

    Attributes:
        step: as a record would have it.
        verdict: what would become of it.
        seconds: what it took when it last ran; None if it never did, or would not run.
    """

    step: StepRecord
    verdict: Verdict
    seconds: float | None = None

    @property
    def counted(self) -> bool:
        """Whether "3 of 9 steps" counts it: not contexts, not what the frontend does for itself."""
        return self.step.kind not in ("local", "internal", "passthrough")

    @property
    def works(self) -> bool:
        """Whether it does work of its own, as a context or a base image does not."""
        return self.step.kind in ("exec", "file", "merge", "diff", "build")


@dataclass(frozen=True, slots=True)
class Foresight:
    """What a build would do.

    Attributes:
        steps: inputs first.
        expected: how long it would take.
        error: why it would fail before anything ran, "" if it would not.
        events: the build as it would be told, for pictures: the graph, and each step with what it would do.
        seen: the same as a build that is over, for comparing with others.
    """

    steps: tuple[PlannedStep, ...]
    expected: Expected
    error: str
    events: tuple[Event, ...]
    seen: Seen

    @property
    def unknown(self) -> float:
        """The share of steps that are known only at run time, from 0 to 1."""
        counted = [step.verdict.outcome for step in self.steps if step.counted]
        return counted.count(Foreseen.UNKNOWN) / len(counted) if counted else 0.0


def foresight(
    id: str,
    found: Prediction,
    said: Sequence[Event],
    edges: Sequence[Edge | None],
    opts: Mapping[str, str],
    durations: Durations,
    slots: int | None = None,
) -> Foresight:
    """A prediction in the terms of a build.

    Args:
        id: of the build that it would be.
        found: what was predicted.
        said: the events of the frontend and of the prediction.
        edges: the graphs.
        opts: the frontend's options, secrets taken out.
        durations: how long steps took before.
        slots: how many steps run at once; None for any number.
    """
    records = {step.digest: step for step in step_records(said, {})}
    steps = []
    for digest, verdict in found.verdicts.items():
        step = records[digest]
        runs = verdict.outcome in (Foreseen.RUN, Foreseen.UNKNOWN)
        took = durations.find(digest, step.stage, step.kind, step.command or step.name) if runs else None
        steps.append(PlannedStep(step, verdict, took))
    seen = Seen.of(id, tuple(records.values()), said, edges, opts)
    rest = Outcome.CANCELLED if found.error is not None else Outcome.SKIPPED
    events = tuple(_shown(said, {one.step.digest: one for one in steps}, rest))
    error = str(found.error) if found.error is not None else ""
    return Foresight(tuple(steps), _expected(steps, slots), error, events, seen)


def _expected(steps: Sequence[PlannedStep], slots: int | None) -> Expected:
    order = [one.step for one in steps]
    sure = {one.step.digest: one.seconds or 0.0 for one in steps if one.verdict.outcome is Foreseen.RUN}
    may = {one.step.digest: one.seconds or 0.0 for one in steps if one.seconds is not None}
    asked = [one for one in steps if one.works and one.verdict.outcome in (Foreseen.RUN, Foreseen.UNKNOWN)]
    strangers = sum(one.seconds is None for one in asked)
    return Expected(
        longest(order, sure, slots), longest(order, may, slots), len(asked) - strangers, strangers
    )


def _shown(said: Sequence[Event], planned: Mapping[str, PlannedStep], rest: Outcome) -> list[Event]:
    """The events with what would become of each step; a step that would run lasts as long as it did before.

    `rest` is said of steps that the build would not come to.
    """
    shown: list[Event] = []
    last: dict[Digest, VertexEvent] = {}
    begun = 0.0
    for event in said:
        match event:
            case BuildEvent():
                begun = event.time
                shown.append(event)
            case VertexEvent() if event.digest in planned:
                if event.digest not in last:
                    shown.append(event)  # for its place in the order
                last[event.digest] = event
            case _:
                shown.append(event)
    final = {digest: _final(event, planned[digest], begun, rest) for digest, event in last.items()}
    return [final.get(event.digest, event) if isinstance(event, VertexEvent) else event for event in shown]


def _final(event: VertexEvent, one: PlannedStep, begun: float, rest: Outcome) -> VertexEvent:
    outcome = _OUTCOMES.get(one.verdict.outcome, rest)
    if one.verdict.outcome is Foreseen.CACHED:
        outcome = Outcome(one.verdict.by)
    timed = one.seconds is not None
    return replace(
        event,
        outcome=outcome,
        started=begun if timed else None,
        completed=begun + (one.seconds or 0.0) if timed else None,
        error=one.verdict.error,
        note="",
        solver_digest="",
    )


def untouched(
    touched: Mapping[str, str], folders: Sequence[Folder], exists: Callable[[str], bool]
) -> tuple[dict[str, str], list[str]]:
    """Why files that shall count as changed change nothing, and names that mean no file at all.

    Args:
        touched: path on the disk -> as it was given.
        folders: what a build would take of the client's folders.
        exists: whether a path on the disk is a file.
    """
    idle: dict[str, str] = {}
    missing: list[str] = []
    for path, name in touched.items():
        if not exists(path):
            missing.append(name)
            continue
        inside = [folder for folder in folders if _inside(path, folder)]
        if any(_inside(path, folder) in folder.paths for folder in inside):
            continue
        if any(_inside(path, folder) in folder.withheld for folder in inside):
            idle[name] = "it is withheld from the context"
        elif any(_excluded(_inside(path, folder), folder) for folder in inside):
            idle[name] = ".dockerignore leaves it out"
        else:
            idle[name] = "no step reads it" if folders else "no step of this target reads the context"
    return idle, missing


def _inside(path: str, folder: Folder) -> str:
    root = folder.directory.path.rstrip("/") + "/"
    return path.removeprefix(root) if path.startswith(root) else ""


def _excluded(path: str, folder: Folder) -> bool:
    return bool(path and folder.excluded) and PatternMatcher.parse(folder.excluded).matches(path)
