"""``type=tar``: the files of a result as one tar, owners and all."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import IO

from bknb.errors import UsageError
from bknb.exporter.options import TreeOptions
from bknb.exporter.output import Output
from bknb.exporter.trees import entries, folder_of, read_tree, several
from bknb.protocols import ExportInput, Job, Shim


class TarExporter:
    """Writes the files of a result as a tar; several platforms each in a folder."""

    name = "tar"

    def __init__(self, options: TreeOptions, shim: Shim) -> None:
        if not options.dest:
            raise UsageError("type=tar: say where it goes: dest=FILE, or dest=- for standard output")
        self._options = options
        self._shim = shim

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """Write the tar beside its place; what is returned puts it there.

        Raises:
            SourceError: it cannot be written.
        """
        output = Output(self._options.dest)
        try:
            file = output.open()
            with output.mapped(self._options.dest):
                await self._write(inputs, file)
            output.written()
        except BaseException:
            output.discard()
            raise

        async def publish() -> Mapping[str, str]:
            output.publish()
            return {}

        return publish

    async def _write(self, inputs: Sequence[ExportInput], file: IO[bytes]) -> None:
        if len(inputs) == 1 and not several(inputs, None) and self._epoch(inputs[0]) is None:
            await read_tree(
                self._shim, inputs[0].ref, lambda stream: shutil.copyfileobj(stream, file, 1 << 20)
            )
            return
        with tarfile.open(
            fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for one in inputs:
                prefix = folder_of(one) + "/" if several(inputs, None) else ""
                await read_tree(self._shim, one.ref, _copier(tar, prefix, self._epoch(one)))

    def _epoch(self, one: ExportInput) -> int | None:
        return self._options.epoch.seconds if self._options.epoch else one.epoch


def _copier(tar: tarfile.TarFile, prefix: str, epoch: int | None) -> Callable[[IO[bytes]], None]:
    """Copies a tar into another one: below a folder, every time set to the epoch."""

    def copy(stream: IO[bytes]) -> None:
        if prefix:
            folder = tarfile.TarInfo(prefix)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, epoch or 0
            tar.addfile(folder)
        with entries(stream) as source:
            for entry in source:
                entry.name = prefix + entry.name
                if entry.islnk():
                    entry.linkname = prefix + entry.linkname
                if epoch is not None:
                    entry.mtime = epoch
                dropped = {"path", "linkpath", "size"} | (
                    {"mtime", "atime", "ctime"} if epoch is not None else set()
                )
                entry.pax_headers = {k: v for k, v in entry.pax_headers.items() if k not in dropped}
                tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)

    return copy
