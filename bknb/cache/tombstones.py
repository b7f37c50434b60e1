"""What was removed, when and why: so that a later miss can say that the result was there.

A file of its own: it is a memory, not part of the store, and the store is right without it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bknb.tables import connect, transaction

SCHEMA_NUMBER: Final = 1
MAX_TOMBSTONES: Final = 10_000
"""How many are kept; the oldest go first."""

_SCHEMA: Final = """
CREATE TABLE tombstone(
  id TEXT PRIMARY KEY, removed REAL NOT NULL, rule TEXT NOT NULL, type TEXT NOT NULL, description TEXT NOT NULL,
  size INTEGER NOT NULL, keys TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombstone_removed ON tombstone(removed);
CREATE TABLE tombstone_key(key TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY(key, id)) WITHOUT ROWID;
CREATE INDEX tombstone_key_id ON tombstone_key(id);
"""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A record that was removed.

    Attributes:
        id: the record's.
        removed: unix seconds.
        rule: what removed it: ``rule 1``, or ``prune``.
        type: the record's.
        description: the record's.
        size: bytes that were freed.
        keys: the cache keys that led to it.
    """

    id: str
    removed: float
    rule: str
    type: str
    description: str
    size: int
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        day = time.strftime("%d %b %Y %H:%M", time.localtime(self.removed))
        return f"evicted on {day} by {self.rule}"


class Tombstones:
    """The tombstones of a state folder; several kernels may share it.

    Raises:
        StoreError: the file is of a newer bknb, or cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA, SCHEMA_NUMBER)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def add(self, stones: Sequence[Tombstone]) -> None:
        """Remember some, and forget the oldest beyond the bound."""
        with transaction(self._db) as db:
            for stone in stones:
                values = (
                    stone.id, stone.removed, stone.rule, stone.type, stone.description[:500], stone.size,
                    json.dumps(stone.keys),
                )  # fmt: skip
                db.execute("INSERT OR REPLACE INTO tombstone VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                pairs = [(key, stone.id) for key in stone.keys]
                db.executemany("INSERT OR IGNORE INTO tombstone_key VALUES (?, ?)", pairs)
            old = "SELECT id FROM tombstone ORDER BY removed DESC, id LIMIT -1 OFFSET ?"
            for (id,) in db.execute(old, (MAX_TOMBSTONES,)).fetchall():
                db.execute("DELETE FROM tombstone WHERE id = ?", (id,))
                db.execute("DELETE FROM tombstone_key WHERE id = ?", (id,))

    def find(self, id: str) -> Tombstone | None:
        """What became of a record, by its id."""
        row = self._db.execute("SELECT * FROM tombstone WHERE id = ?", (id,)).fetchone()
        return _stone(row) if row else None

    def by_key(self, key: str) -> Tombstone | None:
        """What became of the result that a cache key led to; the last one to go."""
        row = self._db.execute(
            "SELECT t.* FROM tombstone t JOIN tombstone_key k ON k.id = t.id WHERE k.key = ?"
            " ORDER BY removed DESC LIMIT 1",
            (key,),
        ).fetchone()
        return _stone(row) if row else None

    def all(self) -> list[Tombstone]:
        """Every one, the newest first."""
        return [_stone(row) for row in self._db.execute("SELECT * FROM tombstone ORDER BY removed DESC, id")]


def _stone(row: tuple[Any, ...]) -> Tombstone:
    id, removed, rule, type, description, size, keys = row
    return Tombstone(id, removed, rule, type, description, size, tuple(json.loads(keys)))
