"""``type=oci``: the image as an OCI layout, in a tar or (``tar=false``) a folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from bknb.errors import UsageError
from bknb.exporter.archive import docker_manifest, write_folder, write_tar
from bknb.exporter.assemble import Assembled, Assembler, Clamps
from bknb.exporter.options import ImageOptions
from bknb.exporter.output import Output
from bknb.oci import times
from bknb.protocols import ContentStore, ExportInput, Job, RefStore

CREATED: Final = "org.opencontainers.image.created"


class OCIExporter:
    """Writes OCI layouts."""

    name = "oci"

    def __init__(self, options: ImageOptions, content: ContentStore, refs: RefStore, layers: Clamps) -> None:
        if not options.dest:
            raise UsageError(f"type={self.name}: say where it goes: dest=PATH")
        self._options = options
        self._content = content
        self._refs = refs
        self._layers = layers

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """Write the archive beside its place; what is returned puts it there.

        Raises:
            UsageError, ContentError, SnapshotError: as `Assembler.assemble`.
            SourceError: the file cannot be written.
        """
        made = await Assembler(self._content, self._refs, self._layers, self._options).assemble(inputs)
        made = _dated(made)
        if not self._options.tar:
            return await self._folder(made)
        output = Output(self._options.dest)
        try:
            file = output.open()
            with output.mapped(self._options.dest):
                await asyncio.to_thread(self._write, file, made)
            output.written()
        except BaseException:
            output.discard()
            raise

        async def publish() -> Mapping[str, str]:
            output.publish()
            return made.response(self._options.names)

        return publish

    def _write(self, file: IO[bytes], made: Assembled) -> None:
        write_tar(file, self._content, made.target, self._options.names)

    async def _folder(self, made: Assembled) -> Callable[[], Awaitable[Mapping[str, str]]]:
        folder, names = Path(self._options.dest), self._options.names

        async def publish() -> Mapping[str, str]:
            with Output.mapped(self._options.dest):
                await asyncio.to_thread(write_folder, folder, self._content, made.target, names)
            return made.response(names)

        return publish


class DockerExporter(OCIExporter):
    """``type=docker``: a tar that ``docker load`` takes; an OCI layout as well."""

    name = "docker"

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """As `OCIExporter.export`.

        Raises:
            UsageError: more than one platform.
        """
        if len(inputs) > 1:
            raise UsageError("docker exporter does not currently support exporting manifest lists")
        if not self._options.tar:
            raise UsageError("type=docker writes a tar: leave tar=false out, or use type=oci")
        return await super().export(inputs, job)

    def _write(self, file: IO[bytes], made: Assembled) -> None:
        names = self._options.names
        further = {"manifest.json": docker_manifest(self._content, made.target, names)}
        write_tar(file, self._content, made.target, names, further=further)


def _dated(made: Assembled) -> Assembled:
    """The descriptor says when it was made, without fractions (exporter/oci/export.go)."""
    if CREATED in made.target.annotations:
        return made
    moment = int(time.time()) if made.epoch is None else made.epoch
    annotations = {**made.target.annotations, CREATED: times.render(moment * times.NANO)}
    return replace(made, target=replace(made.target, annotations=annotations))
