"""Which kernels live: each holds the lock of a file of its own, which ends with it however it ends."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from bknb.errors import UnsupportedError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


class Owner:
    """This kernel's token, good until `release`."""

    def __init__(self, folder: Path) -> None:
        if fcntl is None:
            raise UnsupportedError("building needs Linux; use a remote builder")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        while True:
            self.token = f"{os.getpid()}-{secrets.token_hex(6)}"
            self._fd = os.open(self._path(self.token), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._path(self.token).exists():
                break
            os.close(self._fd)  # one that tidied up saw the file before it was locked

    def _path(self, token: str) -> Path:
        return self._folder / f"{token}.lock"

    def is_dead(self, token: str) -> bool:
        """Whether another kernel is gone for good."""
        if token == self.token:
            return False
        try:
            fd = os.open(self._path(token), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def tidy(self, needed: set[str]) -> None:
        """Remove the files of dead kernels that nothing belongs to."""
        for path in self._folder.glob("*.lock"):
            if path.stem not in needed and self.is_dead(path.stem):
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """This kernel writes no more."""
        with contextlib.suppress(OSError):
            self._path(self.token).unlink(missing_ok=True)
            os.close(self._fd)
