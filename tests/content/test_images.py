"""Names of kept images."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bknb.content.images import ImageStore
from bknb.digest import Digest
from bknb.errors import StoreError
from bknb.oci.types import OCI_MANIFEST, Descriptor

ONE = Descriptor(OCI_MANIFEST, Digest.of(b"1"), 10)
TWO = Descriptor(OCI_MANIFEST, Digest.of(b"2"), 20)


def test_a_name_moves(tmp_path: Path) -> None:
    """A name means what it was given last, and remembers what it meant before; also for another kernel."""
    first, second = ImageStore(tmp_path / "i.db"), ImageStore(tmp_path / "i.db")
    assert first.get("a") is None
    assert first.put("a", ONE).previous is None
    assert first.put("a", ONE).previous is None
    moved = second.put("a", TWO)
    assert (moved.target, moved.previous) == (TWO, ONE.digest)
    assert first.get("a") == moved
    second.put("b", ONE)
    assert [image.name for image in first.walk()] == ["a", "b"]
    assert first.delete("a")
    assert not second.delete("a")
    first.close()
    second.close()


def test_newer_schema(tmp_path: Path) -> None:
    """A file of a newer bknb is refused in one line."""
    with sqlite3.connect(tmp_path / "i.db") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="newer bknb"):
        ImageStore(tmp_path / "i.db")


def test_not_a_database(tmp_path: Path) -> None:
    """A file that is none is one line."""
    (tmp_path / "i.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"cannot use .*i\.db: file is not a database"):
        ImageStore(tmp_path / "i.db")
