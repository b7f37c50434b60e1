"""One replay from question to answer: walk the history, count what it costs, and try what could be put in another order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from bknb.analysis.replay.args import varies
from bknb.analysis.replay.compile import Compiled, Images, ResolveImage
from bknb.analysis.replay.edits import Move
from bknb.analysis.replay.git import Blob, Commit, Repository
from bknb.analysis.replay.model import Change, Clock, Cost, Outcome, Reordering, Replay, Timeline
from bknb.analysis.replay.moves import apply, find
from bknb.analysis.replay.walk import Question, Walk
from bknb.errors import SourceError
from bknb.llb.marshal import walk as every_vertex
from bknb.llb.ops import SourceOp
from bknb.patterns import PatternError, PatternMatcher

MOST_MOVES: Final = 8
"""Changes of a Dockerfile that are tried."""
LARGEST_MANIFEST: Final = 1 << 20


async def replay(
    repository: Repository, commits: Sequence[Commit], question: Question, resolve: ResolveImage, clock: Clock,
    stopped: Callable[[], bool] = lambda: False,
) -> Replay:  # fmt: skip
    """Tell what builds of some commits, one after the other, would have found in the cache.

    Args:
        repository: open.
        commits: oldest first.
        question: which Dockerfile, with which options.
        resolve: looks up configs of base images, each once.
        clock: what earlier runs of instructions took.
        stopped: whether nobody waits for it any more.

    Raises:
        BuildCancelled: it was stopped.
        SourceError: the repository, or every base image, cannot be had.
    """
    walk = Walk(repository, commits, question, Images(resolve), stopped)
    (timeline,), _ = await walk.timelines([None])
    text = walk.dockerfile(commits[-1])
    found = (
        await _reorderings(walk, timeline, text, clock, partial(_content, repository))
        if text is not None
        else ()
    )
    notes = tuple(_notes(walk.newest, timeline, clock))
    return Replay(timeline, costs(timeline, clock), found, notes, question.filename, repository.folder)


async def _reorderings(
    walk: Walk, timeline: Timeline, text: bytes, clock: Clock, content: Callable[[Blob], bytes | None]
) -> tuple[Reordering, ...]:
    """What another order would have saved: each change of it is replayed over the same history."""
    question, files = walk.question, walk.files
    moves = [move for move in find(text, files, content) if _promising(move, walk, timeline)][:MOST_MOVES]
    tried = [[move.name] for move in moves] + ([[move.name for move in moves]] if len(moves) > 1 else [])
    if not tried:
        return ()
    if len(moves) > 1:
        moves.append(_together(moves, _rewritten(tried[-1], content, text, files)))
    timelines, counts = await walk.timelines([partial(_rewritten, names, content) for names in tried])
    found = [
        _reordering(move, timeline, other, count, clock, text, question.filename)
        for move, other, count in zip(moves, timelines, counts, strict=True)
    ]
    single = found if len(found) == 1 else found[:-1]
    return _worth([one for one in single if one is not None], found[-1] if len(found) > 1 else None)


def _promising(move: Move, walk: Walk, timeline: Timeline) -> bool:
    """Whether a change can save anything: a command of its stage ran more than once, an argument has several values."""
    kind, stage, *names = move.name
    runs = [
        timeline.counts(number)[Outcome.RAN]
        for number, row in enumerate(timeline.rows)
        if row.stage == stage and row.kind == "exec"
    ]
    if max(runs, default=0) < 2:
        return False
    opts = walk.question.opts
    return kind != "arg" or any(varies(name, walk.texts, opts.get(f"build-arg:{name}")) for name in names)


def _content(repository: Repository, blob: Blob) -> bytes | None:
    try:
        return repository.content(blob, LARGEST_MANIFEST)
    except SourceError:
        return None


def _rewritten(
    names: Sequence[tuple[str, ...]],
    content: Callable[[Blob], bytes | None],
    text: bytes,
    files: Mapping[str, Blob],
) -> bytes:
    for name in names:
        text = apply(name, text, files, content)
    return text


def _together(moves: Sequence[Move], after: bytes) -> Move:
    """All changes as one."""
    lines = after.decode(errors="surrogateescape").removesuffix("\n").split("\n")
    because = "; ".join(move.because for move in moves)
    title = "Both changes together" if len(moves) == 2 else f"All {len(moves)} changes together"
    return Move(("all",), title, because, tuple(lines))


# --- what it costs ------------------------------------------------------------------------------------------


def costs(timeline: Timeline, clock: Clock) -> tuple[Cost, ...]:
    """What each instruction costs over a history, the dearest first."""
    found = []
    for number, row in enumerate(timeline.rows):
        counts = timeline.counts(number)
        each, samples = clock.find(row.stage, row.command)
        found.append(
            Cost(row, counts[Outcome.RAN], counts[Outcome.UNKNOWN], counts[Outcome.CACHED], each, samples)
        )
    return tuple(sorted(found, key=lambda cost: (-(cost.seconds or 0.0), -cost.ran, -cost.unknown)))


def _reordering(
    move: Move, before: Timeline, after: Timeline, count: int, clock: Clock, text: bytes, filename: str
) -> Reordering | None:
    """What a change would have saved; None where it is not the same build, or saves no run of a command."""
    errors = [[column.error != "" for column in side.columns] for side in (before, after)]
    if errors[0] != errors[1] or not count:
        return None
    old, new = _runs(before), _runs(after)
    changes = []
    for place in {**old, **new}:
        was, now = old.get(place, Counter()), new.get(place, Counter())
        if was != now:
            each, samples = clock.find(*place)
            more = max(0, now[Outcome.UNKNOWN] - was[Outcome.UNKNOWN])
            changes.append(Change(*place, was[Outcome.RAN], now[Outcome.RAN], more, each, samples))
    changes.sort(key=lambda change: (-(change.saved * (change.each or 0.0)), -change.saved))
    built = sum(not column.error for column in before.columns)
    found = Reordering(move.title, move.because, move.diff(text, filename), tuple(changes), count, built)
    return found if found.runs > 0 and (found.seconds is None or found.seconds > 0) else None


def _runs(timeline: Timeline) -> dict[tuple[str, str], Counter[Outcome]]:
    """How often each instruction came to each outcome."""
    found: dict[tuple[str, str], Counter[Outcome]] = {}
    for _, row, cell in timeline:
        found.setdefault((row.stage, row.command), Counter())[cell.outcome] += 1
    return found


def _worth(single: Sequence[Reordering], together: Reordering | None) -> tuple[Reordering, ...]:
    """The changes that are worth saying, the most saved first; all together only where that saves more than each."""
    ordered = sorted(single, key=_saved, reverse=True)
    if together is not None and all(_saved(together) > _saved(one) for one in ordered):
        return (together, *ordered)
    return tuple(ordered)


def _saved(one: Reordering) -> tuple[float, int]:
    return one.seconds or 0.0, one.runs


# --- what was taken for granted -----------------------------------------------------------------------------


def _notes(newest: Compiled | None, timeline: Timeline, clock: Clock) -> Iterator[str]:
    yield "The cache is empty before the first commit, nothing is pruned, and every step succeeds."
    yield "Files are as a clean checkout has them (umask 022, no LFS, no submodules)."
    sources = [
        vertex.op.identifier
        for vertex in (
            every_vertex(newest.edge.vertex) if newest is not None and newest.edge is not None else ()
        )
        if isinstance(vertex.op, SourceOp)
    ]
    if any(not source.startswith("local://") for source in sources):
        yield "Base images and other sources are those of today, for every commit."
    if newest is not None and _takes_git(newest):
        yield "A build of a work tree would copy .git too, which changes with each commit: put .git in .dockerignore."
    failed = [column for column in timeline.columns if column.error]
    if failed:
        last = failed[-1]
        many = f"{len(failed)} commits cannot be built" if len(failed) > 1 else "One commit cannot be built"
        yield (
            f"{many}, so nothing is said of {'them' if len(failed) > 1 else 'it'}; what runs before the error counts as "
            f"built. The last one, {last.commit.short}: {last.error}"
        )
    if timeline.total(Outcome.UNKNOWN):
        yield (
            "A step that reads what another step writes (COPY --from) is cached if that came out the same: "
            "where it would be written anew, this is known only at run time, and so is what stands on it."
        )
    if not any(clock.find(row.stage, row.command)[1] for row in timeline.rows):
        yield "No earlier durations of these instructions are known here: costs are counted in runs."


def _takes_git(compiled: Compiled) -> bool:
    """Whether something reads the whole context, and its .git is not excluded."""
    try:
        if PatternMatcher.parse(compiled.exclude).matches(".git"):
            return False
    except PatternError:
        return False
    if compiled.edge is None:
        return False
    for vertex in every_vertex(compiled.edge.vertex):
        spec = compiled.maps.get(vertex.digest)
        for dep, given in zip(spec.deps if spec is not None else (), vertex.inputs, strict=False):
            op = given.vertex.op
            if isinstance(op, SourceOp) and op.identifier == "local://context" and dep.content is not None:
                whole = not dep.content or any(
                    one.path in ("", "/") and not one.include for one in dep.content
                )
                if whole:
                    return True
    return False
