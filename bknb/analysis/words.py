"""An explanation in words: a line for a build, a phrase for a step, and what could be done about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bknb.analysis.causes import Cause, Explanation, Kind, StepReason
from bknb.analysis.files import MOST_CAUSES
from bknb.analysis.seen import Seen, uses
from bknb.display.answer import Paragraph, Proof, as_text, visible
from bknb.llb.ops import SourceOp
from bknb.record import StepRecord

_SHORT = 60
_MOST_PROOFS = 10
_IGNORABLE = (
    ".git",
    "__pycache__",
    ".ipynb_checkpoints",
    "node_modules",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
)
_OF_THE_BUILD = ("Dockerfile", ".dockerignore")
"""At the top of a context a COPY of the whole has them, and few want that."""
_ATTRIBUTES = {
    Kind.FILE_MODE: "mode",
    Kind.FILE_OWNER: "owner",
    Kind.FILE_LINK: "link",
    Kind.FILE_XATTR: "xattr",
}


def phrase(cause: Cause) -> str:
    """A cause in a few words, its subject first where it has one."""
    subject, was, now = _cut(cause.subject), _cut(cause.before), _cut(cause.after)
    match cause.kind:
        case Kind.FILE_ADDED:
            return f"{subject} is not left out by {was} any more" if was else f"{subject} was added"
        case Kind.FILE_REMOVED:
            return f"{subject} is left out by {now} now" if now else f"{subject} was removed"
        case Kind.FILE_CONTENT:
            return f"{subject} changed{counted(cause)}"
        case Kind.FILE_MODE | Kind.FILE_OWNER | Kind.FILE_LINK | Kind.FILE_XATTR:
            return f"{subject}: {_ATTRIBUTES[cause.kind]} {was or 'none'} → {now or 'none'}"
        case Kind.FILES:
            return f"files that {subject} reads changed"
        case Kind.INSTRUCTION:
            alike = cause.before.split() == cause.after.split()
            return f"{subject} was edited{' (spaces only)' if alike else ''}"
        case Kind.NEW:
            return f"{subject} is new"
        case Kind.REMOVED:
            return f"{subject} was removed"
        case Kind.ARG | Kind.ENV:
            return f"{cause.kind.value.upper()} {subject} {was or 'unset'} → {now or 'unset'}"
        case Kind.IMAGE:
            return f"FROM {was} → {now}"
        case Kind.IMAGE_MOVED:
            return f"{subject} is another image: {_digest(cause.before)} → {_digest(cause.after)}"
        case Kind.SOURCE:
            return f"{was} → {now}"
        case Kind.GIT_COMMIT:
            return f"{subject} is another commit: {cause.before[:12] or 'unknown'} → {cause.after[:12] or 'unknown'}"
        case Kind.HTTP_BODY:
            return f"{subject} has other bytes: {_digest(cause.before)} → {_digest(cause.after)}"
        case Kind.PLATFORM:
            return f"platform {was or 'none'} → {now or 'none'}"
        case Kind.FRONTEND:
            return f"frontend {was} → {now}"
        case Kind.FIELD:
            return f"{subject}: {was or 'none'} → {now or 'none'}"
        case Kind.NO_CACHE:
            return f"--no-cache-filter {subject}" if subject else "--no-cache"
        case Kind.NEVER_BUILT:
            return f"{subject} was not needed before" if subject else "built for the first time"
        case Kind.UNFINISHED:
            return f"it had not finished the last time ({cause.before or 'never began'})"
        case Kind.EVICTED:
            return f"its result was {now}"
        case Kind.BLOB_MISSING:
            return "its result was known, but its files were gone" + (f" ({now})" if now else "")
        case Kind.REMOTE_UNREACHABLE:
            return f"the cache {subject} could not be asked" + (f" ({now})" if now else "")
        case Kind.NEVER_EXPORTED:
            return f"left out of the cache {subject}" + (f" ({now})" if now else "")
        case Kind.GONE:
            return "nothing changed, but its result is not in the cache any more"


def counted(cause: Cause) -> str:
    """Lines that came and went, as `` +3 −1``; "" where no difference is at hand."""
    added = sum(line.startswith("+") for line in cause.diff)
    removed = sum(line.startswith("-") for line in cause.diff)
    return f" +{added} −{removed}" if added or removed else ""


def sentence(explanation: Explanation) -> tuple[str, str]:
    """The line for a build and the part of it to be shown strong; "" where nothing is worth saying."""
    groups = grouped(explanation)
    if not groups:
        return "", ""
    first, steps = groups[0]
    subject = _subject(first)
    if len(groups) == 1:
        return f"One cause: {_group(first)}. It made {_steps(steps)} run.", subject
    said = [f"{_group(causes)} ({_steps(ran)})" for causes, ran in groups[:3]]
    more = f", and {len(groups) - 3} more" if len(groups) > 3 else ""
    return f"{len(groups)} causes: {', '.join(said)}{more}.", subject


def grouped(explanation: Explanation) -> list[tuple[list[Cause], list[StepReason]]]:
    """Causes with the steps that they made run; files that made the same steps run are one group."""
    found: dict[tuple[object, ...], tuple[list[Cause], list[StepReason]]] = {}
    for cause in explanation.causes:
        steps = explanation.made_run(cause)
        ran = tuple(one.step.digest for one in steps)
        alike: object = "files" if cause.kind.of_file else "gone" if cause.kind.unchanged else cause
        key = (alike, ran if alike != "gone" else cause.kind)
        causes, made = found.setdefault(key, ([], []))
        causes.append(cause)
        made += [one for one in steps if one not in made]
    return list(found.values())


def short(one: StepReason) -> str:
    """The same as `reason` where something changed, came from elsewhere, or ran; "" for what is as it was."""
    return reason(one) if one.ran or one.roots or one.because is not None or one.remote else ""


def reason(one: StepReason) -> str:
    """Why a step came to its outcome; "" where there is nothing to say."""
    outcome = one.step.outcome
    if outcome == "skipped":
        return f"stage {one.step.stage} is not needed" if one.step.stage else "not needed"
    if outcome in ("definition", "content") and one.roots:
        return f"as in an earlier build: {phrase(one.roots[0])}"
    if outcome == "definition":
        return "same definition, same input"
    if outcome == "content":
        return (
            f"same files, although {_name(one.because)} changed" if one.because is not None else "same files"
        )
    if outcome == "remote":
        return f"imported from {one.remote}" if one.remote else "an imported cache has it"
    if not one.ran or one.step.kind == "local":
        return ""
    if one.own:
        more = f" and {len(one.own) - 1} more" if len(one.own) > 1 else ""
        return f"{phrase(one.own[0])}{more}"
    return f"because of {_name(one.because)}" if one.because is not None else ""


def with_hints(explanation: Explanation, after: Seen) -> Explanation:
    """The same with hints where there are any."""
    hints = {cause: hint(cause, explanation, after) for cause in explanation.causes}
    return replace(
        explanation,
        causes=tuple(replace(cause, hint=text) if text else cause for cause, text in hints.items()),
    )


def hint(cause: Cause, explanation: Explanation, after: Seen) -> str:
    """What could be done so that this does not make steps run again; "" where nothing is known."""
    if cause.kind.of_file:
        source = after.vertices.get(cause.origin[1])
        if source is not None and not (
            isinstance(source.op, SourceOp) and source.op.identifier.startswith("local://")
        ):
            return ""
        return next(
            (
                f"put {name} in .dockerignore"
                for name in (*_IGNORABLE, *_OF_THE_BUILD)
                if name == cause.subject or (name in _IGNORABLE and name in cause.subject.split("/"))
            ),
            "",
        )
    if cause.kind is Kind.ARG:
        return _lower_arg(cause, explanation, after)
    if cause.kind is Kind.IMAGE_MOVED:
        return f"FROM {cause.subject}@{cause.after} stays what it is"
    if cause.kind is Kind.GIT_COMMIT:
        return f"{cause.subject.partition('#')[0]}#{cause.after} stays what it is"
    if cause.kind is Kind.HTTP_BODY:
        return f"ADD --checksum={cause.after} says which bytes are meant"
    if cause.kind is Kind.NEVER_EXPORTED:
        return "--cache-to ...,mode=max exports every step"
    return ""


def _lower_arg(cause: Cause, explanation: Explanation, after: Seen) -> str:
    """An ARG that stands above steps that do not name it makes them run: below the last of them it would not."""
    name = cause.subject
    ran = sorted(
        after.lines[one.step.digest]
        for one in explanation.made_run(cause)
        if cause in one.own and one.step.digest in after.lines
    )
    places = [one.line for one in after.variables.get(name, ()) if one.word == "ARG"]
    declared = max((line for line in places if ran and line < ran[0][0]), default=0)
    below = range(declared + 1, after.next_stage(declared))
    needed = [number for number in below if uses(after.source[number - 1], name)]
    if not declared or not needed:
        return ""
    lowest = max((last for _, last in ran if last < needed[0]), default=0)
    return f"move ARG {name} (line {declared}) below line {lowest}" if lowest else ""


def text(explanation: Explanation) -> str:
    """The whole answer as text: each cause, its proof, what it made run, what could be done."""
    return as_text(paragraphs(explanation))


def paragraphs(explanation: Explanation) -> list[Paragraph]:
    """The answer for a build: the causes that made most steps run first."""
    return [
        Paragraph(
            _group(causes), _subject(causes), f"{_steps(steps)} ran", _proofs(causes),
            [_name(one.step) for one in steps], _hints(causes),
        )
        for causes, steps in grouped(explanation)
    ]  # fmt: skip


def about(explanation: Explanation, step: str) -> list[Paragraph]:
    """The answer for one step, by its digest; hits are explained too."""
    shown = {cause: cause for cause in explanation.causes}  # with differences and hints
    for one in explanation.steps:
        if one.step.digest == step:
            roots = [shown.get(cause, cause) for cause in one.roots]
            name = _name(one.step)
            return [
                Paragraph(
                    f"{name}: {reason(one) or one.step.outcome}",
                    name,
                    "",
                    _proofs(roots, alone=False),
                    (),
                    _hints(roots),
                )
            ]
    return []


def _hints(causes: Iterable[Cause]) -> list[str]:
    return list(dict.fromkeys(cause.hint for cause in causes if cause.hint))


def _proofs(causes: Sequence[Cause], *, alone: bool = True) -> list[Proof]:
    """What shows some causes; one alone has been named already."""
    found: dict[Proof, int] = {}  # results that are gone for one reason are told once
    for cause in causes:
        name = "" if alone and len(causes) == 1 else phrase(cause)
        lines = tuple(proof(cause))
        if name or lines:
            found[Proof(name, lines)] = found.get(Proof(name, lines), 0) + 1
    if alone and len(found) == 1 and causes[0].kind in (Kind.EVICTED, Kind.GONE):
        return []  # the group's name says it
    told = [Proof(f"{one.name} ({n} times)" if n > 1 else one.name, one.lines) for one, n in found.items()]
    more = len(told) - _MOST_PROOFS
    return [*told[:_MOST_PROOFS], Proof(f"… and {more} more")] if more > 0 else told


def proof(cause: Cause) -> list[str]:
    """Lines of the difference, or the old value and the new."""
    if cause.diff:
        return list(cause.diff)
    if cause.kind in (Kind.INSTRUCTION, Kind.IMAGE_MOVED, Kind.GIT_COMMIT, Kind.HTTP_BODY):
        return [
            *(f"- {line}" for line in cause.before.splitlines()),
            *(f"+ {line}" for line in cause.after.splitlines()),
        ]
    return [f"{cause.before} → {cause.after}"] if cause.kind is Kind.FILE_CONTENT else []


def _group(causes: Sequence[Cause]) -> str:
    if len(causes) == 1:
        return phrase(causes[0])
    if not causes[0].kind.of_file:
        removed = {cause.after for cause in causes}
        return {
            Kind.EVICTED: f"{len(causes)} results were {removed.pop() if len(removed) == 1 else 'evicted'}",
            Kind.UNFINISHED: f"{len(causes)} steps had not finished the last time",
            Kind.BLOB_MISSING: f"the files of {len(causes)} results were gone",
            Kind.REMOTE_UNREACHABLE: f"{len(causes)} caches could not be asked",
            Kind.NEVER_EXPORTED: f"left out of {len(causes)} caches",
        }.get(causes[0].kind, f"{len(causes)} results are not in the cache any more")
    paths = list(dict.fromkeys(cause.subject for cause in causes))
    happened = "changed"
    if all(cause.kind is Kind.FILE_REMOVED and cause.after for cause in causes):
        happened = f"are left out by {causes[0].after} now"
    elif all(cause.kind is Kind.FILE_ADDED and cause.before for cause in causes):
        happened = f"are not left out by {causes[0].before} any more"
    if len(paths) == 1:
        return f"{_cut(paths[0])} changed"
    number = f"{len(paths)} or more" if len(causes) >= MOST_CAUSES else str(len(paths))
    return f"{number} files {happened} ({', '.join(_cut(path) for path in paths[:2])}{', …' if len(paths) > 2 else ''})"


def _subject(causes: Sequence[Cause]) -> str:
    return _cut(causes[0].subject) if len(causes) == 1 and not causes[0].kind.unchanged else ""


def _name(step: StepRecord | None) -> str:
    return _cut(step.command or step.name) if step is not None else ""


def _steps(steps: Iterable[StepReason]) -> str:
    number = len(list(steps))
    return "1 step" if number == 1 else f"{number} steps"


def _digest(text: str) -> str:
    return text.partition(":")[2][:12] or text or "unknown"


def _cut(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"
