"""What can make a step run, as a closed set."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bknb.record import StepRecord


class Kind(enum.StrEnum):
    """What changed, or what else kept a step from being cached."""

    FILE_ADDED = "file-added"
    FILE_REMOVED = "file-removed"
    FILE_CONTENT = "file-content"
    FILE_MODE = "file-mode"
    FILE_OWNER = "file-owner"
    FILE_LINK = "file-link"
    FILE_XATTR = "file-xattr"
    FILES = "files"
    """Files that a step reads: the lists that would tell which are not there."""
    INSTRUCTION = "instruction"
    """Its text was edited."""
    NEW = "new"
    """The baseline has no such step."""
    REMOVED = "removed"
    """A step that stood below it is not there any more."""
    FIELD = "field"
    """A part of the op that no instruction's text shows."""
    ARG = "arg"
    ENV = "env"
    IMAGE = "image"
    """Another image is asked for."""
    IMAGE_MOVED = "image-moved"
    """The same name means another digest."""
    SOURCE = "source"
    """Another git or http address is asked for."""
    GIT_COMMIT = "git-commit"
    """The same address means another commit."""
    HTTP_BODY = "http-body"
    """The same address answers with other bytes."""
    PLATFORM = "platform"
    FRONTEND = "frontend"
    NO_CACHE = "no-cache"
    NEVER_BUILT = "never-built"
    """There is no earlier build, or it did not need this step."""
    UNFINISHED = "unfinished"
    """Nothing changed: the baseline had not come to its end here."""
    EVICTED = "evicted"
    """Nothing changed: its result was removed, and it is known when and by which rule."""
    BLOB_MISSING = "blob-missing"
    """Nothing changed: the cache knew a result whose bytes were gone."""
    REMOTE_UNREACHABLE = "remote-unreachable"
    """Nothing changed: the cache that it would be imported from could not be asked."""
    NEVER_EXPORTED = "never-exported"
    """Nothing changed: the cache that was exported left this step out (``mode=min``)."""
    GONE = "gone"
    """Nothing changed: its result is not in the cache any more, and nothing says why."""

    @property
    def of_file(self) -> bool:
        """Whether the subject is a path."""
        return self.value.startswith("file-")

    @property
    def unchanged(self) -> bool:
        """Whether the step is what it was, and only its result could not be had."""
        return self in _UNCHANGED


_UNCHANGED = frozenset(
    (
        Kind.UNFINISHED,
        Kind.EVICTED,
        Kind.BLOB_MISSING,
        Kind.REMOTE_UNREACHABLE,
        Kind.NEVER_EXPORTED,
        Kind.GONE,
    )
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. Two steps with an equal cause ran for the same reason.

    Attributes:
        kind: which.
        subject: path, name of a variable, field of an op, name of an image, or the instruction.
        before: the value that the baseline had; of a file's content the size in bytes.
        after: the value now.
        origin: vertices of the input that holds the file, in the two builds; for whoever wants its bytes.
        diff: lines of a short text difference, where the bytes were at hand.
        hint: what could be done about it.
    """

    kind: Kind
    subject: str = ""
    before: str = ""
    after: str = ""
    origin: tuple[str, str] = field(default=("", ""), compare=False)
    diff: tuple[str, ...] = field(default=(), compare=False)
    hint: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class StepReason:
    """Why one step came to its outcome.

    Attributes:
        step: in the build that is asked about; `before` the same step in the baseline, None if it has none.
        own: causes that lie in the step itself and in the files that it reads from outside.
        roots: all causes that reach it, its own first.
        because: the step above it whose cause reached it first, or would have if its files were not the same; None
            if it has a cause of its own, or none.
        remote: name of the cache that it was imported from, "" for the local one.
    """

    step: StepRecord
    before: StepRecord | None = None
    own: tuple[Cause, ...] = ()
    roots: tuple[Cause, ...] = ()
    because: StepRecord | None = None
    remote: str = ""

    @property
    def ran(self) -> bool:
        """Whether it was made, or began to be, in this build."""
        return self.step.outcome in ("ran", "merged", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a build did what it did.

    Attributes:
        before: id of the baseline; "" where there is none.
        after: id of the build that is asked about.
        steps: a reason for each step, inputs first.
        causes: the root causes of what ran, the one that made most steps run first.
    """

    before: str
    after: str
    steps: Sequence[StepReason] = ()
    causes: Sequence[Cause] = ()

    def made_run(self, cause: Cause) -> list[StepReason]:
        """The steps that ran because of a cause; sources that were only looked at are not counted."""
        return [one for one in self.steps if one.ran and cause in one.roots and counts(one.step)]

    def with_diffs(self, diffs: Mapping[Cause, tuple[str, ...]]) -> Explanation:
        """The same with lines of the differences in files."""
        shown = {cause: replace(cause, diff=diffs.get(cause, cause.diff)) for cause in self.causes}
        steps = tuple(
            replace(one, own=tuple(shown.get(cause, cause) for cause in one.own)) for one in self.steps
        )
        return replace(self, steps=steps, causes=tuple(shown.values()))


def counts(step: StepRecord) -> bool:
    """Whether "3 steps" counts it: not contexts, not what the builder does for itself."""
    return step.kind not in ("local", "internal", "passthrough") and not is_document(step)


def is_document(step: StepRecord) -> bool:
    """Whether it only writes down a heredoc that stands in another step's instruction."""
    return step.kind == "file" and step.name.startswith("[internal]")
