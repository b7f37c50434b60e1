"""Records of builds in sqlite.

Writing is done by one thread, in order, because a build that took 7 ms shall not wait for its own record; a
question waits until what came before it is written. Texts (Dockerfiles, definitions, events) are kept once, by
digest, compressed.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bknb.digest import Digest
from bknb.errors import StoreError
from bknb.record import Record, Use
from bknb.tables import connect, transaction

SCHEMA_NUMBER: Final = 1
MAX_BUILDS: Final = 1000
"""How many builds are kept; the oldest go first."""
PAUSE: Final = 0.3
"""Seconds that the writer rests before it begins, unless somebody asks: who waits for the build goes first, and may
begin the next. A kill in the meantime loses the record, and nothing that was built."""

_SCHEMA: Final = """
CREATE TABLE build(id TEXT PRIMARY KEY, started REAL NOT NULL, record BLOB NOT NULL);
CREATE TABLE target(name TEXT NOT NULL, build TEXT NOT NULL, PRIMARY KEY(name, build)) WITHOUT ROWID;
CREATE TABLE text(digest TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE refers(build TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY(build, digest)) WITHOUT ROWID;
CREATE INDEX refers_digest ON refers(digest);
CREATE TABLE used(
  build TEXT NOT NULL, step TEXT NOT NULL, result TEXT NOT NULL, kind TEXT NOT NULL, seconds REAL,
  PRIMARY KEY(build, step, result)
) WITHOUT ROWID;
CREATE INDEX used_result ON used(result);
CREATE TABLE made(result TEXT PRIMARY KEY, build TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
"""

_TAKE_OVER: Final = (
    "DROP INDEX build_target",
    "ALTER TABLE build DROP COLUMN target",
    "CREATE TABLE IF NOT EXISTS target(name TEXT NOT NULL, build TEXT NOT NULL, PRIMARY KEY(name, build)) WITHOUT ROWID",
)
"""For a file of an earlier version, in which a build had one target."""

Work = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is kept once, however many builds name it: its digest, and its bytes compressed."""

    digest: Digest
    data: bytes

    @classmethod
    def of(cls, *parts: bytes) -> Text:
        """Of a text in one piece."""
        return cls.of_each(parts)

    @classmethod
    def of_each(cls, parts: Iterable[bytes]) -> Text:
        """Of a text in pieces, which are never there together: of a large build they are many megabytes."""
        hashed, packed = hashlib.sha256(), zlib.compressobj(1)
        data = []
        for part in parts:
            hashed.update(part)
            data.append(packed.compress(part))
        return cls(Digest(f"sha256:{hashed.hexdigest()}"), b"".join([*data, packed.flush()]))


class History:
    """The builds of a state folder. Any thread may ask; several kernels may share it.

    Raises:
        StoreError: the file is of a newer bknb, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA, SCHEMA_NUMBER)
        with transaction(self._db) as db:
            if "target" in [name for _, name, *_ in db.execute("PRAGMA table_info(build)")]:
                for statement in _TAKE_OVER:
                    db.execute(statement)
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._asked = threading.Event()
        self.failed: StoreError | None = None
        """Why the last record could not be written, or None."""

    def close(self) -> None:
        """Write what is left and let go of the file."""
        if self._writer is not None:
            self._work.put(None)
            self._asked.set()
            self._writer.join()
            self._writer = None
        self._db.close()

    def later(self, work: Work) -> None:
        """Have something done by the writer's thread, after all that was given to it before."""
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="bknb-history", daemon=True)
            self._writer.start()
        self._work.put(work)

    def _write(self) -> None:
        while (work := self._work.get()) is not None:
            if self._work.empty():
                self._asked.wait(PAUSE)
            try:
                work()
            except Exception as error:  # a record that cannot be made must not keep the others from being
                self.failed = error if isinstance(error, StoreError) else StoreError(f"no record: {error}")

    def flush(self) -> None:
        """Wait until everything that was given to the writer is done."""
        writer = self._writer
        if writer is not None and writer is not threading.current_thread():
            done = threading.Event()
            self._work.put(done.set)
            self._asked.set()
            done.wait()
            self._asked.clear()

    # --- writing: called by the writer ----------------------------------------------------------------------

    def add(self, record: Record, texts: Collection[Text], uses: Iterable[Use]) -> None:
        """Keep a record and the texts that it names by digest, or replace it.

        Raises:
            StoreError: it cannot be written.
        """
        row = (record.id, record.started, zlib.compress(record.to_bytes(), 1))
        made = [
            (result, record.id, step.seconds)
            for step in record.steps
            if step.outcome == "ran"
            for result in step.results
            if result
        ]
        with self._lock, transaction(self._db) as db:
            db.execute("INSERT OR REPLACE INTO build VALUES (?, ?, ?)", row)
            db.executemany(
                "INSERT OR IGNORE INTO text VALUES (?, ?)", [(text.digest, text.data) for text in texts]
            )
            db.executemany(
                "INSERT OR IGNORE INTO refers VALUES (?, ?)", [(record.id, text.digest) for text in texts]
            )
            db.execute("DELETE FROM target WHERE build=?", (record.id,))
            db.executemany(
                "INSERT OR IGNORE INTO target VALUES (?, ?)", [(name, record.id) for name in record.targets]
            )
            db.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", made)
            db.executemany(
                "INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?, coalesce((SELECT seconds FROM made WHERE result=?), ?))",
                [(use.build, use.step, use.result, use.kind, use.result, use.seconds) for use in uses],
            )
            self._trim()

    def _trim(self) -> None:
        """Remove the oldest builds beyond the bound, with texts that only they name; uses stay for statistics."""
        old = self._db.execute(
            "SELECT id FROM build ORDER BY id DESC LIMIT -1 OFFSET ?", (MAX_BUILDS,)
        ).fetchall()
        for (id,) in old:
            self._db.execute("DELETE FROM build WHERE id=?", (id,))
            self._db.execute("DELETE FROM refers WHERE build=?", (id,))
            self._db.execute("DELETE FROM used WHERE build=?", (id,))
            self._db.execute("DELETE FROM target WHERE build=?", (id,))
        if old:
            self._db.execute("DELETE FROM text WHERE digest NOT IN (SELECT digest FROM refers)")

    # --- questions ------------------------------------------------------------------------------------------

    def get(self, id: str) -> Record | None:
        """One record."""
        self.flush()
        with self._lock:
            row = self._db.execute("SELECT record FROM build WHERE id=?", (id,)).fetchone()
        return None if row is None else _record(row[0])

    def walk(self, target: str | None = None, *, before: str = "~", most: int = MAX_BUILDS) -> Iterator[Record]:
        """Records, newest first.

        Args:
            target: only those of this target.
            before: only those with an id before this one.
            most: how many at most.
        """
        self.flush()
        asked = "SELECT id FROM build WHERE id < ?1 ORDER BY id DESC LIMIT ?2"
        if target is not None:
            asked = "SELECT build FROM target WHERE build < ?1 AND name=?3 ORDER BY build DESC LIMIT ?2"
        values = (before, most) if target is None else (before, most, target)
        with self._lock:
            ids = [id for (id,) in self._db.execute(asked, values)]
        for id in ids:
            record = self.get(id)
            if record is not None:
                yield record

    def text(self, digest: str) -> bytes | None:
        """A Dockerfile, a definition, or the events of a build as JSON lines."""
        self.flush()
        with self._lock:
            row = self._db.execute("SELECT data FROM text WHERE digest=?", (digest,)).fetchone()
        try:
            return None if row is None else zlib.decompress(row[0])
        except zlib.error:
            return None

    def uses(self) -> list[Use]:
        """Every result that a build took from the cache, oldest build first."""
        self.flush()
        with self._lock:
            rows = self._db.execute(
                "SELECT build, step, result, kind, seconds FROM used ORDER BY build, step"
            ).fetchall()
        return [Use(*row) for row in rows]


def _record(kept: bytes | str) -> Record | None:
    """Compressed JSON; earlier versions wrote it as text."""
    try:
        return Record.from_json(json.loads(zlib.decompress(kept) if isinstance(kept, bytes) else kept))
    except (ValueError, zlib.error):
        return None
