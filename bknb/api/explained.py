"""Why a build did what it did, compared with an earlier one."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bknb.analysis import Cause, Explanation, Kind, Seen, explain
from bknb.analysis import words as said
from bknb.analysis.seen import NOTHING
from bknb.analysis.why import Evicted
from bknb.api.recorded import RecordedBuild, open_file
from bknb.builder.local import LocalBuilder
from bknb.cache.tombstones import Tombstones
from bknb.digest import Digest
from bknb.display.answer import Paragraph, as_html, as_text
from bknb.display.reasons import Reasons
from bknb.errors import BknbError, UsageError, did_you_mean
from bknb.events import from_json
from bknb.history import History
from bknb.history.baseline import baseline as earlier
from bknb.llb import Definition
from bknb.llb.veil import looks_secret, named
from bknb.record import Record, StepRecord

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client

MOST_DIFFED, MOST_LINES, LARGEST = 10, 12, 64 << 10
"""Files of which lines are shown, lines of each, bytes of a file that is compared."""
MOST_KEPT = 16 << 20
"""Characters of lists of files that go into a saved build; what comes first goes first."""


@dataclass(frozen=True, slots=True)
class Why:
    """The answer: it shows itself; `causes` and `table` are the same as data.

    Attributes:
        explanation: everything that was found out.
        step: the one step that was asked about, "" for the whole build.
    """

    explanation: Explanation
    step: str = ""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The root causes; of one step those that reached it."""
        if not self.step:
            return tuple(self.explanation.causes)
        return tuple(
            cause for one in self.explanation.steps if one.step.digest == self.step for cause in one.roots
        )

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each step: step, stage, cache, why, root causes, digest."""
        import pandas

        from bknb.api.frames import table

        rows = [
            {
                "step": one.step.command or one.step.name, "stage": one.step.stage, "cache": one.step.outcome,
                "why": said.reason(one), "causes": [said.phrase(cause) for cause in one.roots],
                "kinds": [cause.kind.value for cause in one.roots], "digest": one.step.digest,
            }
            for one in self.explanation.steps
            if one.step.kind != "internal" and self.step in ("", one.step.digest)
        ]  # fmt: skip
        return table(pandas.DataFrame(rows, columns=["step", "stage", "cache", "why", "causes", "kinds", "digest"]))

    @property
    def _paragraphs(self) -> list[Paragraph]:
        return said.about(self.explanation, self.step) if self.step else said.paragraphs(self.explanation)

    def __repr__(self) -> str:
        return as_text(self._paragraphs)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> Mapping[str, str]:
        return {"text/plain": repr(self), "text/html": as_html(self._paragraphs)}


def reasons(explanation: Explanation) -> Reasons:
    """What a picture says."""
    line, strong = said.sentence(explanation)
    return Reasons(line, strong, {Digest(one.step.digest): said.short(one) for one in explanation.steps})


# --- from records to an answer ------------------------------------------------------------------------------


def baseline(client: Client, after: Seen) -> Seen | None:
    """The build that one is compared with where none is named; `history.baseline` says which."""

    def look(history: History) -> Seen | None:
        found = earlier(history, after.id, after.targets, after.steps)
        return seen(history, found) if found is not None else None

    return _of_history(client, look)


def ask(client: Client, builds: Sequence[RecordedBuild | str] = (), step: str = "") -> Why:
    """Why, of builds that are over.

    Args:
        client: whose history is looked at.
        builds: two: the second compared with the first; one: with the last of the same cell, tag or Dockerfile before it; none: the
            newest build.
        step: a part of its instruction, or "" for the whole build.

    Raises:
        UsageError: no such build or step.
    """
    if len(builds) > 1:
        before, after = side(client, builds[0]), side(client, builds[1])
    else:
        after = side(client, builds[0]) if builds else _newest(client)
        before = baseline(client, after) or NOTHING
    return Why(compare(client, before, after), _step(after, step) if step else "")


def _newest(client: Client) -> Seen:
    def look(history: History) -> Seen | None:
        return next((seen(history, record) for record in history.walk() if record.definition), None)

    found = _of_history(client, look)
    if found is None:
        raise UsageError("there is no build yet")
    return found


def _step(build: Seen, text: str) -> str:
    """The digest of the step that a part of an instruction names."""
    steps = [step for step in build.steps if step.kind != "internal" and step.outcome != "skipped"]
    names = {step.digest: step.command or step.name for step in steps}
    exact = [digest for digest, name in names.items() if text == name]
    found = exact or [digest for digest, name in names.items() if text.lower() in name.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text!r} could be {', '.join(repr(names[digest]) for digest in found[:4])}: say more of it")
    raise UsageError(f"no step {text!r}{did_you_mean(text, list(names.values()))}")


def side(client: Client, build: RecordedBuild | str) -> Seen:
    """One side of a comparison: a build, a file that one was saved to, or the beginning of an id in the history.

    Raises:
        UsageError: no build of the history, or more than one, begins so; the file is none.
    """
    if isinstance(build, RecordedBuild):
        return build._seen()
    id = str(build)
    if id.endswith(".bknb"):
        return open_file(id)._seen()

    def look(history: History) -> Seen | None:
        found = [record for record in history.walk() if record.id.startswith(id)]
        if len(found) > 1:
            raise UsageError(f"{len(found)} builds have an id that begins with {id[:80]!r}: say more of it")
        return seen(history, found[0]) if found else None

    found = _of_history(client, look) if id else None
    if found is None:
        raise UsageError(
            f"{id[:80]!r} is no build, and not the beginning of one's id: bknb history lists them (%bknb history in a notebook)"
        )
    return found


def _of_history(client: Client, look: Callable[[History], Seen | None]) -> Seen | None:
    """Ask the history beside the solver's thread: it waits for records that are still being written."""

    async def ask(builder: LocalBuilder) -> Seen | None:
        return await asyncio.to_thread(look, builder.parts.history)

    return client.call(ask)


def seen(history: History, record: Record) -> Seen:
    """A build of the history."""
    lines = (history.text(record.events) or b"").decode(errors="replace").splitlines()
    events = [from_json(json.loads(line)) for line in lines if '"event":"log"' not in line[:24]]
    data = history.text(record.definition)
    try:
        edge = named(Definition.from_bytes(data).to_edge(), record.veiled) if data else None
    except BknbError:
        edge = None
    return replace(Seen.of(record.id, record.steps, events, [edge], record.opts), targets=record.targets)


def compare(client: Client, before: Seen, after: Seen) -> Explanation:
    """The explanation, with the lines that differ in files whose bytes are still there."""

    async def look(builder: LocalBuilder) -> Explanation:
        evicted = evicted_by(builder.parts.tombstones, after, before)
        found = explain(before, after, builder.parts.store.plaintext, evicted)
        diffs: dict[Cause, tuple[str, ...]] = {}
        for cause in [cause for cause in found.causes if cause.kind is Kind.FILE_CONTENT][:MOST_DIFFED]:
            old, new = [
                await _bytes(builder, side, vertex, cause.subject)
                for side, vertex in zip((before, after), cause.origin, strict=True)
            ]
            diffs[cause] = text_diff(old, new, cause.subject)
        return said.with_hints(found.with_diffs(diffs), after)

    return client.call(look)


def evicted_by(tombstones: Tombstones, after: Seen, before: Seen = NOTHING) -> Evicted:
    """Asks the tombstones for the result that a step might have had: removed since the baseline had it, if it had."""

    def evicted(step: StepRecord, old: StepRecord | None) -> str:
        stones = [tombstones.find(result) for result in (old.results if old is not None else ())]
        stone = tombstones.by_key(step.solver_digest)
        if stone is not None and (old is None or stone.removed >= before.started):
            stones.append(stone)
        gone = (stone for stone in stones if stone is not None and stone.removed <= after.finished)
        return next(map(str, gone), "")

    return evicted


def kept(client: Client, build: Seen) -> tuple[dict[str, str], dict[str, tuple[float, str]]]:
    """What a build's file brings along: the texts of its keys, and when the results that it lacked were removed."""

    async def look(builder: LocalBuilder) -> tuple[dict[str, str], dict[str, tuple[float, str]]]:
        texts: dict[str, str] = {}
        room = MOST_KEPT
        digests = [*(key for keys in build.keys.values() for key in keys), *build.content.values()]
        for digest in dict.fromkeys(digests):
            text = builder.parts.store.plaintext(digest)
            if text is not None and len(text) <= room:
                texts[digest] = text
                room -= len(text)
        stones = {
            step.digest: stone
            for step in build.steps
            if not step.cached and (stone := builder.parts.tombstones.by_key(step.solver_digest)) is not None
        }
        return texts, {
            digest: (stone.removed, str(stone))
            for digest, stone in stones.items()
            if stone.removed <= build.finished
        }

    return client.call(look)


async def _bytes(builder: LocalBuilder, side: Seen, vertex: str, path: str) -> bytes | None:
    """A small file of a step's result, None where it is not there any more."""
    results = next((step.results for step in side.steps if step.digest == vertex), ())
    ref = await builder.get(results[0]) if results else None
    if ref is None:
        return None
    try:
        return await builder.parts.worker.read(ref, f"/{path}", LARGEST + 1)
    except BknbError:
        return None
    finally:
        await ref.release()


def text_diff(old: bytes | None, new: bytes | None, path: str) -> tuple[str, ...]:
    """Lines that went and came, as ``-old`` and ``+new``; () of what is no short text, or may be a secret."""
    if old is None or new is None or max(len(old), len(new)) > LARGEST or b"\0" in old + new:
        return ()
    try:
        was, now = old.decode().splitlines(), new.decode().splitlines()
    except UnicodeDecodeError:
        return ()
    lines = list(difflib.unified_diff(was, now, n=0, lineterm=""))[2:]
    lines = [line for line in lines if not line.startswith("@@ ")]
    if any(looks_secret(text) for text in (path, *lines)):
        return ()
    if not lines and old != new:
        return ("only its line ends differ",)
    return tuple(line[:200] for line in lines[:MOST_LINES])
