"""Everything that the cache's file says, for tables: read through a connection of its own, which disturbs nobody."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bknb.errors import StoreError


@dataclass(frozen=True, slots=True)
class Contents:
    """The rows of the cache's tables.

    Attributes:
        keys: (key, digest of the cache map, output, created in unix seconds).
        links: (key of an input, number of the input, output, digest, selector, key that it leads to).
        results: (key, id of a record).
    """

    keys: list[tuple[str, str, int, float]]
    links: list[tuple[str, int, int, str, str, str]]
    results: list[tuple[str, str]]


def contents(path: Path) -> Contents:
    """All rows of a cache's file, of one moment.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            return Contents(
                db.execute("SELECT key, digest, output, created FROM keys ORDER BY created, key").fetchall(),
                db.execute("SELECT source, input, output, digest, selector, target FROM links ORDER BY target, input").fetchall(),
                db.execute("SELECT key, result FROM results ORDER BY created, key").fetchall(),
            )  # fmt: skip
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from None
