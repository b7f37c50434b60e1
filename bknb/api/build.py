"""A finished build, and its steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bknb import display
from bknb.api.files import Files, run_in
from bknb.api.image import Image, image_of
from bknb.api.picture import Graph, table
from bknb.builder.local import LocalBuilder
from bknb.builder.stream import vertices
from bknb.digest import Digest
from bknb.display.excerpt import excerpt
from bknb.display.model import BuildView, State, StepView, fold_all
from bknb.errors import BuildError, DockerfileError, UsageError, did_you_mean
from bknb.events import Event
from bknb.llb import Definition
from bknb.llb.ops import Op
from bknb.llb.vertex import Edge
from bknb.protocols import SolveRequest, SolveResult

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client


class Build:
    """A finished build: what came out, and everything about how."""

    def __init__(
        self, client: Client, request: SolveRequest, result: SolveResult, events: tuple[Event, ...]
    ) -> None:
        self._client = client
        self._request = request
        self._result = result
        self.events = events
        self.id = result.id
        """The id of its record."""
        self._view: BuildView | None = None

    @property
    def view(self) -> BuildView:
        """The build as people see it, folded from its events when it is first asked for."""
        if self._view is None:
            self._view = fold_all(BuildView(), self.events)
        return self._view

    # --- the result ---

    @property
    def definition(self) -> Definition:
        """The LLB that was built; of the first platform where there are several."""
        edge = self.edge
        return Definition.from_edge(edge)

    @property
    def edge(self) -> Edge | None:
        """The graph's head; None for scratch."""
        results = self._result.frontend.results
        return results[0].edge if results else None

    @property
    def ops(self) -> Mapping[Digest, Op]:
        """What each vertex does, by digest."""
        found: dict[Digest, Op] = {}
        for result in self._result.frontend.results:
            found.update((vertex.digest, vertex.op) for vertex in vertices(result.edge))
        return found

    @property
    def answers(self) -> Mapping[str, bytes]:
        """What the frontend answered to ``--call``: ``result.txt``, ``result.json``, ``result.statuscode``."""
        return self._result.frontend.metadata

    def changed(self, *, limit: int = 200) -> Mapping[Digest, tuple[str, ...]]:
        """The paths that each step that ran has changed, as lines of text, at most `limit` of a step."""
        ran = [(s.digest, s.view.state == State.RAN) for s in self.steps]
        wanted = {
            digest: self._result.results[digest][0]
            for digest, yes in ran
            if yes and self._result.results.get(digest)
        }

        async def look(builder: LocalBuilder) -> Mapping[Digest, tuple[str, ...]]:
            return {digest: await builder.changed(id, limit) for digest, id in wanted.items() if id}

        return self._client.call(look) if wanted else {}

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the exporters answered (``containerimage.digest`` and so on)."""
        found: dict[str, str] = {}
        for response in self._result.exports:
            found.update(response)
        return found

    @property
    def image(self) -> Image:
        """The image that was made.

        Raises:
            UsageError: the build made none.
        """
        return image_of(self._client, self._result)

    @property
    def files(self) -> Files:
        """The files of the result."""
        edge = self.edge
        ids = self._result.results.get(edge.vertex.digest, ()) if edge is not None else ()
        return Files(self._client.call, ids[edge.index] if edge is not None and edge.index < len(ids) else "")

    def run(self, command: str | Sequence[str], **options: Any) -> Any:
        """Run a command in the result's file system, thrown away afterwards; see `bknb.files.run_in`."""
        return run_in(self._client.call, self.files.id, command, self._config(), **options)

    # --- the steps ---

    @property
    def steps(self) -> list[Step]:
        """Every step, in the order of the build."""
        return [Step(self, view) for view in self.view.shown]

    @property
    def failed_step(self) -> Step | None:
        """The step that failed, or None."""
        found = self.view.failed
        return Step(self, found[0]) if found else None

    def __getitem__(self, name: str | int) -> Step:
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
        return table(self.view)

    @property
    def graph(self) -> Graph:
        """The graph as a picture: shows itself, and saves to svg, dot or mermaid."""
        return Graph(self.view)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the build to one file, which `bknb.open` shows and answers from anywhere."""
        from bknb.history import save_build

        save_build(path, self.id, self.events, self._result.frontend, self.metadata)

    def write_files(self, iidfile: str, metadata_file: str) -> None:
        """Write ``--iidfile`` and ``--metadata-file``."""
        import msgspec

        if iidfile:
            digest = self.metadata.get("containerimage.config.digest") or self.metadata.get(
                "containerimage.digest", ""
            )
            _write(iidfile, digest.encode())
        if metadata_file:
            _write(
                metadata_file,
                msgspec.json.format(
                    msgspec.json.encode({**self.metadata, "buildx.build.ref": self.id}), indent=2
                )
                + b"\n",
            )

    def _config(self) -> Mapping[str, Any]:
        import msgspec

        results = self._result.frontend.results
        text = results[0].image_config if results else ""
        config = msgspec.json.decode(text).get("config", {}) if text else {}
        return config if isinstance(config, dict) else {}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> Mapping[str, Any]:
        return display.mimebundle(self.view)

    def __repr__(self) -> str:
        return display.render_text(self.view)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a build, with what it left."""

    _build: Build = field(repr=False)
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
        """definition, content, remote, ran, merged, skipped, cancelled or failed."""
        return str(self.view.state)

    @property
    def log(self) -> str:
        """Its whole output, stdout and stderr as they came."""
        return (
            self.view.log_bytes.decode(errors="replace")
            if not callable(self.view.log_bytes)
            else self.view.log_bytes().decode(errors="replace")
        )

    @property
    def files(self) -> Files:
        """Its files as it left them; of a step that failed, as they were when it failed."""
        found = self._build._result
        ids = found.results.get(self.digest, ())
        if not ids and self.outcome == "failed":
            ids = found.failed[0]
        base = self._build._result.results.get(self.view.inputs[0], ()) if self.view.inputs else ()
        return Files(self._build._client.call, ids[0] if ids else "", base[0] if base else "")

    def run(self, command: str | Sequence[str], **options: Any) -> Any:
        """Run a command in its file system, thrown away afterwards."""
        return run_in(self._build._client.call, self.files.id, command, self._build._config(), **options)

    def __repr__(self) -> str:
        return f"<Step {self.name} {self.outcome}>"


def failure_text(error: BuildError) -> str:
    """What a person needs to see of a failed build: the place in the source, the last log lines, the error."""
    build = error.result
    if not isinstance(build, Build):
        return f"ERROR: {error}"
    if build.view.failed:
        return display.render_failure(build.view)
    cause = error.__cause__
    ranges = cause.ranges if isinstance(cause, DockerfileError) else ()
    source = excerpt(build.view.dockerfile, ranges, build.view.filename or "Dockerfile").rstrip("\n")
    return "\n".join(part for part in (source, f"ERROR: {error}") if part)


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})") from None
