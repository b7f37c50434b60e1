"""What happened, in one sentence that answers the reader's question, and in a second that says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bknb.display import amounts
from bknb.display.model import BuildView, State, StepView, in_order


@dataclass(frozen=True, slots=True)
class Headline:
    """The first line.

    Attributes:
        state: how the build is as a whole.
        subject: what was built.
        verdict: what became of it, with its time.
        parts: what else is worth saying, most important first.
    """

    state: State
    subject: str
    verdict: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return " · ".join((f"{self.subject} {self.verdict}", *self.parts))


def headline(
    view: BuildView, *, now: float | None = None, counts: Mapping[State, int] | None = None
) -> Headline:
    """The first line for a build.

    Args:
        view: the build.
        now: unix seconds; gives a running build its time.
        counts: `view.counts()`, if they are at hand.
    """
    counts = view.counts() if counts is None else counts
    total = sum(counts.values())
    cached = sum(n for state, n in counts.items() if state.cached)
    subject = view.title or view.filename or "build"
    spent = amounts.seconds(view.duration)
    if not view.finished:
        done = sum(n for state, n in counts.items() if state.ended)
        running = max(0.0, now - view.started) if now is not None and view.started is not None else None
        parts = [f"{done} of {amounts.count(total, 'step')} done"] if total else []
        parts += [amounts.seconds(running)] if running is not None else []
        return Headline(State.RUNNING, subject, "is being built", tuple(parts))
    if view.cancelled:
        done = cached + counts.get(State.RAN, 0) + counts.get(State.MERGED, 0)
        kept = f"{amounts.count(done, 'finished step')} kept for the next build" if done else ""
        return Headline(State.CANCELLED, subject, f"was cancelled after {spent}", (kept,) if kept else ())
    if view.error or view.failed:
        return Headline(State.FAILED, subject, f"failed after {spent}", tuple(_failure(view)))
    if compiled := counts.get(State.COMPILED, 0):
        said = f"compiled in {spent}"
        return Headline(State.COMPILED, subject, said, (amounts.count(compiled, "step"), "nothing was run"))
    needed = total - counts.get(State.SKIPPED, 0)
    if needed and cached == needed:
        return Headline(
            State.DEFINITION,
            subject,
            "is up to date",
            (f"all {amounts.count(needed, 'step')} cached" if needed > 1 else "1 step cached", spent),
        )
    parts = [f"{cached} of {amounts.count(needed, 'step')} cached"] if cached else []
    if needed and not cached:
        parts = [f"all {amounts.count(needed, 'step')} ran" if needed > 1 else "1 step ran"]
    return Headline(State.RAN, subject, f"built in {spent}", tuple(parts))


def explanation(view: BuildView) -> str:
    """The second line: why the build did what it did; "" where there is nothing to explain."""
    if not view.finished or view.failed or view.error or view.cancelled:
        return ""
    counts = view.counts()
    if not any(state.cached for state in counts):
        return ""
    causes, followers = changed(view)
    if not causes:
        return ""
    names = [amounts.cut(step.label, 60) for step in causes[:2]]
    more = len(causes) - len(names)
    said = " and ".join(names) + (f" and {more} more" if more else "")
    after = f"; {amounts.count(len(followers), 'step')} after it ran too" if followers else ""
    if after and len(causes) > 1:
        after = after.replace("after it", "after them")
    anew = all(any(d.outcome == "ignored" for d in step.decisions) for step in causes)
    return f"{'Run anew, as asked' if anew else 'New or changed'}: {said}{after}."


def changed(view: BuildView) -> tuple[list[StepView], list[StepView]]:
    """Which steps ran by themselves, and which only because an input of theirs had run.

    A context is passed through: that it was looked at says nothing.
    """
    causes: list[StepView] = []
    followers: list[StepView] = []
    ran: set[str] = set()
    for step in in_order(view):
        if step.state not in (State.RAN, State.MERGED) or not step.counted:
            continue
        ran.add(step.digest)
        (followers if any(i in ran for i in step.inputs) else causes).append(step)
    return causes, followers


def _failure(view: BuildView) -> list[str]:
    parts = [f"at {amounts.cut(step.label, 60)}" for step in view.failed[:1]]
    if len(view.failed) > 1:
        parts.append(f"and {amounts.count(len(view.failed) - 1, 'other step')}")
    return parts
