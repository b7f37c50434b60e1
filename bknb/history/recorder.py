"""A record, made of what a build said."""

from __future__ import annotations

import platform as machine
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bknb import __version__
from bknb.digest import Digest
from bknb.events import (
    BuildEvent,
    DecisionEvent,
    Event,
    LogEvent,
    Outcome,
    Phase,
    ResourceEvent,
    VertexEvent,
)
from bknb.history.baseline import targets_of
from bknb.history.store import History, Text
from bknb.llb.veil import Veil, looks_secret
from bknb.protocols import FrontendResult, SolveRequest
from bknb.record import Record, StepRecord, Use

_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+@")
_HIDDEN: Final = "…"


class Recorder:
    """Writes the records of builds.

    Args:
        history: where to.
        driver: name of the snapshotter.
        runtime: gives the name of what runs steps, which is found out beside the first build.
        compressor: what writes layers.
    """

    def __init__(
        self,
        history: History,
        *,
        driver: str = "",
        runtime: Callable[[], str] = str,
        compressor: str = "",
    ) -> None:
        self._history = history
        self._driver = driver
        self._runtime = runtime
        self._compressor = compressor

    def save(
        self,
        id: str,
        request: SolveRequest,
        frontend: FrontendResult,
        events: Sequence[Event],
        results: Mapping[Digest, tuple[str, ...]],
        error: BaseException | None = None,
        cancelled: bool = False,
    ) -> None:
        """Record a build that has ended; returns at once, a thread writes it."""
        said = tuple(events)

        def write() -> None:
            self._write(id, request, frontend, said, results, "" if error is None else str(error), cancelled)

        self._history.later(write)

    def _write(
        self,
        id: str,
        request: SolveRequest,
        frontend: FrontendResult,
        events: Sequence[Event],
        results: Mapping[Digest, tuple[str, ...]],
        error: str,
        cancelled: bool,
    ) -> None:
        veil = Veil.of(request.opts)
        events = veil.value(tuple(events))
        source = veil.data(frontend.source)
        steps = step_records(events, results)
        definition, veiled = _definition(request, frontend, veil)
        texts = {"events": Text.of_each(event.to_bytes() + b"\n" for event in events)}
        texts |= {
            name: Text.of(data) for name, data in (("dockerfile", source), ("definition", definition)) if data
        }
        digests = {name: text.digest for name, text in texts.items()}
        head, dirty = git_state(request.origin.context)
        times = [event for event in events if isinstance(event, BuildEvent)]
        opts = redact(request.opts)
        record = Record(
            id=id,
            started=times[0].time if times else 0.0,
            finished=times[-1].time if times else 0.0,
            title=request.title,
            targets=targets_of(request),
            notebook=request.origin.notebook,
            cell=request.origin.cell,
            kernel=request.origin.kernel,
            options=request.origin.options,
            opts=opts,
            context=_USERINFO.sub("", request.origin.context),
            git_head=head,
            git_dirty=dirty,
            dockerfile=digests.get("dockerfile", ""),
            definition=digests.get("definition", ""),
            events=digests["events"],
            images=images_of(events),
            versions=_versions(times),
            driver=self._driver,
            runtime=self._runtime(),
            compressor=self._compressor,
            result=times[-1].result if times else "",
            error=veil.text(error),
            cancelled=cancelled,
            steps=steps,
            veiled=veiled,
        )
        self._history.add(record, texts.values(), uses_of(record))


def step_records(
    events: Iterable[Event], results: Mapping[Digest, tuple[str, ...]]
) -> tuple[StepRecord, ...]:
    """What became of each vertex, in the order in which they were first spoken of."""
    last: dict[Digest, VertexEvent] = {}
    queued: dict[Digest, float] = {}
    waiting: dict[Digest, float] = {}
    resources: dict[Digest, ResourceEvent] = {}
    logged: dict[Digest, int] = {}
    keys: dict[Digest, dict[str, None]] = {}
    for event in events:
        match event:
            case VertexEvent():
                last[event.digest] = event
            case ResourceEvent():
                resources[event.vertex] = event
            case LogEvent():
                logged[event.vertex] = logged.get(event.vertex, 0) + len(event.data)
            case DecisionEvent(phase=Phase.WAIT, causes=("slot",)) if event.outcome == "begin":
                waiting[event.vertex] = event.time
            case DecisionEvent(phase=Phase.WAIT, causes=("slot",)):
                begun = waiting.pop(event.vertex, event.time)
                queued[event.vertex] = queued.get(event.vertex, 0.0) + event.time - begun
            case DecisionEvent(phase=Phase.KEY | Phase.CONTENT):
                found = keys.setdefault(event.vertex, {})
                found.update((cause, None) for cause in event.causes if cause.startswith("sha256:"))
    return tuple(
        StepRecord(
            digest, event.name, event.command, event.stage, event.kind, event.inputs, event.solver_digest,
            event.outcome.value if event.outcome is not None else "", event.started, event.completed,
            queued.get(digest, 0.0), resources[digest].cpu if digest in resources else 0.0,
            resources[digest].peak_memory if digest in resources else 0, event.size,
            tuple(results.get(digest, ())), tuple(keys.get(digest, ())), logged.get(digest, 0), event.error,
        )
        for digest, event in last.items()
    )  # fmt: skip


def uses_of(record: Record) -> list[Use]:
    """The results that a build took instead of making them."""
    taken = (Outcome.DEFINITION, Outcome.CONTENT, Outcome.REMOTE, Outcome.MERGED)
    return [
        Use(record.id, step.digest, result, step.outcome)
        for step in record.steps
        if step.outcome in taken
        for result in step.results
        if result
    ]


def images_of(events: Iterable[Event]) -> dict[str, str]:
    """Names of base images and the digests that they were resolved to, from the vertices that were shown."""
    found = {}
    for event in events:
        if isinstance(event, VertexEvent) and event.kind == "image":
            pinned = re.search(r"([^\s@]+)@(sha256:[0-9a-f]{64})", event.name)
            if pinned is not None:
                found[pinned[1].removeprefix("docker-image://")] = pinned[2]
    return found


def redact(opts: Mapping[str, str]) -> dict[str, str]:
    """Options without the values of arguments that look like secrets, and without users in addresses.

    >>> redact({"build-arg:API_TOKEN": "x", "build-arg:V": "1", "context": "https://me:pw@host/x"})
    {'build-arg:API_TOKEN': '…', 'build-arg:V': '1', 'context': 'https://host/x'}
    """
    return {name: _HIDDEN if looks_secret(name) else _USERINFO.sub("", value) for name, value in opts.items()}


def git_state(context: str) -> tuple[str, bool | None]:
    """The commit of a folder's repository and whether files differ from it; ("", None) where there is none.

    Asked of git, for at most a second each: a record is not worth more.
    """
    if not context or not any(
        (folder / ".git").exists() for folder in (Path(context), *Path(context).parents)
    ):
        return "", None
    head = _git(context, "rev-parse", "HEAD")
    if head is None:
        return "", None
    changed = _git(context, "status", "--porcelain", "--untracked-files=no")
    return head, None if changed is None else bool(changed)


def _git(folder: str, *words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", folder, *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=1, start_new_session=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _definition(
    request: SolveRequest, frontend: FrontendResult, veil: Veil
) -> tuple[bytes, Mapping[str, str]]:
    edge = frontend.results[0].edge if frontend.results else request.edge
    return veil.definition(edge) if edge is not None else (b"", {})


def _versions(times: Sequence[BuildEvent]) -> dict[str, str]:
    frontend = times[-1].frontend if times else ""
    return {"bknb": __version__, "python": machine.python_version(), "frontend": frontend}
