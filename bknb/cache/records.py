"""Records of results in sqlite: what there is, what it was made from, and as which blobs it exists.

A record is made once and never changes what it is; only what is known of it grows (its size, a snapshot,
blobs, when it was used). Types are BuildKit's (client/diskusage.go): ``regular``, ``internal``, ``frontend``,
``source.local``, ``source.git.checkout``, ``exec.cachemount``.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bknb.digest import Digest
from bknb.errors import SnapshotError
from bknb.protocols import Descriptor, LayerBlob
from bknb.tables import connect, transaction

SCHEMA_NUMBER: Final = 1
CACHE_MOUNT: Final = "exec.cachemount"
GONE: Final = "a result that is needed was removed from the store: build again"

_SCHEMA: Final = """
CREATE TABLE record(
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,            -- layer, merge, diff, folder (a cache mount)
  parents TEXT NOT NULL,         -- ids (JSON): layer: at most one; diff: lower and upper, null for none
  snapshot TEXT NOT NULL,        -- its name, "" while there is none
  chain TEXT,                    -- chain id of an image's layers up to this one
  key TEXT,                      -- of a cache mount
  type TEXT NOT NULL,
  description TEXT NOT NULL,
  created REAL NOT NULL,
  used REAL NOT NULL,
  uses INTEGER NOT NULL,
  size INTEGER                   -- bytes on disk, once known
);
CREATE UNIQUE INDEX record_chain ON record(chain) WHERE chain IS NOT NULL;
CREATE INDEX record_key ON record(key) WHERE key IS NOT NULL;
CREATE TABLE parent(child TEXT NOT NULL, parent TEXT NOT NULL, PRIMARY KEY(child, parent)) WITHOUT ROWID;
CREATE INDEX parent_parent ON parent(parent);
CREATE TABLE blob(
  record TEXT NOT NULL, digest TEXT NOT NULL, diff_id TEXT NOT NULL, media_type TEXT NOT NULL,
  size INTEGER NOT NULL, compressor TEXT NOT NULL, annotations TEXT NOT NULL, urls TEXT NOT NULL,
  PRIMARY KEY(record, digest)
) WITHOUT ROWID;
CREATE INDEX blob_digest ON blob(digest);
CREATE TABLE hold(record TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY(record, owner)) WITHOUT ROWID;
CREATE INDEX hold_owner ON hold(owner);
"""

_COLUMNS: Final = "id, kind, parents, snapshot, chain, key, type, description, created, used, uses, size"


@dataclass(frozen=True, slots=True)
class Record:
    """A result. `parents` of a diff are (lower, upper); times in unix seconds, `size` in bytes."""

    id: str
    kind: str
    parents: tuple[str | None, ...] = ()
    snapshot: str = ""
    chain: str | None = None
    key: str | None = None
    type: str = "regular"
    description: str = ""
    created: float = 0.0
    used: float = 0.0
    uses: int = 0
    size: int | None = None


class Part(NamedTuple):
    """What is asked of a record on which another stands; `kind` is "" where there is none."""

    id: str
    kind: str
    snapshot: str
    chain: str | None


def new_id() -> str:
    """A record's id, without meaning."""
    return secrets.token_hex(13)[1:]


class RecordTable:
    """The tables, as one kernel sees them. Methods are synchronous and short."""

    def __init__(self, path: Path, owner: str) -> None:
        self._owner = owner
        self._db = connect(path, _SCHEMA, SCHEMA_NUMBER)

    def close(self) -> None:
        """Let go of everything this kernel holds, and of the file."""
        with transaction(self._db) as db:
            db.execute("DELETE FROM hold WHERE owner = ?", (self._owner,))
        self._db.close()

    def find(self, id: str) -> Record | None:
        """The record of an id."""
        return next(iter(self._select("id = ?", id)), None)

    def need(self, id: str) -> Record:
        """A record that has to be there.

        Raises:
            SnapshotError: it is gone.
        """
        record = self.find(id)
        if record is None:
            raise SnapshotError(GONE)
        return record

    def parts(self, id: str) -> list[Part]:
        """A record and, where it is lazy, the records that it is made of, down to those that have a snapshot."""
        rows = self._db.execute(
            "WITH RECURSIVE part(id) AS ("
            " SELECT ?"
            " UNION SELECT parent.value FROM part JOIN record USING(id), json_each(record.parents) AS parent"
            " WHERE record.snapshot = '' AND parent.value IS NOT NULL)"
            " SELECT part.id, record.kind, record.snapshot, record.chain FROM part LEFT JOIN record USING(id)",
            (id,),
        )
        return [Part(id, kind or "", snapshot or "", chain) for id, kind, snapshot, chain in rows]

    def by_chain(self, chain: str) -> Record | None:
        """The record of an image's layers."""
        return next(iter(self._select("chain = ?", chain)), None)

    def by_key(self, key: str) -> list[Record]:
        """The cache mounts of a key, oldest first."""
        return self._select("key = ?", key)

    def all(self) -> list[Record]:
        """Every record, oldest first."""
        return self._select("?", 1)

    def _select(self, where: str, value: object) -> list[Record]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM record WHERE {where} ORDER BY created, rowid", (value,)
        )
        return [
            Record(row[0], row[1], () if row[2] == "[]" else tuple(json.loads(row[2])), *row[3:]) for row in rows
        ]

    def insert(self, record: Record, blobs: Iterable[LayerBlob] = (), *, hold: bool = True) -> None:
        """A new record; held by this kernel unless told otherwise."""
        with transaction(self._db) as db:
            self._insert(db, record, uses=1 if hold else 0)
            for blob in blobs:
                self._add_blob(db, record.id, blob)
            if hold:
                db.execute("INSERT INTO hold VALUES (?, ?)", (record.id, self._owner))

    def insert_each(self, records: Iterable[Record]) -> None:
        """New records, held by this kernel; all or none."""
        with transaction(self._db) as db:
            for record in records:
                self._insert(db, record, uses=1)
                db.execute("INSERT INTO hold VALUES (?, ?)", (record.id, self._owner))

    def _insert(self, db: Any, record: Record, *, uses: int) -> None:
        """Whoever makes it uses it once (cache/refs.go: counted when it is let go)."""
        now = time.time()
        db.execute(
            f"INSERT INTO record({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id, record.kind, json.dumps(record.parents), record.snapshot, record.chain,
                record.key, record.type, record.description, now, now, uses, record.size,
            ),
        )  # fmt: skip
        found = {parent for parent in record.parents if parent is not None}
        db.executemany("INSERT INTO parent VALUES (?, ?)", [(record.id, parent) for parent in found])

    def insert_chain(self, record: Record, blob: LayerBlob) -> bool:
        """A new record of an image's layers; False if there is one of this chain id already."""
        try:
            self.insert(record, [blob], hold=False)
        except sqlite3.IntegrityError:
            return False
        return True

    def materialised(self, id: str, snapshot: str, size: int) -> None:
        """It has a snapshot now."""
        self.materialised_each([(snapshot, size, id)])

    def materialised_each(self, made: Iterable[tuple[str, int, str]]) -> None:
        """Some have a snapshot now, as (snapshot, size, id)."""
        with transaction(self._db) as db:
            db.executemany("UPDATE record SET snapshot = ?, size = ? WHERE id = ?", made)

    def hold(self, id: str) -> bool:
        """This kernel begins to use a record: nobody prunes it from now on. False if it is gone."""
        with transaction(self._db) as db:
            touched = "UPDATE record SET used = ?, uses = uses + 1 WHERE id = ?"
            if not db.execute(touched, (time.time(), id)).rowcount:
                return False
            db.execute("INSERT OR IGNORE INTO hold VALUES (?, ?)", (id, self._owner))
        return True

    def touch(self, times: Mapping[str, float]) -> None:
        """Records were used again while they were held."""
        with transaction(self._db) as db:
            db.executemany("UPDATE record SET used = max(used, ?) WHERE id = ?", [(at, id) for id, at in times.items()])

    def let_go(self, ids: Iterable[str]) -> None:
        """This kernel uses them no more."""
        with transaction(self._db) as db:
            db.executemany("DELETE FROM hold WHERE record = ? AND owner = ?", [(id, self._owner) for id in ids])

    def blobs(self, id: str) -> list[LayerBlob]:
        """The blobs that a record exists as."""
        sql = (
            "SELECT b.digest, b.diff_id, b.media_type, b.size, b.compressor, b.annotations, b.urls,"
            " r.created, r.description FROM blob b JOIN record r ON r.id = b.record WHERE b.record = ?"
        )
        return [_blob_of(row) for row in self._db.execute(sql, (id,))]

    def add_blob(self, id: str, blob: LayerBlob) -> None:
        """It exists as this blob too."""
        with transaction(self._db) as db:
            self._add_blob(db, id, blob)

    def _add_blob(self, db: Any, id: str, blob: LayerBlob) -> None:
        descriptor = blob.descriptor
        db.execute(
            "INSERT OR REPLACE INTO blob VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                id, descriptor.digest, blob.diff_id, descriptor.media_type, descriptor.size, blob.compressor,
                json.dumps(dict(descriptor.annotations)), json.dumps(list(descriptor.urls)),
            ),
        )  # fmt: skip

    def remove(self, id: str) -> list[Digest] | None:
        """Forget a record that nobody holds or builds on.

        Returns:
            The blobs that are no one's now; None if the record stays.
        """
        with transaction(self._db) as db:
            if db.execute(
                "SELECT 1 FROM hold WHERE record = ? UNION SELECT 1 FROM parent WHERE parent = ?", (id, id)
            ).fetchone():
                return None
            return self._forget(db, id)

    def forget(self, id: str) -> None:
        """A record that cannot be used any more, whoever holds it."""
        with transaction(self._db) as db:
            self._forget(db, id)

    def _forget(self, db: Any, id: str) -> list[Digest]:
        digests = [digest for (digest,) in db.execute("SELECT digest FROM blob WHERE record = ?", (id,))]
        for table, column in (("record", "id"), ("parent", "child"), ("blob", "record"), ("hold", "record")):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (id,))
        kept = "SELECT 1 FROM blob WHERE digest = ?"
        return [Digest(digest) for digest in digests if not db.execute(kept, (digest,)).fetchone()]

    def sizes(self, ids: Iterable[str]) -> dict[str, int | None]:
        """Bytes of some records; None where it is not known yet."""
        wanted = json.dumps(list(ids))
        return dict(
            self._db.execute("SELECT id, size FROM record WHERE id IN (SELECT value FROM json_each(?))", (wanted,))
        )

    def snapshots(self, ids: Iterable[str]) -> dict[str, str]:
        """The snapshots of some records, of those that are there; "" of one that has none."""
        wanted = json.dumps(list(ids))
        return dict(
            self._db.execute("SELECT id, snapshot FROM record WHERE id IN (SELECT value FROM json_each(?))", (wanted,))
        )

    def held(self) -> set[str]:
        """Ids that some kernel holds."""
        return {id for (id,) in self._db.execute("SELECT record FROM hold")}

    def names(self) -> set[str]:
        """Ids of all records, and the names of their snapshots."""
        return {name for row in self._db.execute("SELECT id, snapshot FROM record") for name in row}

    def held_elsewhere(self) -> set[str]:
        """Ids that another kernel holds."""
        return {id for (id,) in self._db.execute("SELECT record FROM hold WHERE owner != ?", (self._owner,))}

    def digests(self) -> dict[str, list[Digest]]:
        """The digests of the blobs of every record that has some."""
        found: dict[str, list[Digest]] = {}
        for id, digest in self._db.execute("SELECT record, digest FROM blob"):
            found.setdefault(id, []).append(Digest(digest))
        return found

    def stand_on(self, id: str, other: str) -> None:
        """A record needs another to stay, beside those that it was made from."""
        with transaction(self._db) as db:
            db.execute("INSERT OR IGNORE INTO parent VALUES (?, ?)", (id, other))

    def parents(self) -> dict[str, list[str]]:
        """The ids of what every record stands on, of those that stand on something."""
        found: dict[str, list[str]] = {}
        for child, parent in self._db.execute("SELECT child, parent FROM parent"):
            found.setdefault(child, []).append(parent)
        return found

    def children(self, id: str) -> list[str]:
        """Ids of the records that stand on this one."""
        return [child for (child,) in self._db.execute("SELECT child FROM parent WHERE parent = ?", (id,))]

    def owners(self) -> set[str]:
        """Kernels that hold something."""
        return {owner for (owner,) in self._db.execute("SELECT DISTINCT owner FROM hold")}

    def bury(self, dead: Sequence[str]) -> list[str]:
        """Drop the holds of dead kernels; what they held may be half made."""
        with transaction(self._db) as db:
            found: list[str] = []
            for owner in dead:
                found += [id for (id,) in db.execute("SELECT record FROM hold WHERE owner = ?", (owner,))]
                db.execute("DELETE FROM hold WHERE owner = ?", (owner,))
        return sorted(set(found))


def _blob_of(row: tuple[Any, ...]) -> LayerBlob:
    digest, diff_id, media_type, size, compressor, annotations, urls, created, description = row
    descriptor = Descriptor(
        media_type, Digest(digest), size, annotations=json.loads(annotations), urls=tuple(json.loads(urls))
    )
    return LayerBlob(descriptor, Digest(diff_id), compressor, created, description)
