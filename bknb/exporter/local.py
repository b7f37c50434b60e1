"""``type=local``: the files of a result in a folder of the client.

Files belong to whoever runs the build, as with BuildKit's client; modes and times are those of the result.
Each file appears whole under its name, by rename. What else is there stays, save with ``mode=delete``. A
link that lies in the folder is replaced, never followed: nothing is written outside of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import IO, Final

from bknb import beneath
from bknb.errors import SourceError, UsageError
from bknb.exporter.options import TreeOptions
from bknb.exporter.output import Output
from bknb.exporter.trees import entries, folder_of, read_tree, several
from bknb.protocols import ExportInput, Job, Shim

_XATTR: Final = "SCHILY.xattr."
_CHUNK: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class LocalExporter:
    """Writes the files of a result into a folder; several platforms each into one of its own."""

    name = "local"

    def __init__(self, options: TreeOptions, shim: Shim) -> None:
        if not options.dest:
            raise UsageError("type=local: say where it goes: dest=FOLDER")
        self._options = options
        self._shim = shim

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """Nothing is written before it is published: the folder is the client's own.

        Raises:
            SourceError: the place is no folder.
        """
        if os.path.lexists(self._options.dest) and not os.path.isdir(self._options.dest):
            raise SourceError(f"destination {self._options.dest} is not a folder: say another dest=FOLDER")
        kept = tuple(inputs)

        async def publish() -> Mapping[str, str]:
            await self._write(kept)
            return {}

        return publish

    async def _write(self, inputs: Sequence[ExportInput]) -> None:
        with Output.mapped(self._options.dest):
            os.makedirs(self._options.dest, exist_ok=True)
        split = several(inputs, self._options.split)
        seen: dict[str, str] = {}
        folder = Folder(self._options.dest)
        try:
            for one in inputs:
                epoch = self._options.epoch.seconds if self._options.epoch else one.epoch
                prefix = folder_of(one) + "/" if split else ""
                owner = folder_of(one)

                def write(
                    stream: IO[bytes], prefix: str = prefix, epoch: int | None = epoch, owner: str = owner
                ) -> None:
                    with Output.mapped(self._options.dest):
                        folder.write(stream, prefix, epoch, owner, seen)

                await read_tree(self._shim, one.ref, write)
            with Output.mapped(self._options.dest):
                await asyncio.to_thread(folder.finish, seen if self._options.delete else None)
        finally:
            folder.close()


class Folder:
    """A folder that is being filled. Blocks; used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self._root = beneath.open_root(path)
        self._folders: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        os.close(self._root)

    def write(
        self, stream: IO[bytes], prefix: str, epoch: int | None, owner: str, seen: dict[str, str]
    ) -> None:
        """Put the entries of a tar in, below `prefix`.

        Raises:
            SourceError: two platforms have one file.
            OSError: the disk's.
        """
        if prefix:
            self._directory(prefix.rstrip("/"), 0o755, epoch or 0)
            seen.setdefault(prefix.rstrip("/"), "")
        with entries(stream) as tar:
            for entry in tar:
                name = os.path.normpath("/" + entry.name).lstrip("/")
                if not name:
                    continue
                name = prefix + name
                if not entry.isdir() and seen.get(name):
                    other = seen[name]
                    raise SourceError(
                        f"cannot overwrite {name} from {other} with {owner} when split option is disabled"
                    )
                seen[name] = "" if entry.isdir() else owner
                time = int(entry.mtime * 10**9) if epoch is None else epoch * 10**9
                self._entry(tar, entry, name, prefix, time)

    def finish(self, only: Mapping[str, str] | None) -> None:
        """Give folders their modes and times, now that all is in; remove what is not in `only`."""
        if only is not None:
            self._prune(only)
        for name in sorted(self._folders, key=len, reverse=True):
            mode, time = self._folders[name]
            fd = beneath.open(self._root, name, _DIRECTORY)
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=(time, time))
            finally:
                os.close(fd)

    def _entry(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, name: str, prefix: str, time: int) -> None:
        if entry.isdir():
            self._directory(name, entry.mode & 0o7777, time)
            return
        parent, last = beneath.parent(self._root, name)
        try:
            beside = f".{secrets.token_hex(8)}"
            try:
                self._make(tar, entry, parent, beside, prefix, time)
                self._clear(parent, last)
                os.rename(beside, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(beside, dir_fd=parent)
                raise
        finally:
            os.close(parent)

    def _make(
        self, tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str, prefix: str, time: int
    ) -> None:
        if entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
            os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)
            return
        if entry.islnk():
            target = prefix + os.path.normpath("/" + entry.linkname).lstrip("/")
            beneath.link(self._root, target, parent, name)
            return
        if not entry.isreg():
            kind = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}.get(
                entry.type, stat.S_IFIFO
            )
            device = os.makedev(entry.devmajor, entry.devminor)
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
            os.utime(name, ns=(time, time), dir_fd=parent)
            return
        fd = beneath.child(parent, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            source = tar.extractfile(entry)
            while source is not None and (data := source.read(_CHUNK)):
                file.write(data)
            file.flush()
            _attributes(file.fileno(), entry)
            os.fchmod(file.fileno(), entry.mode & 0o7777)
            os.utime(file.fileno(), ns=(time, time))

    def _directory(self, name: str, mode: int, time: int) -> None:
        parent, last = beneath.parent(self._root, name)
        try:
            try:
                found = os.stat(last, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                os.mkdir(last, 0o700, dir_fd=parent)
            else:
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(last, dir_fd=parent)
                    os.mkdir(last, 0o700, dir_fd=parent)
                elif found.st_mode & 0o700 != 0o700:
                    os.chmod(last, 0o700, dir_fd=parent)
        finally:
            os.close(parent)
        self._folders[name] = (mode, time)

    def _clear(self, parent: int, name: str) -> None:
        """A folder that stands where a file shall be goes; a file is replaced by the rename."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                beneath.remove_child(parent, name)

    def _prune(self, only: Mapping[str, str]) -> None:
        for path, directory, listed in beneath.walk(self._root):
            for entry in list(listed):
                name = os.path.join(path, entry.name).lstrip("/")
                if name not in only:
                    beneath.remove_child(directory, entry.name)
                    listed.remove(entry)


def _attributes(fd: int, entry: tarfile.TarInfo) -> None:
    for key, value in entry.pax_headers.items():
        if key.startswith(_XATTR):
            # What this disk or this user may not hold is left out, as BuildKit's client does.
            with contextlib.suppress(OSError):
                os.setxattr(fd, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
