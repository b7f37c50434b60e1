"""``type=image``: the image is kept in the store under its names, and pushed where that was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from msgspec import structs

from bknb.content.images import ImageStore
from bknb.digest import Digest
from bknb.events import Outcome, StatusEvent, VertexEvent
from bknb.exporter.assemble import Assembled, Assembler, Clamps
from bknb.exporter.options import ImageOptions
from bknb.protocols import ContentStore, ExportInput, Job, Progress, RefStore
from bknb.reference import Reference
from bknb.registry.client import RegistryClient

_INTERVAL = 0.1


class ImageExporter:
    """Keeps and pushes images."""

    name = "image"

    def __init__(
        self,
        options: ImageOptions,
        content: ContentStore,
        refs: RefStore,
        layers: Clamps,
        images: ImageStore,
        client: RegistryClient,
    ) -> None:
        self._options = options
        self._content = content
        self._refs = refs
        self._layers = layers
        self._images = images
        self._client = client

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """Write the documents; what is returned gives the names and pushes.

        Raises:
            UsageError, ContentError, SnapshotError: as `Assembler.assemble`.
        """
        made = await Assembler(self._content, self._refs, self._layers, self._options).assemble(inputs)

        async def publish() -> Mapping[str, str]:
            return await self._publish(made, job)

        return publish

    async def _publish(self, made: Assembled, job: Job) -> Mapping[str, str]:
        names = list(self._options.names)
        dangling = self._options.dangling
        if dangling and (not names or not self._options.dangling_only_unnamed):
            names.append(f"{dangling}@{made.target.digest}")
        if self._options.push:
            for name in self._options.names:
                await self._push(name, made, job)
        if self._options.store:
            for name in names:
                self._images.put(name, made.target)
                if self._options.name_canonical and "@" not in name:
                    self._images.put(f"{name}@{made.target.digest}", made.target)
        return made.response(names)

    async def _push(self, name: str, made: Assembled, job: Job) -> None:
        reference = Reference.parse(name)
        insecure = replace(self._client.settings(reference.domain), insecure=True, http=True)
        with shown(job, f"pushing {name}") as progress:
            await self._client.push(
                reference,
                made.target,
                progress=progress,
                ask=job.session.credentials,
                by_digest="push-by-digest" if self._options.push_by_digest else "",
                settings=insecure if self._options.insecure else None,
            )


@contextlib.contextmanager
def shown(job: Job, what: str) -> Iterator[Progress]:
    """A vertex of its own that people see, and its progress: ten events a second for each thing at most."""
    digest, started, last = Digest.of_text(f"{job.id}:{what}"), time.time(), dict[str, float]()
    event = VertexEvent(digest, what, kind="internal", started=started)
    job.emit(event)

    def report(name: str, done: int, total: int) -> None:
        now = time.time()
        if now - last.get(name, 0.0) >= _INTERVAL or done == total:
            last[name] = now
            completed = now if done == total else None
            job.emit(StatusEvent(digest, name, done, total, now, started=started, completed=completed))

    try:
        yield report
    except BaseException as error:
        outcome = Outcome.CANCELLED if isinstance(error, asyncio.CancelledError) else Outcome.FAILED
        said = str(error) if outcome is Outcome.FAILED else ""
        job.emit(structs.replace(event, completed=time.time(), outcome=outcome, error=said))
        raise
    job.emit(structs.replace(event, completed=time.time(), outcome=Outcome.RAN))
