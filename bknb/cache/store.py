"""The cache's memory: keys, links, results and plaintexts in one sqlite file.

The model is BuildKit's (solver/cachestorage.go): links lead from the keys of a step's inputs to the key of
the step, results hang on keys. Nothing here says where a result lies; that is the worker's.

Measured: a lookup in sqlite costs 5 us, one in a dict 0.2. So every answer is remembered, also "nothing";
our own writes correct what is remembered, and a write of another kernel, seen by ``PRAGMA data_version``,
empties it. A transaction takes 40 to 80 us, short enough for the event loop's thread: a writer thread would add
its own hop to every step of a chain. Changes of one turn of the loop share one, so steps that end together are
saved together, before any that stands on them can end. WAL keeps readers and one
writer apart, so two kernels may share a file; after a `kill -9` a transaction is there or is not.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from bknb.errors import StoreError
from bknb.keys.cachekey import VOLATILE, derived_key, root_key
from bknb.protocols import CacheRecord
from bknb.tables import connect

SCHEMA: Final = 1
MAX_PLAINTEXT: Final = 64 << 10
"""Longest text that is kept for one digest, in characters; the rest is cut off."""
MAX_PLAINTEXTS: Final = 64 << 20
"""Characters of all plaintexts; the longest unused go first."""
_MAX_REMEMBERED: Final = 1_000_000

_TABLES: Final = """
CREATE TABLE keys(
  key TEXT PRIMARY KEY,
  digest TEXT NOT NULL,          -- of the cache map
  output INTEGER NOT NULL,
  vertex TEXT NOT NULL,          -- that it was made for
  created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE links(
  source TEXT NOT NULL,
  input INTEGER NOT NULL,
  output INTEGER NOT NULL,
  digest TEXT NOT NULL,
  selector TEXT NOT NULL,
  target TEXT NOT NULL,
  PRIMARY KEY(source, input, output, digest, selector, target)
) WITHOUT ROWID;
CREATE INDEX links_target ON links(target);
CREATE TABLE results(
  key TEXT NOT NULL, result TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY(key, result)
) WITHOUT ROWID;
CREATE INDEX results_result ON results(result);
CREATE TABLE plaintexts(digest TEXT PRIMARY KEY, text TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
"""

Link = tuple[str, int, int, str, str]
"""Key of an input, its number, the output of the step, the digest of its cache map, a selector."""


class SqliteCacheStore:
    """A `CacheStore` in a file. Used by one thread at a time.

    Raises:
        StoreError: the file is of a newer schema, or cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._links: dict[Link, frozenset[str]] = {}
        self._records: dict[str, tuple[CacheRecord, ...]] = {}
        self._noted: set[str] = set()
        self._unwritten: list[tuple[str, str | bytes, float]] = []
        self._failed: StoreError | None = None
        self._closed = False
        self._db = connect(Path(path), _TABLES, SCHEMA)
        self._version = self._data_version()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        if pages * 4096 > MAX_PLAINTEXTS:
            self.trim()

    def close(self) -> None:
        """Write what is left and let go of the file."""
        if self._unwritten:
            with self._transaction():
                pass
        self._commit()
        self._closed = True
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A change. Those of one turn of the event loop are written as one, all or none of them.

        Raises:
            StoreError: this one cannot be written, or those of an earlier turn could not.
        """
        self._raise_failed()
        alone = self._begin()
        try:
            yield self._db
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{self.path}: {error}") from None
            raise
        if alone:
            self._commit()
            self._raise_failed()

    def _raise_failed(self) -> None:
        error, self._failed = self._failed, None
        if error is not None:
            raise error

    def _begin(self) -> bool:
        """Begin a transaction unless one is open; whether it is ours alone, because no loop runs."""
        if self._db.in_transaction:
            return False
        with _mapped(self.path):
            self._db.execute("BEGIN IMMEDIATE")
        try:
            asyncio.get_running_loop().call_soon(self._commit)
        except RuntimeError:
            return True
        return False

    def _commit(self) -> None:
        """Write what this turn changed; an error is kept for whoever changes something next."""
        if self._closed or not self._db.in_transaction:
            return
        try:
            self._write_texts()
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed = StoreError(f"{self.path}: {error}")
            self._roll_back()

    def _write_texts(self) -> None:
        if self._unwritten:
            self._db.executemany("INSERT OR REPLACE INTO plaintexts VALUES (?, ?, ?)", self._unwritten)
            self._unwritten.clear()

    def _roll_back(self) -> None:
        """Forget what this turn changed: those steps are misses next time."""
        if self._db.in_transaction:  # a full disk has ended it already
            self._db.execute("ROLLBACK")
        self._links.clear()
        self._records.clear()

    # --- questions ----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Forget what is remembered if another connection has written."""
        version = self._data_version()
        if version != self._version or len(self._links) > _MAX_REMEMBERED:
            self._version = version
            self._links.clear()
            self._records.clear()

    def _data_version(self) -> int:
        with _mapped(self.path):
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        """Keys that a link leads to."""
        link = (key, input, output, digest, selector)
        found = self._links.get(link)
        if found is None:
            found = self._links[link] = self._targets(link)
        return found

    def _targets(self, link: Link) -> frozenset[str]:
        if link[0].startswith(VOLATILE):
            return frozenset()
        with _mapped(self.path):
            rows = self._db.execute(
                "SELECT target FROM links "
                "WHERE source=? AND input=? AND output=? AND digest=? AND selector=?",
                link,
            )
            return frozenset(target for (target,) in rows)

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Results of a key, newest first."""
        found = self._records.get(key)
        if found is None:
            found = self._records[key] = self._find_records(key)
        return found

    def _find_records(self, key: str) -> tuple[CacheRecord, ...]:
        with _mapped(self.path):
            rows = self._db.execute(
                "SELECT result, created FROM results WHERE key=? ORDER BY created DESC, result", (key,)
            )
            return tuple(CacheRecord(key, result, created) for result, created in rows)

    def plaintext(self, digest: str) -> str | None:
        """What a digest was taken of, if that is still known."""
        with _mapped(self.path):
            row = self._db.execute("SELECT text FROM plaintexts WHERE digest=?", (digest,)).fetchone()
        if row is None:
            return None
        return zlib.decompress(row[0]).decode() if isinstance(row[0], bytes) else str(row[0])

    def keyed(self, digest: str, output: int) -> frozenset[str]:
        """Every key of steps with this cache map, whatever their inputs were."""
        with _mapped(self.path):
            rows = self._db.execute("SELECT key FROM keys WHERE digest=? AND output=?", (digest, output))
            return frozenset(key for (key,) in rows)

    def leads_on(self, key: str) -> bool:
        """Whether any link starts from a key."""
        with _mapped(self.path):
            found = self._db.execute("SELECT EXISTS (SELECT 1 FROM links WHERE source=?)", (key,)).fetchone()
            return bool(found[0])

    # --- changes ------------------------------------------------------------------------------------------

    def connect(
        self, sources: Sequence[tuple[str, str]], input: int, output: int, digest: str
    ) -> frozenset[str]:
        """All targets of several (key, selector) pairs of one input, linked to each of them from now on."""
        found = {pair: self.targets(pair[0], input, output, digest, pair[1]) for pair in sources}
        everything = frozenset[str]().union(*found.values())
        missing: list[tuple[Link, str]] = [
            ((key, input, output, digest, selector), target)
            for (key, selector), known in found.items()
            if not key.startswith(VOLATILE)
            for target in everything - known
        ]
        if missing:
            with self._transaction():
                self._add_links(missing)
        return everything

    def save(
        self,
        digest: str,
        output: int,
        deps: Sequence[Sequence[tuple[str, str]]],
        result: str,
        *,
        vertex: str = "",
    ) -> str:
        """Keep a result; returns its key, an existing one where all inputs lead to it."""
        return self._keep(digest, output, deps, result, vertex)

    def link(
        self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]], *, vertex: str = ""
    ) -> str:
        """As `save`, without a result."""
        return self._keep(digest, output, deps, None, vertex)

    def _keep(
        self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]], result: str | None, vertex: str
    ) -> str:
        if not self._db.in_transaction:  # nobody else writes while one is open
            self.refresh()
        key = self._resolve(digest, output, deps)
        if key.startswith(VOLATILE):
            return key
        now = time.time()
        links: list[tuple[Link, str]] = [
            ((source, index, output, digest, selector), key)
            for index, pairs in enumerate(deps)
            for source, selector in pairs
            if not source.startswith(VOLATILE)
        ]
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)", (key, digest, output, vertex, now)
            )
            if result is not None:
                db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (key, result, now))
            if links:
                self._add_links(links)
        self._records.pop(key, None)
        return key

    def _resolve(self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]]) -> str:
        if not deps:
            return root_key(digest, output)
        common: frozenset[str] | None = None
        for index, pairs in enumerate(deps):
            reached = frozenset[str]().union(*(self.targets(k, index, output, digest, s) for k, s in pairs))
            common = reached if common is None else common & reached
            if not common:
                return derived_key(digest, output, deps)
        assert common is not None
        return min(common)

    def _add_links(self, links: Sequence[tuple[Link, str]]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?, ?, ?)", [(*link, to) for link, to in links]
        )
        for link, target in links:
            known = self._links.get(link)
            if known is not None:
                self._links[link] = known | {target}

    def keys_of(self, result: str) -> tuple[str, ...]:
        """The keys that lead to a result."""
        with _mapped(self.path):
            rows = self._db.execute("SELECT key FROM results WHERE result=? ORDER BY key", (result,))
            return tuple(key for (key,) in rows)

    def leading_to(self, key: str) -> tuple[Link, ...]:
        """The links that lead to a key: what one walks who writes the cache out for others."""
        sql = "SELECT source, input, output, digest, selector FROM links WHERE target=? ORDER BY input, source"
        with _mapped(self.path), closing(self._db.execute(sql, (key,))) as rows:
            return tuple(rows)

    def forget(self, result: str) -> None:
        """A result is gone; keys that lead nowhere any more go with it."""
        with self._transaction() as db:
            keys = [key for (key,) in db.execute("SELECT key FROM results WHERE result=?", (result,))]
            db.execute("DELETE FROM results WHERE result=?", (result,))
            self._remove_dead(keys)
        self._links.clear()
        self._records.clear()

    def _remove_dead(self, keys: list[str]) -> None:
        """Remove keys without results and without links onward, and then what led only to them."""
        alive = (
            "SELECT EXISTS (SELECT 1 FROM results WHERE key=?) OR EXISTS (SELECT 1 FROM links WHERE source=?)"
        )
        while keys:
            key = keys.pop()
            if self._db.execute(alive, (key, key)).fetchone()[0]:
                continue
            keys += [
                source
                for (source,) in self._db.execute("SELECT DISTINCT source FROM links WHERE target=?", (key,))
            ]
            self._db.execute("DELETE FROM links WHERE target=?", (key,))
            self._db.execute("DELETE FROM keys WHERE key=?", (key,))

    def note(self, digest: str, plaintext: str) -> None:
        """Remember what a digest is taken of; written with the next change, it is worth no transaction."""
        if digest in self._noted:
            return
        self._noted.add(digest)
        text = plaintext[:MAX_PLAINTEXT].encode(errors="replace").decode()
        self._unwritten.append((digest, text, time.time()))

    def note_later(self, digest: str, make: Callable[[], str]) -> None:
        """As `note`, for a long text: it is made only if it is not there, kept compressed, and never cut."""
        if digest in self._noted:
            return
        self._noted.add(digest)
        with _mapped(self.path):
            known = self._db.execute("SELECT 1 FROM plaintexts WHERE digest=?", (digest,)).fetchone()
        if known is None:
            self._unwritten.append((digest, zlib.compress(make().encode(), 1), time.time()))

    def trim(self) -> None:
        """Keep the plaintexts below their bound; done when a file of some size is opened."""
        with self._transaction() as db:
            self._write_texts()
            (total,) = db.execute("SELECT coalesce(sum(length(text)), 0) FROM plaintexts").fetchone()
            if total <= MAX_PLAINTEXTS:
                return
            db.execute(
                "DELETE FROM plaintexts WHERE digest IN (SELECT digest FROM (SELECT digest, "
                "sum(length(text)) OVER (ORDER BY used DESC, digest) AS running FROM plaintexts) "
                "WHERE running > ?)",
                (MAX_PLAINTEXTS // 2,),
            )
        self._noted.clear()

    def results(self) -> list[str]:
        """Every result that a key leads to."""
        with _mapped(self.path), closing(self._db.execute("SELECT DISTINCT result FROM results")) as rows:
            return [result for (result,) in rows]


@contextmanager
def _mapped(path: str) -> Iterator[None]:
    """Errors of sqlite as StoreError, in one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from None
