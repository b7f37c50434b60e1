"""Names and stacks of snapshots in sqlite.

All statements are short, each change is one transaction, and several kernels may hold the file open. A row
of `layer` is a folder on disk: it is there before the folder is made and until after it is gone, so that
whatever has no row may be removed. `owner` names the kernel that still writes to it; None once it is immutable.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bknb.errors import SnapshotError
from bknb.protocols import SnapshotInfo, Usage
from bknb.tables import connect, transaction

SCHEMA_NUMBER: Final = 1

_SCHEMA: Final = """
CREATE TABLE layer(id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT);
CREATE INDEX layer_owner ON layer(owner) WHERE owner IS NOT NULL;
CREATE TABLE snapshot(
  id INTEGER PRIMARY KEY,
  name TEXT UNIQUE,              -- NULL: removed, but others stand on it
  kind TEXT NOT NULL,            -- active, committed
  layer INTEGER,                 -- the folder of its own, if any
  base INTEGER,                  -- its logical stack is that of this snapshot,
  above TEXT NOT NULL,           -- and these layers (JSON, bottom first)
  stack TEXT NOT NULL,           -- the mounted stack (JSON, bottom first), without an active layer,
                                 -- -N is the flattened layer N
  flats TEXT NOT NULL,           -- flattened layers that belong to it (JSON)
  parents TEXT NOT NULL,         -- names, as they were given (JSON)
  marked INTEGER NOT NULL,       -- its layer holds whiteouts
  plain INTEGER NOT NULL,        -- its root directory has root's owner and mode 0755
  owner TEXT,
  created REAL NOT NULL,
  bytes INTEGER NOT NULL,
  inodes INTEGER NOT NULL
);
CREATE INDEX snapshot_owner ON snapshot(owner) WHERE owner IS NOT NULL;
CREATE TABLE depends(
  child INTEGER NOT NULL, parent INTEGER NOT NULL, PRIMARY KEY(child, parent)
) WITHOUT ROWID;
CREATE INDEX depends_parent ON depends(parent);
"""

_COLUMNS: Final = (
    "id, name, kind, layer, base, above, stack, flats, parents, marked, plain, owner, created, bytes, inodes"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A snapshot as it is kept; see the schema."""

    id: int
    name: str | None
    kind: str
    layer: int | None
    base: int | None
    above: tuple[int, ...]
    stack: tuple[int, ...]
    flats: tuple[int, ...]
    parents: tuple[str, ...]
    marked: bool
    plain: bool
    owner: str | None
    created: float
    usage: Usage

    @property
    def info(self) -> SnapshotInfo:
        """As the contract tells it."""
        return SnapshotInfo(self.name or "", self.kind, self.parents, self.created)


NOTHING: Final = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class New:
    """What a snapshot to be inserted consists of; see the schema. `above` None: just its own layer."""

    name: str
    kind: str
    layer: int | None
    base: Row | None
    stack: Sequence[int]
    above: Sequence[int] | None = None
    flats: Sequence[int] = ()
    parents: Sequence[Row] = ()
    marked: bool = False
    plain: bool = True
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class Sealed:
    """An active snapshot that is to be committed under a name, and what its layer was found to be."""

    active: Row
    name: str
    stack: Sequence[int]
    flats: Sequence[int]
    marked: bool
    plain: bool
    usage: Usage


class Database:
    """The tables. Methods are synchronous and take some 20 us; several writers wait for each other."""

    def __init__(self, path: Path, owner: str) -> None:
        self._owner = owner
        self._db = connect(path, _SCHEMA, SCHEMA_NUMBER)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def version(self) -> int:
        """Another number whenever another connection has written."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def find(self, name: str) -> Row | None:
        """The snapshot of a name."""
        return self._row("name = ?", name)

    def stacks(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The mounted stacks of snapshots, of those that are there."""
        sql = "SELECT name, stack FROM snapshot WHERE name IN (SELECT value FROM json_each(?))"
        found = self._db.execute(sql, (json.dumps(list(names)),)).fetchall()
        parsed = json.loads(f"[{','.join(stack for _, stack in found)}]")  # of thousands at once
        return {name: tuple(stack) for (name, _), stack in zip(found, parsed, strict=True)}

    def by_id(self, id: int) -> Row | None:
        """A snapshot that others stand on, with a name or without."""
        return self._row("id = ?", id)

    def need(self, name: str, kind: str = "committed") -> Row:
        """The snapshot of a name.

        Raises:
            SnapshotError: there is none of this kind.
        """
        row = self.find(name)
        if row is None or row.kind != kind:
            raise SnapshotError(f"there is no {kind} snapshot {name!r}")
        return row

    def _row(self, where: str, value: object) -> Row | None:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM snapshot WHERE {where}", (value,)).fetchone()
        return _row_of(found) if found else None

    def walk(self) -> list[Row]:
        """All snapshots that have a name, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM snapshot WHERE name IS NOT NULL ORDER BY id"
        return [_row_of(found) for found in self._db.execute(sql)]

    def logical(self, row: Row) -> tuple[int, ...]:
        """The logical stack of a snapshot, bottom first."""
        sql = """
            WITH RECURSIVE chain(base, above, depth) AS (
              SELECT base, above, 0 FROM snapshot WHERE id = ?
              UNION ALL
              SELECT s.base, s.above, depth + 1 FROM snapshot s JOIN chain ON s.id = chain.base
            ) SELECT above FROM chain ORDER BY depth DESC"""
        found = self._db.execute(sql, (row.id,))
        return tuple(layer for (above,) in found for layer in json.loads(above))

    def marked_layers(self) -> set[int]:
        """Layers that hold whiteouts."""
        return {layer for (layer,) in self._db.execute("SELECT layer FROM snapshot WHERE marked")}

    def new_layer(self) -> int:
        """A folder's id, ours until `seal` or `insert` of a committed snapshot."""
        with transaction(self._db) as db:
            return _layer(db, self._owner)

    def insert_active(self, name: str, parent: Row | None) -> Row:
        """A new active snapshot, with a layer."""
        return self.insert_actives([(name, parent)])[0]

    def insert_actives(self, wanted: Sequence[tuple[str, Row | None]]) -> list[Row]:
        """New active snapshots by name and parent, in one transaction."""
        rows = []
        with transaction(self._db) as db:
            for name, parent in wanted:
                layer = _layer(db, self._owner)
                stack = parent.stack if parent else ()
                plain = parent.plain if parent else True
                parents = (parent,) if parent else ()
                new = New(name, "active", layer, parent, stack, parents=parents, plain=plain)
                id, created = self._insert(db, new, self._owner)
                rows.append(
                    Row(
                        id, name, "active", layer, parent.id if parent else None, (layer,), tuple(stack), (),
                        tuple(each.name or "" for each in parents), False, plain, self._owner, created, NOTHING,
                    )
                )  # fmt: skip
        return rows

    def keep(self, row: Row) -> None:
        """Have an active snapshot outlive this kernel."""
        with transaction(self._db) as db:
            db.execute("UPDATE snapshot SET owner = NULL WHERE id = ?", (row.id,))
            self._seal(db, [row.layer] if row.layer is not None else [])

    def insert(self, new: New) -> None:
        """A committed snapshot; its layer and flattened ones become immutable."""
        with transaction(self._db) as db:
            self._insert(db, new, None)
            self._seal(db, [*([new.layer] if new.layer is not None else []), *new.flats])

    def _insert(self, db: sqlite3.Connection, new: New, owner: str | None) -> tuple[int, float]:
        """Its id, and when it was made."""
        created = time.time()
        above = new.above if new.above is not None else [new.layer]
        values = (
            new.name, new.kind, new.layer, new.base.id if new.base else None, json.dumps(list(above)),
            json.dumps(list(new.stack)), json.dumps(list(new.flats)),
            json.dumps([parent.name for parent in new.parents]), new.marked, new.plain, owner, created,
            new.usage.bytes, new.usage.inodes,
        )  # fmt: skip
        columns = _COLUMNS.removeprefix("id, ")
        try:
            cursor = db.execute(f"INSERT INTO snapshot({columns}) VALUES ({', '.join('?' * 14)})", values)
        except sqlite3.IntegrityError:
            raise SnapshotError(f"there is a snapshot {new.name!r} already") from None
        for parent in {parent.id for parent in (*new.parents, *([new.base] if new.base else []))}:
            if not db.execute("SELECT 1 FROM snapshot WHERE id = ?", (parent,)).fetchone():
                raise SnapshotError("the snapshot to build on was removed meanwhile")
            db.execute("INSERT INTO depends VALUES (?, ?)", (cursor.lastrowid, parent))
        assert cursor.lastrowid is not None
        return cursor.lastrowid, created

    def commit(self, done: Sequence[Sealed]) -> None:
        """Turn active snapshots into committed ones, all or none."""
        with transaction(self._db) as db:
            for each in done:
                self._commit(db, each)

    def _commit(self, db: sqlite3.Connection, done: Sealed) -> None:
        try:
            changed = db.execute(
                "UPDATE snapshot SET name = ?, kind = 'committed', owner = NULL, stack = ?, flats = ?,"
                " marked = ?, plain = ?, bytes = ?, inodes = ? WHERE id = ? AND kind = 'active'",
                (
                    done.name, json.dumps(list(done.stack)), json.dumps(list(done.flats)), done.marked, done.plain,
                    done.usage.bytes, done.usage.inodes, done.active.id,
                ),
            ).rowcount  # fmt: skip
        except sqlite3.IntegrityError:
            raise SnapshotError(f"there is a snapshot {done.name!r} already") from None
        if not changed:
            raise SnapshotError(f"the snapshot {done.active.name!r} was removed meanwhile")
        self._seal(db, [*([done.active.layer] if done.active.layer is not None else []), *done.flats])

    def _seal(self, db: sqlite3.Connection, layers: Sequence[int]) -> None:
        db.executemany("UPDATE layer SET owner = NULL WHERE id = ?", [(layer,) for layer in layers])

    def restack(self, row: Row, stack: Sequence[int], flats: Sequence[int]) -> None:
        """Have a committed snapshot mounted by other layers that show the same."""
        with transaction(self._db) as db:
            db.execute(
                "UPDATE snapshot SET stack = ?, flats = ? WHERE id = ?",
                (json.dumps(list(stack)), json.dumps([*row.flats, *flats]), row.id),
            )
            self._seal(db, flats)

    def remove(self, name: str) -> list[int]:
        """Forget a snapshot and what only it kept alive; the layers whose folders are to go now.

        The layers' rows stay, ours, until `forget_layers`.
        """
        with transaction(self._db) as db:
            row = self.find(name)
            if row is None:
                return []
            db.execute("UPDATE snapshot SET name = NULL, owner = NULL WHERE id = ?", (row.id,))
            return self._collect(db, [row.id])

    def _collect(self, db: sqlite3.Connection, ids: Sequence[int]) -> list[int]:
        """Delete nameless snapshots that nothing stands on, and then their parents."""
        todo, layers = list(ids), []
        while todo:
            id = todo.pop()
            row = self._row("id = ?", id)
            if row is None or row.name is not None:
                continue
            if db.execute("SELECT 1 FROM depends WHERE parent = ? LIMIT 1", (id,)).fetchone():
                continue
            todo += [parent for (parent,) in db.execute("SELECT parent FROM depends WHERE child = ?", (id,))]
            db.execute("DELETE FROM depends WHERE child = ?", (id,))
            db.execute("DELETE FROM snapshot WHERE id = ?", (id,))
            layers += [*([row.layer] if row.layer is not None else []), *row.flats]
        db.executemany("UPDATE layer SET owner = ? WHERE id = ?", [(self._owner, layer) for layer in layers])
        return layers

    def forget_layers(self, layers: Sequence[int]) -> None:
        """Their folders are gone."""
        with transaction(self._db) as db:
            db.executemany("DELETE FROM layer WHERE id = ?", [(layer,) for layer in layers])

    def owners(self) -> set[str]:
        """Kernels that something unfinished belongs to."""
        found = self._db.execute(
            "SELECT owner FROM layer WHERE owner IS NOT NULL"
            " UNION SELECT owner FROM snapshot WHERE owner IS NOT NULL"
        )
        return {owner for (owner,) in found}

    def adopt(self, dead: str) -> list[int]:
        """Take over what a dead kernel was writing; the layers whose folders are to go."""
        with transaction(self._db) as db:
            ids = [id for (id,) in db.execute("SELECT id FROM snapshot WHERE owner = ?", (dead,))]
            db.execute("UPDATE snapshot SET name = NULL, owner = NULL WHERE owner = ?", (dead,))
            layers = self._collect(db, ids)
            left = [id for (id,) in db.execute("SELECT id FROM layer WHERE owner = ?", (dead,))]
            db.execute("UPDATE layer SET owner = ? WHERE owner = ?", (self._owner, dead))
            return sorted({*layers, *left})

    def known_layers(self) -> set[int]:
        """Ids of all layers that have a row."""
        return {id for (id,) in self._db.execute("SELECT id FROM layer")}


def _layer(db: sqlite3.Connection, owner: str) -> int:
    id = db.execute("INSERT INTO layer(owner) VALUES (?)", (owner,)).lastrowid
    assert id is not None
    return id


def _row_of(found: tuple[Any, ...]) -> Row:
    above, stack, flats, parents = (() if text == "[]" else tuple(json.loads(text)) for text in found[5:9])
    marked, plain, owner, created, size, inodes = found[9:]
    usage = Usage(size, inodes)
    return Row(
        *found[:5], above, stack, flats, parents, bool(marked), bool(plain), owner, created, usage
    )  # type: ignore[call-arg]
