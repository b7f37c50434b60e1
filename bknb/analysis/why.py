"""Compares a build with an earlier one: what changed by itself, and what ran only because of that.

Steps are looked at inputs first. A step whose key is what it was has not changed, whatever happened above it. One
with another key has causes of its own (its op differs, or files that it reads from outside do), or those of its
inputs; an input whose files are what they were passes nothing on. So a cause is named where it arises, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter

from bknb.analysis.causes import Cause, Explanation, Kind, StepReason, counts, is_document
from bknb.analysis.changes import (
    ARGS,
    DOCUMENT,
    ENV,
    MOUNTS,
    Change,
    changes,
    document,
    named,
    shown,
    variables,
)
from bknb.analysis.files import by_patterns, file_causes, through_links
from bknb.analysis.seen import Seen, uses
from bknb.analysis.sources import platform_cause, source_causes
from bknb.cache.listing import Listing
from bknb.history.recorder import redact
from bknb.keys.cachekey import VOLATILE
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.record import StepRecord, pair

_PLATFORM = frozenset(("OS", "Arch", "Variant", "OSVersion", "OSFeatures", "Platform"))
_UNTRIED = ("skipped", "compiled")

Evicted = Callable[[StepRecord, StepRecord | None], str]


def explain(
    before: Seen,
    after: Seen,
    plaintext: Callable[[str], str | None] = lambda digest: None,
    evicted: Evicted = lambda step, old: "",
) -> Explanation:
    """Why the steps of a build ran, or did not have to.

    Args:
        before: the baseline.
        after: the build that is asked about.
        plaintext: what a digest was taken of, None where that is not known any more.
        evicted: of a step of the later build that ran, when and by what the result that it might have had was
            removed, in words; "" if nothing is known of that. Its second argument is the step of the baseline.
    """
    return _Comparison(before, after, plaintext, evicted).explanation()


class _Comparison:
    def __init__(
        self,
        before: Seen,
        after: Seen,
        plaintext: Callable[[str], str | None],
        evicted: Evicted,
    ) -> None:
        self.before = before
        self.after = after
        self.plaintext = plaintext
        self.evicted = evicted
        self.reasons: dict[str, StepReason] = {}
        self.pairs = _pairs(before, after)
        self.paired = {step.digest for step in self.pairs.values()}
        self._known = {step.digest: step for step in before.steps}
        self._listings: dict[str, Listing | None] = {}

    def explanation(self) -> Explanation:
        for step in _ordered(self.after.steps):
            self.reasons[step.digest] = self._reason(step)
        ran: dict[Cause, int] = {}
        for reason in self.reasons.values():
            if reason.ran and counts(reason.step):
                for cause in reason.roots:
                    ran[cause] = ran.get(cause, 0) + 1
        causes = sorted(ran, key=lambda cause: -ran[cause])
        return Explanation(self.before.id, self.after.id, tuple(self.reasons.values()), tuple(causes))

    # --- one step -----------------------------------------------------------------------------------------

    def _reason(self, step: StepRecord) -> StepReason:
        old = self.pairs.get(step.digest)
        ran = step.outcome in ("ran", "merged", "failed", "cancelled")
        remote = self.after.remotes.get(step.digest, "")
        own: list[Cause] = []
        passed: dict[Cause, StepRecord] = {}
        if step.outcome == "skipped" or step.kind in ("local", "internal") or is_document(step):
            return StepReason(step, old)
        if step.digest in self.after.ignored:
            own = [Cause(Kind.NO_CACHE, self.after.opts.get("no-cache", ""))]
        elif old is None:
            passed = self._passed(step, None) if self._continues(step) else {}
            own = [self._new(step, ran)] if not passed and (ran or self.before.steps) else []
        elif old.outcome in _UNTRIED:
            passed = self._passed(step, None)
            own = [Cause(Kind.NEVER_BUILT, _label(step), old.outcome)] if ran and not passed else []
        else:
            if not _same_key(old, step):
                passed = self._passed(step, old)
                own = self._own(step, old, passed)
                own += [] if own or passed else self._moved(step, old)
            # An earlier build than the baseline could not find what that one made.
            if ran and not own and not passed and counts(step) and self.before.id < self.after.id:
                passed = self._passed(step, None)
                own = [] if passed else [self._gone(step, old)]
        because = next(iter(passed.values()), None) if not own else None
        if step.outcome == "content" and not own and because is None:
            because = next(iter(self._passed(step, None).values()), None)
        return StepReason(step, old, tuple(own), tuple(dict.fromkeys((*own, *passed))), because, remote)

    def _passed(self, step: StepRecord, old: StepRecord | None) -> dict[Cause, StepRecord]:
        """The causes that its inputs pass on, each with the step where it arose."""
        found: dict[Cause, StepRecord] = {}
        for number, digest in enumerate(self._inputs(self.after, step)):
            reason = self.reasons.get(digest)
            if reason is None or (old is not None and self._same_content(step, old, number)):
                continue
            for cause in reason.roots:
                arose = reason.step if cause in reason.own else reason.because
                found.setdefault(cause, arose or reason.step)
        return found

    def _inputs(self, seen: Seen, step: StepRecord) -> tuple[str, ...]:
        vertex = seen.vertices.get(step.digest)
        return tuple(e.vertex.digest for e in vertex.inputs) if vertex is not None else step.inputs

    def _same_content(self, step: StepRecord, old: StepRecord, number: int) -> bool:
        now = self.after.content.get((step.digest, number))
        return now is not None and now == self.before.content.get((old.digest, number))

    def _continues(self, step: StepRecord) -> bool:
        """Whether a step below it comes from the same instruction: ``COPY --link`` copies, then merges."""
        below = (
            self.reasons[digest].step for digest in self._inputs(self.after, step) if digest in self.reasons
        )
        return any(one.command == step.command and self._line(one) == self._line(step) for one in below)

    def _line(self, step: StepRecord) -> int:
        return self.after.lines.get(step.digest, (0, 0))[0]

    def _new(self, step: StepRecord, ran: bool) -> Cause:
        """The baseline has no such step, or there is none."""
        if ran and (removed := self._removed(step, None)):
            return Cause(Kind.EVICTED, _label(step), after=removed)
        return Cause(Kind.NEW, _label(step)) if self.before.steps else Cause(Kind.NEVER_BUILT)

    def _gone(self, step: StepRecord, old: StepRecord) -> Cause:
        """Nothing differs, and it ran all the same: what is known of its result, the surest first."""
        label = _label(step)
        if step.digest in self.after.lost:
            return Cause(Kind.BLOB_MISSING, label, after=self.after.lost[step.digest])
        if step.outcome == "failed" and self._unread(step, old):
            return Cause(Kind.FILES, label)
        if old.outcome not in ("definition", "content", "remote", "ran", "merged"):
            return Cause(Kind.UNFINISHED, label, old.outcome)
        if removed := self._removed(step, old):
            return Cause(Kind.EVICTED, label, after=removed)
        if unreachable := self._unreachable(step, old):
            return Cause(Kind.REMOTE_UNREACHABLE, *unreachable)
        if old.digest in self.before.left_out:
            remote, why = self.before.left_out[old.digest]
            return Cause(Kind.NEVER_EXPORTED, remote, after=why)
        return Cause(Kind.GONE, label)

    def _unread(self, step: StepRecord, old: StepRecord) -> bool:
        """Whether files that the baseline read could not be read any more."""
        numbers = range(len(self._inputs(self.after, step)))
        before, after = self.before.content, self.after.content
        return any((old.digest, n) in before and (step.digest, n) not in after for n in numbers)

    def _removed(self, step: StepRecord, old: StepRecord | None) -> str:
        when, said = self.after.removed.get(step.digest, (0.0, ""))
        since = self.before.started if old is not None else 0.0
        return said if said and when >= since else self.evicted(step, old)

    def _unreachable(self, step: StepRecord, old: StepRecord) -> tuple[str, str, str] | None:
        """The cache that a step would have been imported from: its name, "", and what it said."""
        told = self.after.unreachable.get(step.digest)
        whole = self.after.unreachable.get("")
        if told is None and whole is not None and self.before.remotes.get(old.digest) == whole[0]:
            told = whole
        return None if told is None else (told[0], "", told[1])

    def _moved(self, step: StepRecord, old: StepRecord) -> list[Cause]:
        """Its op is what it was and nothing above it differs: it stands on other steps than before."""
        found = []
        for was, now in zip(self._inputs(self.before, old), self._inputs(self.after, step), strict=False):
            counterpart = self.pairs.get(now)
            if counterpart is None or counterpart.digest == was or was not in self._known:
                continue
            below = self._known[was]
            if was in self.paired:
                found.append(
                    Cause(
                        Kind.FIELD,
                        f"the step before {_label(step)}",
                        _label(below),
                        _label(self.reasons[now].step),
                    )
                )
            else:
                found.append(Cause(Kind.REMOVED, _label(below)))
        return found

    # --- what differs in a step itself --------------------------------------------------------------------

    def _own(self, step: StepRecord, old: StepRecord, passed: Iterable[Cause]) -> list[Cause]:
        was, now = self.before.vertices.get(old.digest), self.after.vertices.get(step.digest)
        if was is None or now is None:
            texts = self.before.text(old), self.after.text(step)
            return [Cause(Kind.INSTRUCTION, _label(step), *texts)] if texts[0] != texts[1] else []
        if isinstance(was.op, SourceOp) and isinstance(now.op, SourceOp):
            return source_causes(self.before, self.after, was, now, self._plaintext)
        differ = [*changes(was, now), *self._documents(was, now)]
        own = self._op(step, old, differ, tuple(passed))
        if not any(change.path.startswith("paths") for change in differ):
            own += self._files(step, old, was, now)
        return list(dict.fromkeys(own))

    def _documents(self, was: Vertex, now: Vertex) -> list[Change]:
        """Heredocs of an instruction that say something else."""
        return [
            Change(DOCUMENT, document(there.vertex), document(here.vertex))
            for there, here in zip(was.inputs, now.inputs, strict=False)
            if here.vertex.digest in self.reasons
            and is_document(self.reasons[here.vertex.digest].step)
            and document(there.vertex) != document(here.vertex)
        ]

    def _op(
        self, step: StepRecord, old: StepRecord, differ: list[Change], passed: tuple[Cause, ...]
    ) -> list[Cause]:
        own: list[Cause] = []
        rest: list[Change] = []
        based = any(cause.kind in (Kind.IMAGE, Kind.IMAGE_MOVED) for cause in passed)
        for change in differ:
            if change.path == ENV:
                for name, values in variables(change).items():
                    if name in self.after.variables or name in self.before.variables or not based:
                        own.append(self._variable(name, *values))
            elif change.path in _PLATFORM:
                own.append(platform_cause(self.before.vertices[old.digest], self.after.vertices[step.digest]))
            else:
                rest.append(change)
        texts = self.before.text(old), self.after.text(step)
        spaces = texts[0] != texts[1] and any(map(_other_text, rest))
        if rest and (spaces or _words(texts[0]) != _words(texts[1])):
            return [*own, Cause(Kind.INSTRUCTION, _label(step), *texts)]
        if len(self._inputs(self.before, old)) != len(self._inputs(self.after, step)):
            # Each input has another place in the op: what stands there instead says why.
            rest = [change for change in rest if change.path not in ("paths", "indexes")]
        return own + (self._hidden(texts[1], rest, (*passed, *own), based) if rest else [])

    def _hidden(self, text: str, rest: list[Change], known: tuple[Cause, ...], based: bool) -> list[Cause]:
        """The text is what it was: a variable in it, a step above it or the frontend made another op of it."""
        named_here = self._variables(text)
        values = {name: (self.before.value(name) or "", self.after.value(name) or "") for name in named_here}
        differ = [name for name, (was, now) in values.items() if was != now]
        if any("…" in str(change.before) and "…" in str(change.after) for change in rest):
            # A stand-in became another: the options do not tell of a secret that it was another.
            differ = differ or [name for name in named_here if redact({name: ""})[name]]
        if differ:
            return [self._variable(name, *values[name]) for name in differ]
        if based or any(cause.kind in (Kind.ARG, Kind.ENV) for cause in known):
            return []
        if any(
            cause.kind in (Kind.INSTRUCTION, Kind.NEW) and cause.subject.startswith(("WORKDIR", "USER"))
            for cause in known
        ):
            return []
        if self.before.frontend != self.after.frontend:
            return [Cause(Kind.FRONTEND, "", self.before.frontend, self.after.frontend)]
        return [_field(change) for change in rest]

    def _variables(self, text: str) -> list[str]:
        """The variables that a text names, and those that their values name."""
        known = {**self.before.variables, **self.after.variables}
        found: list[str] = []
        todo = [text]
        while todo:
            text = todo.pop()
            names = [name for name in known if name not in found and uses(text, name)]
            found += names
            todo += [one.value or "" for name in names for one in known[name]]
        return found

    def _variable(self, name: str, before: str, after: str) -> Cause:
        places = self.after.variables.get(name, ()) or self.before.variables.get(name, ())
        argument = f"build-arg:{name}" in {**self.before.opts, **self.after.opts} or (
            bool(places) and all(place.word == "ARG" for place in places)
        )
        hidden = redact({name: before})[name] != before or redact({name: after})[name] != after
        values = ("…", "…") if hidden else (shown(before), shown(after))
        return Cause(Kind.ARG if argument else Kind.ENV, name, *values)

    # --- files --------------------------------------------------------------------------------------------

    def _files(self, step: StepRecord, old: StepRecord, was: Vertex, now: Vertex) -> list[Cause]:
        """Files that differ in inputs of which nothing else is known to have changed."""
        found: list[Cause] = []
        for number, (there, here) in enumerate(zip(was.inputs, now.inputs, strict=False)):
            places = (old.digest, number), (step.digest, number)
            digests = self.before.content.get(places[0]), self.after.content.get(places[1])
            reason = self.reasons.get(here.vertex.digest)
            if None in digests or digests[0] == digests[1]:
                continue
            if reason is not None and (reason.roots or is_document(reason.step)):
                continue
            listings = self._listing(str(digests[0])), self._listing(str(digests[1]))
            origin = (there.vertex.digest, here.vertex.digest)
            if listings[0] is None or listings[1] is None:
                found.append(Cause(Kind.FILES, _label(step), origin=origin))
            else:
                causes = file_causes(listings[0], listings[1], origin)
                causes = through_links(causes, listings[0], listings[1], now, number)
                found += by_patterns(causes, there.vertex, here.vertex) or [Cause(Kind.FILES, _label(step))]
        return found

    def _plaintext(self, digest: str) -> str | None:
        found = self.after.texts.get(digest) or self.before.texts.get(digest)
        return found or self.plaintext(digest)

    def _listing(self, digest: str) -> Listing | None:
        if digest not in self._listings:
            text = self._plaintext(digest)
            self._listings[digest] = Listing.parse(text) if text is not None else None
        return self._listings[digest]


def _pairs(before: Seen, after: Seen) -> dict[str, StepRecord]:
    """Steps of the later build to those of the earlier; sources also by who reads them."""
    found = {p.after.digest: p.before for p in pair(before.steps, after.steps) if p.after and p.before}
    known = {step.digest: step for step in before.steps}
    for digest, old in list(found.items()):
        was, now = before.vertices.get(old.digest), after.vertices.get(digest)
        for there, here in zip(was.inputs if was else (), now.inputs if now else (), strict=False):
            sources = isinstance(there.vertex.op, SourceOp) and isinstance(here.vertex.op, SourceOp)
            if sources and there.vertex.digest in known:
                found.setdefault(here.vertex.digest, known[there.vertex.digest])
    return found


def _ordered(steps: Iterable[StepRecord]) -> list[StepRecord]:
    known = {step.digest: step for step in steps}
    sorter = TopologicalSorter({step.digest: step.inputs for step in known.values()})
    try:
        return [known[digest] for digest in sorter.static_order() if digest in known]
    except CycleError:
        return list(known.values())


def _field(change: Change) -> Cause:
    """A part of an op that no text shows; of a command that is what it was, the shell that it is given to."""
    if change.path == ARGS and not _other_text(change):
        return Cause(Kind.FIELD, "SHELL", shown(change.before[:-1]), shown(change.after[:-1]))
    if change.path == MOUNTS:
        return Cause(Kind.FIELD, named(change.path), _targets(change.before), _targets(change.after))
    return Cause(Kind.FIELD, named(change.path), shown(change.before), shown(change.after))


def _targets(mounts: Iterable[dict[str, str]] | None) -> str:
    return shown(", ".join(mount.get("dest", "") for mount in mounts or () if mount.get("dest") != "/"))


def _other_text(change: Change) -> bool:
    """Whether what a shell is given or a heredoc says differs, be it in its spaces only."""
    command = change.path == ARGS and (change.before or [])[-1:] != (change.after or [])[-1:]
    return command or change.path == DOCUMENT


def _same_key(old: StepRecord, step: StepRecord) -> bool:
    key = step.solver_digest
    return bool(key) and key == old.solver_digest and not key.startswith(VOLATILE)


def _label(step: StepRecord) -> str:
    return step.command or step.name


def _words(text: str) -> list[str]:
    return text.replace("\\\n", " ").split()
