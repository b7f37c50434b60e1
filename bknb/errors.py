"""Every error that bknb raises on purpose.

::

    BknbError
    ├── UsageError            wrong words: an option, a magic, an argument
    ├── ConfigError           a setting or a configuration file
    ├── DockerfileError       a Dockerfile, with the place in it
    ├── DefinitionError       an LLB definition that does not hold together
    ├── InvalidReference      an image name
    ├── PathError             a path that leaves its root, or is not there
    ├── ContentError          a blob whose bytes are missing or are not what its digest says
    ├── RegistryError         what a registry answered, or that it did not
    ├── SourceError           a context, image, git repository or URL that cannot be had
    ├── SnapshotError         the file systems below a step
    ├── StoreError            the state folder: locked, too new, full, unreadable
    ├── ExecutorError         no container could be started (the step itself did not fail)
    ├── UnsupportedError      a thing that this machine, or this version, does not do
    ├── BuildError            a step failed; carries the step and what there is of the build
    │   └── MissError         a step is not cached, and nothing should have run
    ├── ExitError             a command ended with a code that is not accepted
    ├── StepError             one vertex failed
    └── BuildCancelled        the build was stopped (also a KeyboardInterrupt)

An error carries data; its text is one line that says what to do. Errors of libraries are mapped once, at
the boundary where they appear.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Range(NamedTuple):
    """A part of a source file: lines from 1, characters from 0, both ends included (pb.Range)."""

    start_line: int
    start_character: int = 0
    end_line: int = 0
    end_character: int = 0


class BknbError(Exception):
    """The root of the tree. `str()` is one line for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class UsageError(BknbError):
    """An option or argument that is not understood."""


class ConfigError(BknbError):
    """A setting that cannot be used; the message names its key and file."""


class DockerfileError(BknbError):
    """Something is wrong in a Dockerfile.

    Attributes:
        filename: as the user knows it; empty when not known yet.
        ranges: the lines that are to blame, in file order; may be empty.
        locations: the lines of each place that is to blame: of two stages that need each other, both.
        suggestion: the nearest known name, or "".
        warnings: the lint warnings met before the error (objects of `frontend.dockerfile.lint`).
    """

    def __init__(
        self, message: str, ranges: Sequence[Range] = (), *, filename: str = "", suggestion: str = ""
    ) -> None:
        super().__init__(message)
        self.ranges = tuple(ranges)
        self.locations: tuple[tuple[Range, ...], ...] = (self.ranges,) if ranges else ()
        self.filename = filename
        self.suggestion = suggestion
        self.warnings: tuple[Any, ...] = ()


class DefinitionError(BknbError):
    """An LLB definition that does not hold together; `vertex` is the digest to blame, if known."""

    def __init__(self, message: str, vertex: str = "") -> None:
        super().__init__(message)
        self.vertex = vertex


class InvalidReference(BknbError):
    """A text that is not an image name."""


class PathError(BknbError):
    """A path inside a root that cannot be opened: missing, leaving the root, or of the wrong kind."""


class ContentError(BknbError):
    """A blob is missing, or its bytes do not have the digest or size that was promised."""


class RegistryError(BknbError):
    """A registry said no, or nothing.

    Attributes:
        status: the HTTP status, or 0 if there was no answer.
        host: the registry that was asked.
    """

    def __init__(self, message: str, *, status: int = 0, host: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.host = host


class SourceError(BknbError):
    """A context, image, git repository or URL that cannot be had."""


class SnapshotError(BknbError):
    """A file system of a step could not be made, mounted, committed or removed."""


class StoreError(BknbError):
    """The state folder cannot be used: too new, unreadable, full."""


class ExecutorError(BknbError):
    """A container could not be started. A command that ran and failed is an `ExitError`."""


class UnsupportedError(BknbError):
    """This machine, or this version, does not do it; the message says what does."""


class ExitError(BknbError):
    """A command ended with an exit code that is not accepted.

    Attributes:
        exit_code: 0 to 255; 128 + n when killed by signal n.
        oom: the memory limit killed it.
        outputs: Refs of what it had written, by output; whoever catches the error releases them.
    """

    def __init__(self, message: str, exit_code: int, *, oom: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.oom = oom
        self.outputs: tuple[Any, ...] = ()


class StepError(BknbError):
    """One vertex failed: wraps the cause and names the vertex, so that a build can be explained.

    Attributes:
        vertex: digest of the vertex in the definition that was asked for.
        name: its display name.
        cause: the error of the operation itself.
        inputs: Refs of its inputs, held for looking into them; whoever catches the error releases them.
        outputs: Refs of what it had written when it failed; the same.
    """

    def __init__(self, vertex: str, name: str, cause: BaseException) -> None:
        super().__init__(f"{name}: {cause}")
        self.vertex = vertex
        self.name = name
        self.cause = cause
        self.inputs: tuple[Any, ...] = ()
        self.outputs: tuple[Any, ...] = ()


class BuildError(BknbError):
    """A build failed.

    Attributes:
        result: what there is of the build (a `bknb.api.Build`), or None when it never began.
        step: the failed step of it (a `bknb.api.Step`), or None.
    """

    def __init__(self, message: str, *, result: Any = None, step: Any = None) -> None:
        super().__init__(message)
        self.result = result
        self.step = step


class MissError(BuildError):
    """A step is not in the cache, and ``--fail-on-miss`` was said.

    Attributes:
        plan: what the build would have done (a `bknb.api.planned.Plan`), or None when it showed only at run time.
    """

    def __init__(self, message: str, *, plan: Any = None) -> None:
        super().__init__(message)
        self.plan = plan


class BuildCancelled(BknbError, KeyboardInterrupt):
    """The build was stopped by its user.

    Attributes:
        clean: everything that it had started was ended and undone.
    """

    def __init__(self, message: str = "Build cancelled.", *, clean: bool = True) -> None:
        BknbError.__init__(self, message)
        self.clean = clean


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known name that looks most like a word, or "".

    >>> nearest("RNU", ["RUN", "COPY"])
    'RUN'
    """
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=cutoff)
    return names[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the nearest known name, or "".

    >>> did_you_mean("--tga", ["--tag", "--file"])
    ' (did you mean --tag?)'
    """
    name = nearest(word, known)
    return f" (did you mean {name}?)" if name else ""
