"""The content store: whole blobs or none."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bknb.content import DiskContentStore
from bknb.content.store import storing
from bknb.digest import Digest
from bknb.errors import ContentError, StoreError


@pytest.fixture
def store(tmp_path: Path) -> DiskContentStore:
    """An empty store."""
    return DiskContentStore(tmp_path / "content")


def ingests(tmp_path: Path) -> list[str]:
    """Names of unfinished blobs."""
    return os.listdir(tmp_path / "content" / "ingest")


def test_a_blob_is_found_by_its_digest(store: DiskContentStore) -> None:
    """What was put is read, opened, listed and told the size of."""
    digest = store.put(b"hello")
    assert digest == Digest.of(b"hello")
    assert store.read(digest) == b"hello"
    info = store.info(digest)
    assert info is not None and info.size == 5 and info.created > 0
    assert [blob.digest for blob in store.walk()] == [digest]
    with open(store.open(digest), "rb") as blob:
        assert blob.read() == b"hello"
    assert Path(store.path(digest)).read_bytes() == b"hello"


def test_putting_twice_is_putting_once(store: DiskContentStore) -> None:
    """Equal bytes are one blob."""
    assert store.put(b"x") == store.put(b"x")
    assert len(store.walk()) == 1


def test_a_blob_written_in_parts_is_hashed_on_the_way(store: DiskContentStore, tmp_path: Path) -> None:
    """Nothing is visible before commit, and no unfinished file is left after it."""
    with store.write() as writer:
        writer.write(b"ab")
        writer.write(memoryview(b"cd"))
        assert writer.offset == 4 and store.walk() == []
        assert writer.commit(Digest.of(b"abcd"), 4) == Digest.of(b"abcd")
    assert ingests(tmp_path) == []


def test_wrong_bytes_are_refused(store: DiskContentStore, tmp_path: Path) -> None:
    """A digest or size that does not hold keeps nothing."""
    with pytest.raises(ContentError, match="other bytes"), store.write() as writer:
        writer.write(b"a")
        writer.commit(Digest.of(b"b"))
    with pytest.raises(ContentError, match="has 1 bytes, not 2"), store.write() as writer:
        writer.write(b"a")
        writer.commit(Digest.of(b"a"), 2)
    assert store.walk() == [] and ingests(tmp_path) == []


def test_leaving_without_commit_keeps_nothing(store: DiskContentStore, tmp_path: Path) -> None:
    """An error while writing leaves no file."""
    with pytest.raises(ZeroDivisionError), store.write() as writer:
        writer.write(b"a")
        _ = 1 / 0
    assert store.walk() == [] and ingests(tmp_path) == []


def test_a_sha512_digest_is_checked_too(store: DiskContentStore) -> None:
    """Other algorithms of the OCI specification name blobs as well."""
    digest = Digest("sha512:" + hashlib.sha512(b"a").hexdigest())
    with store.write() as writer:
        writer.write(b"a")
        assert writer.commit(digest) == digest
    assert store.read(digest) == b"a"


def test_a_missing_blob_says_so(store: DiskContentStore) -> None:
    """`info` gives None, reading raises, deleting is quiet."""
    digest = Digest.of(b"nothing")
    assert store.info(digest) is None
    with pytest.raises(ContentError, match="not in the store"):
        store.read(digest)
    store.delete(digest)


def test_a_hostile_digest_opens_nothing(store: DiskContentStore) -> None:
    """A digest is never a path."""
    for text in ("sha256:../../etc/passwd", "../x:" + "0" * 64, "sha256:"):
        with pytest.raises(ContentError):
            store.info(Digest(text))


def test_a_killed_writer_leaves_no_blob(store: DiskContentStore, tmp_path: Path) -> None:
    """The next start removes the file of a dead writer, and not that of a living one."""
    code = (
        "import os, sys; from bknb.content import DiskContentStore\n"
        "w = DiskContentStore(sys.argv[1]).write(); w.write(b'half'); os._exit(9)"
    )
    asked = [sys.executable, "-c", code, str(tmp_path / "content")]
    cwd = Path(__file__).parents[2]
    assert subprocess.run(asked, cwd=cwd, start_new_session=True, check=False).returncode == 9
    with store.write() as writer:
        writer.write(b"living")
        assert len(ingests(tmp_path)) == 2
        again = DiskContentStore(tmp_path / "content")
        assert len(ingests(tmp_path)) == 1
        digest = writer.commit()
    assert again.read(digest) == b"living"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """The message says what to do."""
    with pytest.raises(StoreError, match="is full"), storing(tmp_path):
        raise OSError(28, "No space left on device")
