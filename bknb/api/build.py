"""A finished build, and its steps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bknb.api.files import Files, run_in
from bknb.api.image import Image, image_of
from bknb.api.recorded import RecordedBuild, RecordedStep
from bknb.builder.local import LocalBuilder
from bknb.builder.stream import vertices
from bknb.digest import Digest
from bknb.display.model import State
from bknb.errors import BknbError, UsageError
from bknb.events import Event
from bknb.history.baseline import targets_of
from bknb.history.recorder import redact, step_records
from bknb.llb import Definition
from bknb.llb.ops import Op
from bknb.llb.veil import Veil
from bknb.llb.vertex import Edge
from bknb.protocols import SolveRequest, SolveResult
from bknb.record import Record

if TYPE_CHECKING:
    from bknb.analysis import Explanation, Seen
    from bknb.api.client import Client
    from bknb.api.explained import Why
    from bknb.display.reasons import Reasons


class Build(RecordedBuild):
    """A finished build of this process: what came out, and everything about how."""

    def __init__(
        self, client: Client, request: SolveRequest, result: SolveResult, events: tuple[Event, ...]
    ) -> None:
        self._client = client
        self._request = request
        self._result = result
        self._explained: tuple[Explanation | None] | None = None
        super().__init__(result.id, events)

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
    def steps(self) -> Sequence[Step]:
        """Every step, in the order of the build."""
        return [Step(view, self) for view in self.view.shown]

    def __getitem__(self, name: str | int) -> Step:
        """A step by its number, digest, name, or a part of its instruction's text."""
        return Step(super().__getitem__(name).view, self)

    @property
    def failed_step(self) -> Step | None:
        """The step that failed, or None."""
        found = self.view.failed
        return Step(found[0], self) if found else None

    # --- why ---

    def why(self, step: str | int | None = None, *, against: RecordedBuild | str | None = None) -> Why:
        """Why it did what it did, from the root causes, compared with an earlier build.

        Args:
            step: the one that is asked about, as for ``build[...]``; all if absent.
            against: the earlier build, or the beginning of its id in the history; the last one of the same
                cell, tag or Dockerfile if absent.

        Raises:
            UsageError: no such step, or no such build.
        """
        from bknb.analysis.seen import NOTHING
        from bknb.api import explained
        from bknb.api.explained import Why

        digest = self[step].digest if step is not None else ""
        found = self._explanation(against) or explained.compare(self._client, NOTHING, self._seen())
        return Why(found, digest)

    def _explanation(self, against: RecordedBuild | str | None) -> Explanation | None:
        from bknb.api import explained

        if against is None:
            if self._explained is None:
                found = explained.baseline(self._client, self._seen())
                self._explained = (
                    explained.compare(self._client, found, self._seen()) if found is not None else None,
                )
            return self._explained[0]
        before = explained.side(self._client, against)
        return explained.compare(self._client, before, self._seen())

    @property
    def reasons(self) -> Reasons | None:
        """What a picture says of why; None where nothing ran, or there is nothing to compare with."""
        if all(s.view.state != State.RAN for s in self.steps if s.view.counted) or self.view.failed:
            return None
        from bknb.api.explained import reasons

        try:
            found = self._explanation(None)
        except BknbError:  # a picture is worth more than what is said below it
            return None
        return reasons(found) if found is not None else None  # of a first build there is nothing to say

    def _seen(self) -> Seen:
        from bknb.analysis import Seen

        steps = step_records(self.events, self._result.results)
        veil = Veil.of(self._request.opts)  # as its record is, with which it is compared
        edges = [veil.edge(result.edge) for result in self._result.frontend.results]
        found = Seen.of(self.id, steps, self.events, edges, redact(self._request.opts))
        return replace(found, targets=targets_of(self._request))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the build to one file, which `bknb.open` shows and answers from anywhere."""
        from bknb.history import save_build

        async def record(builder: LocalBuilder) -> Record | None:
            await asyncio.to_thread(builder.parts.history.flush)
            return builder.parts.history.get(self.id)

        from bknb.api.explained import kept

        texts, removed = kept(self._client, self._seen())
        said = self.reasons
        save_build(
            path, self.id, self.events, self._result.frontend, self.metadata, self._client.call(record),
            texts=texts, removed=removed, reasons=said.to_json() if said is not None else {},
            veil=Veil.of(self._request.opts),
        )  # fmt: skip

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


@dataclass(frozen=True, slots=True, repr=False)
class Step(RecordedStep):
    """One step of a build, with the files that it left."""

    _build: Build

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


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})") from None
