"""Replay: what builds of the last commits would have found in the cache, and what another order would have saved.

::

    found = bknb.replay(".", "-n", "200")
    found                    # shows itself: a heat map of commits and steps, and changes that would have saved work
    found.table              # a DataFrame: one row for each commit and step
    found.costs              # a DataFrame: what each instruction costs over that history
    found.savings            # a DataFrame: what another order would have saved
    found.save("replay.svg")
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from bknb.analysis import replay as core
from bknb.analysis.replay import Clock, Outcome, Question, Reordering, Repository
from bknb.api.replay_view import view_of
from bknb.builder.bridge import LocalBridge
from bknb.builder.local import LocalBuilder
from bknb.display.heat import svg
from bknb.display.replay import ReplayView, render_html, render_text
from bknb.errors import UsageError
from bknb.history import History
from bknb.options import words_parser
from bknb.options.values import whole
from bknb.platforms import Platform
from bknb.protocols import ImageConfigAnswer
from bknb.session import LocalSession

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client

_REMEMBERED: Final = 200
"""Builds whose durations count, newest first."""
COMMITS: Final = 50


class Replay:
    """What a replay has found out; it shows itself.

    Attributes:
        found: everything, as data.
        name: of the folder whose history it is.
    """

    def __init__(self, found: core.Replay, name: str) -> None:
        self.found = found
        self.name = name

    @property
    def notes(self) -> Sequence[str]:
        """What was taken for granted."""
        return self.found.notes

    @property
    def reorderings(self) -> Sequence[Reordering]:
        """Changes of the Dockerfile that keep what the build means and would have saved work, the most first."""
        return self.found.reorderings

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each commit and step.

        Columns: ``commit``, ``time``, ``subject``, ``stage``, ``step`` (the instruction as it was last: the row of the
        map), ``instruction`` (as that commit has it), ``outcome`` (cached, ran, known only at run time), ``how`` (of a
        cached one: definition, content, merged), ``seconds`` (that a run takes, from earlier ones; none for what did not
        run, or never did). Commits that cannot be built have one row, with the reason as ``error``.
        """
        import pandas

        from bknb.api.frames import table

        rows: list[dict[str, object]] = []
        each = {id(cost.row): cost.each for cost in self.found.costs}
        timeline = self.found.timeline
        for column in timeline.columns:
            commit = column.commit
            when = pandas.Timestamp(commit.time, unit="s")
            head: dict[str, object] = {
                "commit": commit.id,
                "time": when,
                "subject": commit.subject,
                "error": column.error,
            }
            if column.error:
                rows.append(head)
            for row, cell in zip(timeline.rows, column.cells, strict=True):
                if cell is not None:
                    seconds = each.get(id(row)) if cell.outcome is Outcome.RAN else None
                    rows.append({
                        **head, "stage": row.stage, "step": row.command, "instruction": cell.command,
                        "outcome": cell.outcome.value, "how": cell.how, "seconds": seconds,
                    })  # fmt: skip
        columns = [
            "commit",
            "time",
            "subject",
            "stage",
            "step",
            "instruction",
            "outcome",
            "how",
            "seconds",
            "error",
        ]
        kinds = pandas.CategoricalDtype([outcome.value for outcome in Outcome])
        return table(pandas.DataFrame(rows, columns=columns).astype({"seconds": "float64", "outcome": kinds}))

    @property
    def costs(self) -> pandas.DataFrame:
        """What each instruction costs over the history, the dearest first.

        Columns: ``stage``, ``step``, ``ran``, ``unknown``, ``cached`` (commits), ``each`` (seconds of one run, the median
        of ``samples`` earlier ones; none where there are none), ``seconds`` (of all runs), ``now`` (the newest commit
        has it).
        """
        import pandas

        from bknb.api.frames import table

        rows = [
            {
                "stage": cost.row.stage, "step": cost.row.command, "ran": cost.ran, "unknown": cost.unknown,
                "cached": cost.cached, "each": cost.each, "samples": cost.samples, "seconds": cost.seconds, "now": cost.row.now,
            }
            for cost in self.found.costs
        ]  # fmt: skip
        columns = ["stage", "step", "ran", "unknown", "cached", "each", "samples", "seconds", "now"]
        return table(pandas.DataFrame(rows, columns=columns).astype({"each": "float64", "seconds": "float64"}))

    @property
    def savings(self) -> pandas.DataFrame:
        """What another order would have saved: ``change``, ``runs`` of commands, ``seconds``, ``commits``, ``because``."""
        import pandas

        from bknb.api.frames import table

        rows = [
            {
                "change": one.title,
                "runs": one.runs,
                "seconds": one.seconds,
                "commits": one.commits,
                "because": one.because,
            }
            for one in self.reorderings
        ]
        columns = ["change", "runs", "seconds", "commits", "because"]
        return table(pandas.DataFrame(rows, columns=columns).astype({"seconds": "float64"}))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the heat map as ``.svg``, or everything as ``.html`` or ``.txt``.

        Raises:
            UsageError: another ending, or the file cannot be written.
        """
        ending = os.path.splitext(os.fspath(path))[1].lower()
        makers = {
            ".svg": lambda: svg(self._view.heat),
            ".html": lambda: render_html(self._view),
            ".txt": lambda: f"{self!r}\n",
        }
        if ending not in makers:
            raise UsageError(f"{os.fspath(path)}: the ending says the form: {', '.join(makers)}")
        try:
            with open(path, "w", encoding="utf-8", errors="replace") as file:
                file.write(makers[ending]())
        except OSError as error:
            raise UsageError(f"{os.fspath(path)} cannot be written ({error.strerror})") from None

    def text(self, width: int = 100) -> str:
        """For a terminal of some width."""
        return render_text(self._view, width)

    @cached_property
    def _view(self) -> ReplayView:
        return view_of(self.found, self.name)

    def __repr__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> Mapping[str, str]:
        return {"text/plain": repr(self), "text/html": render_html(self._view)}


# --- asking -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What the words of a replay say."""

    context: str = "."
    file: str = ""
    commits: int = COMMITS
    revisions: tuple[str, ...] = ()
    opts: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None


def parser(prog: str) -> argparse.ArgumentParser:
    """The parser of a replay's words."""
    made = words_parser(prog)
    add = made.add_argument
    add(
        "context",
        nargs="?",
        default=".",
        metavar="REPO/CONTEXT",
        help="a folder of a git repository: what COPY reads; the current one if absent",
    )
    add("-f", "--file", default="", metavar="PATH", help="the Dockerfile; CONTEXT/Dockerfile if absent")
    add(
        "-n",
        "--commits",
        type=whole,
        default=COMMITS,
        metavar="N",
        help=f"replay the last N commits of the first parents' line; {COMMITS} if absent",
    )
    add(
        "--rev",
        action="append",
        default=[],
        metavar="REV",
        help="replay these commits, in this order; may repeat",
    )
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="K=V",
        help="a build argument; in it {commit}, {short}, {time} are each commit's; may repeat",
    )
    add("--target", default="", metavar="STAGE", help="the stage to build; the last one if absent")
    add("--platform", default="", metavar="OS/ARCH", help="what is built for; this machine's if absent")
    return made


def parse_replay(words: Sequence[str], prog: str = "%bknb replay") -> ReplayOptions:
    """What the words say.

    Raises:
        UsageError: a word is not understood.
    """
    return options_of(parser(prog).parse_args(list(words)))


def options_of(found: argparse.Namespace) -> ReplayOptions:
    """What `parser` has read.

    Raises:
        UsageError: a value is not understood.
    """
    opts = {}
    for text in found.build_arg:
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in os.environ):
            raise UsageError(f"--build-arg {text}: write NAME=VALUE")
        opts[f"build-arg:{name}"] = value if equals else os.environ[name]
    if found.target:
        opts["target"] = found.target
    if found.platform:
        opts["platform"] = found.platform
    try:
        platform = Platform.parse(found.platform) if found.platform else None
    except ValueError as error:
        raise UsageError(f"--platform {error}") from None
    return ReplayOptions(found.context, found.file, found.commits, tuple(found.rev), opts, platform)


def replayed(client: Client, options: ReplayOptions) -> Replay:
    """As `bknb.replay`, with options that have been read.

    Raises:
        UsageError: no such revision.
        SourceError: no repository, or a base image cannot be had.
    """
    folder = os.path.abspath(os.path.expanduser(options.context))
    question = Question(_filename(options.file, folder), options.opts, options.platform or Platform.host())

    async def act(builder: LocalBuilder) -> core.Replay:
        images, stop = _Images(builder), threading.Event()
        try:
            return await asyncio.to_thread(_work, options, question, images, stop, builder.parts.history)
        finally:
            stop.set()

    return Replay(client.call(act), os.path.basename(folder))


def _work(
    options: ReplayOptions, question: Question, images: _Images, stop: threading.Event, history: History
) -> core.Replay:
    """The replay, in a thread of its own: it computes, and asks the builder for images only."""
    with Repository(options.context) as repository:
        chosen = options.revisions
        commits = repository.revisions(chosen) if chosen else repository.commits(options.commits)
        return asyncio.run(
            core.replay(repository, commits, question, images.resolve, clock_of(history), stop.is_set)
        )


class _Images:
    """Image configs from the builder's loop, for a thread beside it."""

    def __init__(self, builder: LocalBuilder) -> None:
        self._builder = builder
        self._loop = asyncio.get_running_loop()

    def resolve(self, reference: str, platform: Platform | None, mode: str) -> ImageConfigAnswer:
        """As `core.ResolveImage`."""
        return asyncio.run_coroutine_threadsafe(self._look(reference, platform, mode), self._loop).result()

    async def _look(self, reference: str, platform: Platform | None, mode: str) -> ImageConfigAnswer:
        parts = self._builder.parts
        session = LocalSession({}, {}, {}, os.environ)
        async with parts.solver.job("replay", session, lambda event: None) as job:
            bridge = LocalBridge(
                job, parts.worker.platforms, job.solve, parts.images.resolve_image_config, parts.worker
            )
            return await bridge.resolve_image_config(
                reference, platform=platform, resolve_mode=mode, log_name=""
            )


def _filename(file: str, folder: str) -> str:
    """The Dockerfile relative to the context; a name that is no file here is one of the context's."""
    if not file:
        return "Dockerfile"
    path = os.path.abspath(os.path.expanduser(file))
    return os.path.relpath(path, folder) if os.path.exists(path) else os.path.normpath(file)


def clock_of(history: History) -> Clock:
    """What instructions took when builds ran them."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in islice(history.walk(), _REMEMBERED):
        for step in record.steps:
            if step.outcome == "ran" and step.command and step.completed is not None:
                found.setdefault((step.stage, step.command), []).append(step.seconds)
    return Clock(found)
