"""What a picture of a build consists of, before it has any coordinates: lanes, boxes, arrows.

A lane is a stage (or the context). A box is a step, or a run of cached steps folded into one when there are
more of them than a reader wants. A box's id comes from the names of the stage and the step's place in it, so
that in the picture of a rebuild the same instruction is the same box.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bknb.digest import Digest
from bknb.display import amounts
from bknb.display.model import BuildView, State, StepView
from bknb.display.palette import LOOKS

FOLD_ABOVE = 24
"""With more boxes than this, runs of cached steps are folded."""
FOLD_ALL_ABOVE = 240
"""With more than this, runs of any state are."""
SHORTEST_RUN = 3
CONTEXT = "context"
"""The lane of what is no stage's."""
FORESEEN: Mapping[str, str] = {"local": "would be read", "image": "would be looked up"}
"""What a plan says of what does no work of its own."""
_TIMED = (State.RAN, State.FAILED, State.MERGED, State.WOULD_RUN, State.OPEN)
_UNNAMED = re.compile(r"stage-\d+\Z")
_FLAGS = re.compile(r"--(?:mount|network|security|chmod|chown|link|parents|exclude|checksum)(?:=\S+)? ")


@dataclass(frozen=True, slots=True)
class Box:
    """One box: `steps` has one entry, or the folded run; `lane` is an index."""

    id: str
    lane: int
    steps: tuple[StepView, ...]
    state: State

    @property
    def keyword(self) -> str:
        """The first word, which is drawn strong."""
        if len(self.steps) > 1:
            return f"{len(self.steps)} steps"
        return self.steps[0].words[0]

    @property
    def words(self) -> str:
        """What follows the first word, without flags that only take room."""
        if len(self.steps) > 1:
            return ", ".join(dict.fromkeys(step.words[0] for step in self.steps))
        return _FLAGS.sub("", self.steps[0].words[1][:400])

    @property
    def status(self) -> str:
        """Sign, word and time."""
        if len(self.steps) > 1:
            spent = sum(step.duration or 0.0 for step in self.steps)
            time = f" · {amounts.seconds(spent)}" if self.state is State.RAN else ""
            return f"{LOOKS[self.state].sign} {LOOKS[self.state].word}{time}"
        return status(self.steps[0], self.state)


@dataclass(frozen=True, slots=True)
class Arrow:
    """From a box to one that reads it; `strong` on the path of what ran.

    A `faint` one comes from a context. Many steps of all lanes read it: it is written on the box, not drawn.
    """

    source: str
    target: str
    strong: bool = False
    faint: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A picture without coordinates. `lanes` are labels; boxes are in reading order."""

    lanes: tuple[str, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def box_of(self) -> dict[Digest, str]:
        """The id of the box that shows a step."""
        return {step.digest: box.id for box in self.boxes for step in box.steps}


def status(step: StepView, state: State | None = None) -> str:
    """What the lower line of a step's box says."""
    look = LOOKS[state or step.state]
    if (state or step.state) is State.WOULD_RUN and step.kind in FORESEEN:
        return f"{look.sign} {FORESEEN[step.kind]}"
    if step.kind == "local" and (state or step.state) is State.RAN:
        sent = max((s.current for s in step.statuses.values()), default=0)
        said = amounts.cut(step.note, 40) or (amounts.size(sent) if sent else "sent")
        return f"{look.sign} {said} · {amounts.seconds(step.duration)}"
    time = step.duration if (state or step.state) in _TIMED else None
    about = "~" if (state or step.state) in (State.WOULD_RUN, State.OPEN) else ""
    return f"{look.sign} {look.word}" + (f" · {about}{amounts.seconds(time)}" if time is not None else "")


def plan(view: BuildView, *, fold_above: int = FOLD_ABOVE) -> Plan:
    """What to draw for a build; `fold_above` is the number of boxes from which cached runs are folded."""
    stages = lanes(view.shown)
    total = sum(len(steps) for _, steps in stages)
    single = [
        [Box(_box_id(name, n), index, (step,), step.state) for n, step in enumerate(steps, 1)]
        for index, (name, steps) in enumerate(stages)
    ]
    boxes = [box for lane in single for box in (_fold(lane, FOLDABLE) if total > fold_above else lane)]
    if total > fold_above and len(boxes) > FOLD_ALL_ABOVE:
        boxes = [box for lane in single for box in _fold(lane, frozenset(State))]
    labels = lane_labels([name for name, _ in stages])
    whole = Plan(labels, tuple(boxes), ())
    return dataclasses.replace(whole, arrows=_arrows(whole))


def lanes(steps: Sequence[StepView]) -> list[tuple[str, list[StepView]]]:
    """Steps by stage: contexts first, then stages as they stand in the file, each in its own order."""
    home = {step.digest: CONTEXT if step.kind == "local" else step.stage for step in steps}
    _move_shared_images(steps, home)
    stages: dict[str, list[StepView]] = {}
    for step in steps:
        stages.setdefault(home[step.digest], []).append(step)
    for found in stages.values():
        # Python's sort is stable: steps without a number stay in the order of the graph.
        found.sort(key=lambda s: s.number if s.kind != "image" else min(s.number, 1))

    def place(item: tuple[str, list[StepView]]) -> tuple[bool, int]:
        lines = [r.start_line for step in item[1] for r in step.ranges[:1]]
        return item[0] != CONTEXT, min(lines, default=0)

    return sorted(stages.items(), key=place)


def _move_shared_images(steps: Sequence[StepView], home: dict[Digest, str]) -> None:
    """A base image of several stages is one vertex, named by the last of them: it stands in the first."""
    images = {step.digest for step in steps if step.kind == "image"}
    first: dict[Digest, tuple[int, str]] = {}
    for step in steps:
        line = min((r.start_line for r in step.ranges), default=0)
        for digest in step.inputs:
            if digest in images and line and (digest not in first or line < first[digest][0]):
                first[digest] = (line, home[step.digest])
    for step in steps:
        own = min((r.start_line for r in step.ranges), default=0)
        if step.digest in first and first[step.digest][0] < own:
            home[step.digest] = first[step.digest][1]


def lane_labels(names: Sequence[str]) -> tuple[str, ...]:
    """What lanes are called: a last stage without a name is the final one, an only one needs no name."""
    alone = sum(name != CONTEXT for name in names) == 1
    final = "" if alone else "final"
    return tuple(
        final if _UNNAMED.match(name) and at == len(names) - 1 else name for at, name in enumerate(names)
    )


def _box_id(lane: str, ordinal: int) -> str:
    slug = re.sub(r"[^a-zA-Z0-9_-]", "", lane)[:24]
    if slug != lane:
        slug += hashlib.sha256(lane.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{slug or 'step'}-{ordinal}"


FOLDABLE = frozenset(state for state in State if state.cached) | {State.SKIPPED, State.WAITING}


def _fold(boxes: Sequence[Box], foldable: frozenset[State]) -> list[Box]:
    """The lane with its runs of like states folded; a stage's first step keeps its name."""
    done: list[Box] = []
    run: list[Box] = []

    def flush() -> None:
        if len(run) < SHORTEST_RUN:
            done.extend(run)
        else:
            steps = tuple(step for box in run for step in box.steps)
            states = {step.state for step in steps}
            state = run[0].state if len(states) == 1 else State.DEFINITION
            done.append(dataclasses.replace(run[0], steps=steps, state=state))
        run.clear()

    for at, box in enumerate(boxes):
        quiet = box.state in foldable
        if run and (not quiet or _family(box.state) != _family(run[-1].state)):
            flush()
        if quiet and at > 0:
            run.append(box)
        else:
            flush()
            done.append(box)
    flush()
    return done


def _family(state: State) -> State:
    return State.DEFINITION if state.cached else state


def _arrows(plan: Plan) -> tuple[Arrow, ...]:
    home = plan.box_of()
    by_id = {box.id: box for box in plan.boxes}
    found: dict[tuple[str, str], Arrow] = {}
    for box in plan.boxes:
        for step in box.steps:
            for digest in step.inputs:
                source = home.get(digest)
                if source is not None and source != box.id and (source, box.id) not in found:
                    found[source, box.id] = _arrow(by_id[source], box, by_id)
    return tuple(found.values())


_BUSY = (State.RAN, State.RUNNING, State.FAILED, State.MERGED, State.WOULD_RUN, State.WOULD_FAIL)


def _arrow(source: Box, target: Box, by_id: Mapping[str, Box]) -> Arrow:
    context = source.steps[0].kind == "local"
    return Arrow(
        source.id,
        target.id,
        strong=source.state in _BUSY and target.state in _BUSY and not context,
        faint=context,
        dashed=target.state is State.SKIPPED,
    )
