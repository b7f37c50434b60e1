"""A plan: what a build would do, without running anything.

::

    plan = client.plan(options)
    plan                     # shows itself: the graph, and a table with what each step would do and why
    plan.table               # a DataFrame: one row for each step
    plan.unknown             # the share of steps that are known only at run time
    plan.expected.most       # seconds
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from bknb.analysis import Explanation, explain
from bknb.analysis import words as said
from bknb.analysis.plan import Foresight, PlannedStep, foresight, untouched
from bknb.analysis.plan_facts import BuilderFacts
from bknb.analysis.plan_time import Durations, Expected
from bknb.analysis.predict import Foreseen, predict
from bknb.analysis.shadow import ShadowStore
from bknb.api import explained
from bknb.api.picture import Graph
from bknb.builder.local import LocalBuilder
from bknb.digest import Digest
from bknb.display import amounts
from bknb.display.model import BuildView, fold_all
from bknb.display.reasons import Reasons
from bknb.errors import MissError, UsageError, did_you_mean
from bknb.events import BuildEvent, Event
from bknb.history import new_id
from bknb.history.baseline import targets_of
from bknb.history.recorder import redact
from bknb.llb.veil import Veil
from bknb.protocols import SolveRequest
from bknb.session import LocalSession

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client
    from bknb.display.plan import PlanView

_REMEMBERED: Final = 60
"""Builds whose durations count, newest first."""


class Plan:
    """What a build would do; it shows itself.

    Attributes:
        foresight: everything that was found out.
        explanation: why steps would run, compared with the last build of the same cell, tag or file; None if there is none.
        notes: what is to be said beside it, say of a touched file that no step reads.
    """

    def __init__(self, found: Foresight, explanation: Explanation | None, notes: Sequence[str] = ()) -> None:
        self.foresight = found
        self.explanation = explanation
        self.notes = tuple(notes)

    @property
    def steps(self) -> Sequence[PlannedStep]:
        """Every step, inputs first."""
        return self.foresight.steps

    @property
    def unknown(self) -> float:
        """The share of steps that are known only at run time, from 0 to 1; 0 where every step's input is known."""
        return self.foresight.unknown

    @property
    def expected(self) -> Expected:
        """How long it would take."""
        return self.foresight.expected

    @property
    def misses(self) -> Sequence[PlannedStep]:
        """Steps that would run for certain, inputs first; contexts and base images are none."""
        return [one for one in self.steps if one.works and one.verdict.outcome is Foreseen.RUN]

    def require_cached(self) -> None:
        """Do nothing if nothing would run for certain.

        Raises:
            MissError: it names the first step that is not cached, and why.
        """
        if not self.misses:
            return
        first = self.misses[0].step
        lines = self.foresight.seen.lines.get(first.digest)
        place = f" (line {lines[0]})" if lines else ""
        why = self.reasons.steps.get(Digest(first.digest), "") or "it was never built here"
        others = f", and {amounts.count(len(self.misses) - 1, 'more step')}" if len(self.misses) > 1 else ""
        name = first.command or first.name
        raise MissError(
            f"not cached: {amounts.cut(name, 100)}{place}: {why}{others}; nothing was run (--fail-on-miss)",
            plan=self,
        )

    @cached_property
    def view(self) -> BuildView:
        """The build that it would be, as pictures show it."""
        return fold_all(BuildView(), self.foresight.events)

    @cached_property
    def reasons(self) -> Reasons:
        """Why steps would run, and on what others depend, in short."""
        known = self.explanation.steps if self.explanation is not None else ()
        short = {one.step.digest: said.short(one) for one in known}
        by_digest = {one.step.digest: one for one in self.steps}
        steps = {}
        for one in self.steps:
            if one.verdict.outcome is Foreseen.UNKNOWN:
                steps[one.step.digest] = _depends(one, by_digest)
            elif one.verdict.outcome is Foreseen.FAIL:
                steps[one.step.digest] = one.verdict.error
            elif one.verdict.outcome is not Foreseen.UNNEEDED:
                steps[one.step.digest] = short.get(one.step.digest, "")
        causes = self.explanation.causes if self.explanation is not None else ()
        phrases = [said.phrase(cause) for cause in causes[:3]]
        more = f", and {len(causes) - 3} more" if len(causes) > 3 else ""
        failing = [one.verdict.error for one in self.steps if one.verdict.outcome is Foreseen.FAIL]
        if failing:  # that it failed before, or what changed, is not why it would fail
            phrases, more = failing[:1], ""
        line = f"Because: {'; '.join(phrases)}{more}." if phrases else ""
        return Reasons(line, "", {event.digest: steps.get(event.digest, "") for event in self.view.shown})

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each step.

        Columns: ``step``, ``stage``, ``plan`` (cached, run, known only at run time, not needed, fail), ``by`` (of a
        cached one: definition, content, remote, merged), ``why``, ``expected`` (seconds that it took when it last
        ran; none if it would not run, or never did), ``kind``, ``digest``.
        """
        import pandas

        from bknb.api.frames import table

        rows = [
            {
                "step": one.step.command or one.step.name, "stage": one.step.stage, "plan": one.verdict.outcome.value,
                "by": one.verdict.by, "why": self.reasons.steps.get(Digest(one.step.digest), ""), "expected": one.seconds,
                "kind": one.step.kind, "digest": one.step.digest,
            }
            for one in self.steps
            if one.step.kind not in ("internal", "passthrough")
        ]  # fmt: skip
        columns = ["step", "stage", "plan", "by", "why", "expected", "kind", "digest"]
        return table(pandas.DataFrame(rows, columns=columns).astype({"expected": "float64"}))

    @property
    def graph(self) -> Graph:
        """The graph, each step with what it would do."""
        return Graph(self.view)

    @property
    def _picture(self) -> PlanView:
        from bknb.display.plan import PlanView, expected

        found = self.expected
        time = expected(found.least, found.most, found.steps, found.strangers)
        return PlanView(self.view, self.reasons, time, self.notes)

    def __repr__(self) -> str:
        from bknb.display.plan import render_text

        return render_text(self._picture)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> Mapping[str, str]:
        from bknb.display.plan import render_html

        return {"text/plain": repr(self), "text/html": render_html(self._picture)}


def _depends(one: PlannedStep, steps: Mapping[str, PlannedStep]) -> str:
    """On what an open step depends."""
    given = [steps[digest] for digest in one.step.inputs if digest in steps]
    for outcome, words in ((Foreseen.RUN, "depends on what {} writes"), (Foreseen.UNKNOWN, "depends on {}")):
        for below in given:
            if below.verdict.outcome is outcome and below.counted:
                return words.format(below.step.command or below.step.name)
    return "needed only if a step after it runs"


def make_plan(
    client: Client, request: SolveRequest, session: LocalSession, touch: Sequence[str] = ()
) -> Plan:
    """Plan a build.

    Args:
        client: whose builder would build.
        request: the build.
        session: names its folders.
        touch: files that shall count as changed, relative to the context or absolute.

    Raises:
        UsageError: a touched file is not there.
        DockerfileError: the Dockerfile is wrong.
        SourceError: a base image cannot be had.
    """
    context = session.directories["context"].path if "context" in session.directories else os.getcwd()
    touched = {os.path.normpath(os.path.join(context, name)): name for name in touch}
    shadow: list[ShadowStore] = []
    facts: list[BuilderFacts] = []

    async def look(builder: LocalBuilder) -> Foresight:
        parts = builder.parts
        events: list[Event] = []
        compiled = await builder.compile(request, session, events.append)
        shadow.append(ShadowStore(parts.store))
        sources = (parts.images, parts.local)
        facts.append(
            BuilderFacts(
                session,
                sources,
                parts.local,
                parts.refs,
                parts.worker.hasher,
                shadow[0].note,
                frozenset(touched),
            )
        )
        edges = [result.edge for result in compiled.frontend.results if result.edge is not None]
        found = await predict(
            edges, shadow[0], facts[0], platform=parts.worker.platforms[0], session=session, emit=events.append,
            describe=compiled.describe,
        )  # fmt: skip
        events.append(_end(events))
        history = parts.history
        durations = await asyncio.to_thread(lambda: Durations.of(islice(history.walk(), _REMEMBERED)))
        slots = request.max_parallelism or parts.settings.max_parallelism or None
        veil = Veil.of(request.opts)  # as the records are, with which it is compared
        told = [veil.edge(edge) for edge in edges]
        return foresight(new_id(), found, events, told, redact(request.opts), durations, slots)

    found = client.call(look)
    notes = _notes(touched, facts[0])
    before = explained.baseline(client, dataclasses.replace(found.seen, targets=targets_of(request)))
    if before is None:
        return Plan(found, None, notes)

    async def compare(builder: LocalBuilder) -> Explanation:
        evicted = explained.evicted_by(builder.parts.tombstones, found.seen)
        return explain(before, found.seen, shadow[0].plaintext, evicted)

    return Plan(found, client.call(compare), notes)


def refuse_misses(client: Client, request: SolveRequest, session: LocalSession) -> None:
    """Have a build that shall run nothing fail before it begins, if it is sure that a step would run.

    Raises:
        MissError: it names the first step that is not cached, and why.
        BknbError: as `make_plan`.
    """
    make_plan(client, request, session).require_cached()


def _end(events: Sequence[Event]) -> BuildEvent:
    """The end of a build that nothing takes time in."""
    begin = [event for event in events if isinstance(event, BuildEvent)][-1]
    return replace(begin, finished=True)


def _notes(touched: Mapping[str, str], facts: BuilderFacts) -> list[str]:
    folders = list(facts.folders.values())
    idle, missing = untouched(touched, folders, lambda path: os.path.lexists(path) and not _is_folder(path))
    if missing:
        known = [path for folder in folders for path in folder.paths]
        if any(path.startswith(missing[0].strip("/") + "/") for path in known):
            raise UsageError(f"--touch {missing[0]}: that is a folder; name a file in it")
        raise UsageError(
            f"--touch {missing[0]}: the context has no such file{did_you_mean(missing[0], known)}; "
            "name a file as COPY does, relative to the context"
        )
    return [f"--touch {name} changes nothing: {why}" for name, why in idle.items()]


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
