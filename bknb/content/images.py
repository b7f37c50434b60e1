"""Names of images that are kept in the content store: what ``-t`` writes and ``FROM`` reads.

A name is whole (``docker.io/library/app:latest``) and means a manifest or index. Which digest it meant before
is remembered, so that a rebuild can say that a tag moved. Two kernels may use one file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bknb.digest import Digest
from bknb.errors import StoreError
from bknb.protocols import Descriptor
from bknb.tables import connect

SCHEMA: Final = 1
_TABLE: Final = """
CREATE TABLE images (
    name TEXT PRIMARY KEY, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    previous TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """One name.

    Attributes:
        name: whole, with its tag.
        target: the manifest or index; its size in bytes is that of the document.
        previous: what the name meant before, or None.
        created: when the name was first given, in unix seconds.
        updated: when it was last given.
    """

    name: str
    target: Descriptor
    previous: Digest | None
    created: float
    updated: float


class ImageStore:
    """The table of names, in a sqlite file.

    Raises:
        StoreError: the file is of a newer schema, or cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._db = connect(Path(path), _TABLE, SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, name: str) -> NamedImage | None:
        """What a whole name means, or None."""
        with self._mapped():
            row = self._db.execute("SELECT * FROM images WHERE name = ?", (name,)).fetchone()
        return _image(row) if row else None

    def put(self, name: str, target: Descriptor) -> NamedImage:
        """Give a name to an image; gives what is known of the name then."""
        now = time.time()
        with self._mapped():
            self._db.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, '', ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "previous = CASE WHEN digest = excluded.digest THEN previous ELSE digest END, "
                "media_type = excluded.media_type, digest = excluded.digest, size = excluded.size, "
                "updated = excluded.updated",
                (name, target.media_type, target.digest, target.size, now, now),
            )
            row = self._db.execute("SELECT * FROM images WHERE name = ?", (name,)).fetchone()
        return _image(row)

    def delete(self, name: str) -> bool:
        """Forget a name, not its bytes; whether it was there."""
        with self._mapped():
            return self._db.execute("DELETE FROM images WHERE name = ?", (name,)).rowcount > 0

    def walk(self) -> tuple[NamedImage, ...]:
        """All names, sorted. What they name must outlive any collection of garbage."""
        with self._mapped():
            rows = self._db.execute("SELECT * FROM images ORDER BY name").fetchall()
        return tuple(_image(row) for row in rows)

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the names of images in {self._path} cannot be used: {error}") from None


def _image(row: tuple[str, str, str, int, str, float, float]) -> NamedImage:
    name, media_type, digest, size, previous, created, updated = row
    before = Digest(previous) if previous else None
    return NamedImage(name, Descriptor(media_type, Digest(digest), size), before, created, updated)
