"""One file that an exporter writes: beside its place first, there by rename, or to standard output."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bknb.errors import SourceError


class Output:
    """A file on its way.

    ``-`` is standard output, which is written at once; so is what is no regular file (a pipe, /dev/null).
    """

    def __init__(self, dest: str) -> None:
        self._dest = dest
        self._beside: Path | None = None
        self._file: IO[bytes] | None = None

    def open(self) -> IO[bytes]:
        """The file to write to; not closed by whoever writes.

        Raises:
            SourceError: it cannot be written there.
        """
        with self.mapped(self._dest):
            self._file = self._opened()
        return self._file

    def _opened(self) -> IO[bytes]:
        if self._dest == "-":
            return open(os.dup(1), "wb")
        place = Path(self._dest)
        if place.is_dir():
            raise SourceError(
                f"destination {self._dest} is a folder: say which file, dest={self._dest}/out.tar"
            )
        if place.exists() and not stat.S_ISREG(place.stat().st_mode):
            return open(place, "wb")
        place.parent.mkdir(parents=True, exist_ok=True)
        self._beside = place.with_name(f".{place.name}.{secrets.token_hex(6)}")
        return open(self._beside, "xb")

    def written(self) -> None:
        """All bytes are there.

        Raises:
            SourceError: they do not fit on the disk.
        """
        if self._file is not None:
            with self.mapped(self._dest):
                self._file.close()
            self._file = None

    def publish(self) -> None:
        """Let it appear under its name.

        Raises:
            SourceError: it cannot.
        """
        if self._beside is not None:
            with self.mapped(self._dest):
                os.replace(self._beside, self._dest)
            self._beside = None

    def discard(self) -> None:
        """Take away what was written. A thread that still writes is stopped by it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        if self._beside is not None:
            with contextlib.suppress(OSError):
                self._beside.unlink()
            self._beside = None

    @staticmethod
    @contextlib.contextmanager
    def mapped(dest: str) -> Iterator[None]:
        """Errors of the disk as one line.

        Raises:
            SourceError: the disk's own words, and the place.
        """
        try:
            yield
        except OSError as error:
            raise SourceError(f"cannot write {dest}: {(error.strerror or str(error)).lower()}") from None
