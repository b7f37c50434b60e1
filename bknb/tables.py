"""The sqlite files of the state folder: how they are opened, and what a change to one is.

Write-ahead logging, so that readers never wait, and a schema number in ``PRAGMA user_version``: a file of a
newer bknb is refused instead of misread. Several kernels hold a file open at once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from bknb.errors import StoreError

try:
    import fcntl
except ImportError:  # reading what builds elsewhere have left
    fcntl = None  # type: ignore[assignment]

_LOCKS: Final = fcntl is not None
WAIT: Final = 30.0
"""Seconds to wait for another kernel's change; changes take milliseconds."""
LOG: Final = 4_000
"""Pages of 4 KiB in the log before they are written into the file: four times sqlite's, which writes a fifth less."""


def connect(path: Path, schema: str, number: int) -> sqlite3.Connection:
    """Open a sqlite file of ours, making the tables in a new one.

    Raises:
        StoreError: it was written by a newer bknb, or cannot be used.
    """
    try:
        db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(f"cannot use {path}: {error}") from error
    try:
        with _alone_in(path.parent) if _LOCKS else nullcontext():
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG}")
        with transaction(db):
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in schema.split(";\n"):
                    if statement.strip():
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
    except BaseException as error:
        db.close()
        if isinstance(error, sqlite3.Error | OSError):
            raise StoreError(f"cannot use {path}: {error}") from error
        raise
    if found > number:
        db.close()
        raise StoreError(f"{path} was written by a newer bknb (schema {found}, here {number}): update bknb")
    return db


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One at a time: sqlite does not wait when two change a new file to write-ahead logging, it fails at once.

    The lock is on the folder, because closing a second descriptor of the file would drop sqlite's own locks.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it or nothing; waits for other writers.

    Raises:
        StoreError: the disk is full, or the file is damaged.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise StoreError(f"the state folder's tables cannot be written: {error}") from error
