"""The content store on disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bknb.digest import Digest
from bknb.errors import ContentError, StoreError
from bknb.protocols import BlobInfo

try:
    import fcntl
except ImportError:  # no Linux: only one kernel at a time, nothing to lock out
    fcntl = None  # type: ignore[assignment]

SMALL_BLOB: Final = 16 << 20
"""Bytes that `DiskContentStore.read` takes into memory at most."""

_CHUNK: Final = 1 << 20
_HEX: Final = re.compile("[0-9a-f]{64,128}")


class DiskContentStore:
    """A `protocols.ContentStore` in a folder.

    Every method may be called from any thread; those that move many bytes are meant for one.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._ingest = self._root / "ingest"
        with storing(self._root):
            (self._root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            self._ingest.mkdir(exist_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Removes what killed writers left: a living writer holds the lock of its file."""
        for path in self._ingest.iterdir():
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    _lock(fd)
                    path.unlink()
                finally:
                    os.close(fd)

    def path(self, digest: Digest) -> str:
        if not _HEX.fullmatch(digest.hex) or not digest.algorithm.isalnum():
            raise ContentError(f"{digest[:80]!r} is not the digest of a blob")
        return str(self._root / "blobs" / digest.algorithm / digest.hex)

    def info(self, digest: Digest) -> BlobInfo | None:
        try:
            found = os.stat(self.path(digest))
        except FileNotFoundError:
            return None
        return BlobInfo(digest, found.st_size, found.st_mtime)

    def open(self, digest: Digest) -> int:
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContentError(f"blob {digest} is not in the store") from None

    def read(self, digest: Digest) -> bytes:
        with open(self.open(digest), "rb") as blob:
            if os.fstat(blob.fileno()).st_size > SMALL_BLOB:
                raise ContentError(f"blob {digest} is larger than {SMALL_BLOB >> 20} MiB")
            return blob.read()

    def write(self) -> DiskBlobWriter:
        return DiskBlobWriter(self)

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        try:
            os.utime(self.path(digest))  # in use again: no garbage for another while
        except FileNotFoundError:
            with self.write() as writer:
                writer.write(data)
                writer.commit(digest)
        except OSError:
            pass  # it is there
        return digest

    def delete(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def walk(self) -> Sequence[BlobInfo]:
        found = []
        for algorithm in sorted((self._root / "blobs").iterdir()):
            with os.scandir(algorithm) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        state = entry.stat()
                        digest = Digest(f"{algorithm.name}:{entry.name}")
                        found.append(BlobInfo(digest, state.st_size, state.st_mtime))
        return found

    def _new_file(self) -> tuple[int, Path]:
        """A locked, empty file in ``ingest``."""
        while True:
            path = self._ingest / secrets.token_hex(12)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                _lock(fd)
            except BlockingIOError:  # another kernel's sweep was faster and takes it away
                os.close(fd)
                continue
            if path.exists():
                return fd, path
            os.close(fd)


class DiskBlobWriter:
    """A `protocols.BlobWriter`: hashes while it writes."""

    def __init__(self, store: DiskContentStore) -> None:
        self._store = store
        self._hash = hashlib.sha256()
        self.offset = 0
        with storing(store._root):
            fd, self._path = store._new_file()
        self._file: int | None = fd

    def write(self, data: bytes | memoryview) -> None:
        if self._file is None:
            raise ContentError("this blob was written and closed already")
        self._hash.update(data)
        rest = memoryview(data).cast("B")
        self.offset += len(rest)
        with storing(self._path):
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        if self._file is None:
            raise ContentError("this blob was written and closed already")
        if size is not None and size != self.offset:
            raise ContentError(f"blob {expected or 'to be written'} has {self.offset} bytes, not {size}")
        digest = Digest("sha256:" + self._hash.hexdigest())
        if expected is not None and expected.algorithm != "sha256":
            digest = self._digest_again(expected.algorithm)
        if expected is not None and digest != expected:
            raise ContentError(f"blob {expected} has other bytes: their digest is {digest}")
        target = Path(self._store.path(digest))
        with storing(target):
            os.fsync(self._file)
            target.parent.mkdir(exist_ok=True)
            os.fchmod(self._file, 0o444)
            os.replace(self._path, target)
            _sync_folder(target.parent)
        os.close(self._file)
        self._file = None
        return digest

    def _digest_again(self, algorithm: str) -> Digest:
        """The digest of what was written, by an algorithm that is rarely asked for."""
        if self._file is None or algorithm not in ("sha384", "sha512"):
            raise ContentError(f"digests of algorithm {algorithm!r} cannot be checked")
        hasher = hashlib.new(algorithm)
        position = 0
        while chunk := os.pread(self._file, _CHUNK, position):
            hasher.update(chunk)
            position += len(chunk)
        return Digest(f"{algorithm}:{hasher.hexdigest()}")

    def __enter__(self) -> DiskBlobWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            os.close(self._file)
            self._file = None


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Maps what the disk says to an error with advice.

    Raises:
        StoreError: the disk is full, read-only, or the folder is not ours.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the disk of {path} is full: free some space, or run `%bknb prune`") from error
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _lock(fd: int) -> None:
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
