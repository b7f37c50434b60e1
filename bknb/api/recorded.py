"""A build that is over, as its events tell it: this process's, or one that was opened from a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bknb import display
from bknb.api.picture import Graph, table
from bknb.digest import Digest
from bknb.display.excerpt import excerpt
from bknb.display.model import BuildView, StepView, fold_all
from bknb.errors import BuildError, DockerfileError, UsageError, did_you_mean
from bknb.events import Event
from bknb.history import SavedBuild, open_build
from bknb.llb import Definition
from bknb.llb.veil import named

if TYPE_CHECKING:
    import pandas

    from bknb.analysis import Seen
    from bknb.api.explained import Why
    from bknb.display.reasons import Reasons


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One step of a build."""

    view: StepView

    @property
    def name(self) -> str:
        """As in the progress: ``[build 2/4] RUN make``."""
        return self.view.name

    @property
    def command(self) -> str:
        """The instruction."""
        return self.view.command

    @property
    def stage(self) -> str:
        """The stage's name, "" where there is none."""
        return self.view.stage

    @property
    def digest(self) -> Digest:
        """Of its vertex in the definition."""
        return self.view.digest

    @property
    def outcome(self) -> str:
        """definition, content, remote, ran, merged, skipped, compiled, cancelled or failed."""
        return str(self.view.state)

    @property
    def log(self) -> str:
        """Its whole output, stdout and stderr as they came."""
        return self.view.log_bytes.decode(errors="replace")

    def __repr__(self) -> str:
        return f"<Step {self.name} {self.outcome}>"


class RecordedBuild:
    """What can be asked of a build anywhere: its picture, its table, its steps and their logs.

    Attributes:
        id: of its record.
        events: everything that was said, in order.
    """

    def __init__(self, id: str, events: tuple[Event, ...]) -> None:
        self.id = id
        self.events = events
        self._view: BuildView | None = None

    @property
    def view(self) -> BuildView:
        """The build as people see it, folded from its events when it is first asked for."""
        if self._view is None:
            self._view = fold_all(BuildView(), self.events)
        return self._view

    @property
    def steps(self) -> Sequence[RecordedStep]:
        """Every step, in the order of the build."""
        return [RecordedStep(view) for view in self.view.shown]

    def __getitem__(self, name: str | int) -> RecordedStep:
        """A step by its number, digest, name, or a part of its instruction's text.

        Raises:
            UsageError: none, or several that differ.
        """
        steps = self.steps
        if isinstance(name, int):
            return steps[name]
        exact = [
            s
            for s in steps
            if name in (s.name, s.command, s.digest, s.digest.hex[: len(name)] if len(name) >= 6 else "")
        ]
        found = (
            exact
            or [s for s in steps if name.lower() in s.name.lower()]
            or [s for s in steps if s.stage == name][-1:]
        )
        if len(found) == 1:
            return found[0]
        if not found:
            raise UsageError(
                f"no step {name!r}{did_you_mean(name, [s.command or s.name for s in steps])}; build.steps lists them"
            )
        raise UsageError(
            f"{name!r} could be {', '.join(repr(s.command or s.name) for s in found[:4])}: say more of it"
        )

    def _ipython_key_completions_(self) -> list[str]:
        return [step.command or step.name for step in self.steps]

    def log(self, name: str | int | None = None) -> str:
        """The whole log of a step, or of all of them."""
        return self[name].log if name is not None else "".join(step.log for step in self.steps)

    # --- as data, as a picture ---

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each step: what it is, how it came to its result, what it took."""
        return table(self.view, self.reasons)

    @property
    def reasons(self) -> Reasons | None:
        """What a picture says of why; None where there is nothing to say."""
        return None

    @property
    def graph(self) -> Graph:
        """The graph as a picture: shows itself, and saves to svg, dot or mermaid."""
        return Graph(self.view)

    def _seen(self) -> Seen:
        """What a comparison with another build reads."""
        raise UsageError(f"build {self.id} cannot be compared")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> Mapping[str, Any]:
        return display.mimebundle(self.view, reasons=self.reasons)

    def __repr__(self) -> str:
        return display.render_text(self.view)


class OpenedBuild(RecordedBuild):
    """A build from a file: it can be shown and asked, not run.

    Attributes:
        saved: everything that the file holds.
    """

    def __init__(self, saved: SavedBuild) -> None:
        super().__init__(saved.id, saved.events)
        self.saved = saved

    @property
    def definition(self) -> Definition:
        """The LLB that was built; of the first platform where there are several."""
        return Definition.from_bytes(self.saved.definitions[0] if self.saved.definitions else b"")

    def _seen(self) -> Seen:
        from bknb.analysis import Seen

        record = self.saved.record
        edges = [
            named(Definition.from_bytes(data).to_edge(), self.saved.veiled) for data in self.saved.definitions
        ]
        steps = record.steps if record is not None else ()
        return Seen.of(
            self.id, steps, self.events, edges, record.opts if record is not None else {}, self.saved.texts,
            self.saved.removed,
        )  # fmt: skip

    @property
    def reasons(self) -> Reasons | None:
        """What its picture said of why when it was saved."""
        from bknb.display.reasons import Reasons

        return Reasons.from_json(self.saved.reasons) if self.saved.reasons else None

    def why(self, step: str | int | None = None, *, against: RecordedBuild) -> Why:
        """Why it did what it did, compared with another build, which may come from a file too.

        The files bring what is needed along: lists of the files that steps read, and what their sources meant.

        Raises:
            UsageError: no such step.
        """
        from bknb.analysis import explain
        from bknb.analysis.words import with_hints
        from bknb.api.explained import Why

        digest = self[step].digest if step is not None else ""
        after = self._seen()
        return Why(with_hints(explain(against._seen(), after), after), digest)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the exporters answered."""
        return self.saved.metadata


def open_file(path: str | os.PathLike[str]) -> OpenedBuild:
    """Open a build that was saved with `Build.save`, on any machine.

    Raises:
        UsageError: it is not there, no saved build, or of a newer bknb.
    """
    return OpenedBuild(open_build(path))


def failure_text(error: BuildError) -> str:
    """What a person needs to see of a failed build: the place in the source, the last log lines, the error."""
    build = error.result
    if not isinstance(build, RecordedBuild):
        return f"ERROR: {error}"
    if build.view.failed:
        return display.render_failure(build.view)
    cause = error.__cause__
    ranges = cause.ranges if isinstance(cause, DockerfileError) else ()
    source = excerpt(build.view.dockerfile, ranges, build.view.filename or "Dockerfile").rstrip("\n")
    return "\n".join(part for part in (source, f"ERROR: {error}") if part)
