"""The cache store: keys, links, results; what lasts, what is forgotten, and two kernels at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bknb.cache import store as module
from bknb.cache.store import SqliteCacheStore
from bknb.errors import StoreError
from bknb.keys.cachekey import root_key

BASE = root_key("sha256:base", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteCacheStore]:
    """An empty store."""
    with closing(SqliteCacheStore(tmp_path / "cache.db")) as store:
        yield store


def test_a_result_is_found_by_the_keys_of_its_inputs(store: SqliteCacheStore) -> None:
    """A saved step is what the link of its input leads to, and nothing else is."""
    key = store.save("sha256:op", 0, [[(BASE, "")]], "r1")
    assert store.targets(BASE, 0, 0, "sha256:op", "") == {key}
    assert [record.result for record in store.records(key)] == ["r1"]
    for other in ((BASE, 1, 0, "sha256:op", ""), (BASE, 0, 1, "sha256:op", ""), (BASE, 0, 0, "sha256:x", "")):
        assert not store.targets(*other)
    assert not store.targets(BASE, 0, 0, "sha256:op", "sha256:selector")


def test_a_second_way_leads_to_the_same_key(store: SqliteCacheStore) -> None:
    """A step that all inputs lead to already keeps its key; the new ways are linked to it."""
    content = root_key("sha256:content", -1)
    key = store.save("sha256:op", 0, [[(BASE, ""), (content, "")]], "r1")
    other = root_key("sha256:other", 0)
    assert store.save("sha256:op", 0, [[(other, "sel"), (content, "")]], "r2") == key
    assert store.targets(other, 0, 0, "sha256:op", "sel") == {key}
    assert {record.result for record in store.records(key)} == {"r1", "r2"}


def test_connect_links_definition_to_content(store: SqliteCacheStore) -> None:
    """What content leads to, the definition of the same input leads to from then on."""
    content = root_key("sha256:content", -1)
    key = store.save("sha256:op", 0, [[(content, "")]], "r1")
    assert store.connect([(BASE, "sel"), (content, "")], 0, 0, "sha256:op") == {key}
    assert store.targets(BASE, 0, 0, "sha256:op", "sel") == {key}


def test_volatile_keys_are_not_kept(store: SqliteCacheStore) -> None:
    """What only a session's files lead to is not written; beside a content key it does no harm."""
    assert store.save("random:x", 0, [], "r1") == "random:x"
    assert not store.records("random:x")
    assert store.save("sha256:op", 0, [[("random:x", "")]], "r1").startswith("random:")
    content = root_key("sha256:content", -1)
    key = store.save("sha256:op", 0, [[("random:x", ""), (content, "")]], "r1")
    assert store.targets(content, 0, 0, "sha256:op", "") == {key}
    assert not store.targets("random:x", 0, 0, "sha256:op", "")


def test_newest_result_first(store: SqliteCacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several results of a key the newest is taken."""
    times = iter([1.0, 2.0])
    monkeypatch.setattr(module.time, "time", lambda: next(times))
    store.save("sha256:op", 0, [], "old")
    key = store.save("sha256:op", 0, [], "new")
    assert [record.result for record in store.records(key)] == ["new", "old"]


def test_forgetting_takes_what_led_only_there(store: SqliteCacheStore) -> None:
    """A key without results and without links onward goes, and what led only to it; the rest stays."""
    base = store.save("sha256:base", 0, [], "r0")
    middle = store.save("sha256:a", 0, [[(base, "")]], "r1")
    top = store.save("sha256:b", 0, [[(middle, "")]], "r2")
    store.forget("r1")
    assert store.targets(middle, 0, 0, "sha256:b", "") == {top}, "it still leads somewhere"
    store.forget("r2")
    assert not store.targets(base, 0, 0, "sha256:a", "") and store.results() == ["r0"]


def test_everything_lasts(store: SqliteCacheStore) -> None:
    """Another process finds keys, results and plaintexts."""
    store.note("sha256:op", "RUN x")
    key = store.save("sha256:op", 0, [[(BASE, "")]], "r1")
    store.note("sha256:late", "late")
    store.close()
    with closing(SqliteCacheStore(store.path)) as again:
        assert again.targets(BASE, 0, 0, "sha256:op", "") == {key}
        assert again.plaintext("sha256:op") == "RUN x" and again.plaintext("sha256:late") == "late"
        assert again.plaintext("sha256:unknown") is None


def test_plaintexts_are_bounded(store: SqliteCacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text is cut, and the oldest go when there are too many."""
    monkeypatch.setattr(module, "MAX_PLAINTEXT", 100)
    monkeypatch.setattr(module, "MAX_PLAINTEXTS", 500)
    for number in range(10):
        store.note(f"sha256:{number}", "é" * 1000)
    store.trim()
    kept = [text for number in range(10) if (text := store.plaintext(f"sha256:{number}"))]
    assert 0 < sum(map(len, kept)) <= 500 and set(map(len, kept)) == {100}


def test_two_kernels_see_each_other(store: SqliteCacheStore) -> None:
    """What one writes the other finds after a refresh, also where it had found nothing before."""
    with closing(SqliteCacheStore(store.path)) as other:
        assert not other.targets(BASE, 0, 0, "sha256:op", "")
        key = store.save("sha256:op", 0, [[(BASE, "")]], "r1")
        other.refresh()
        assert other.targets(BASE, 0, 0, "sha256:op", "") == {key}
        assert other.save("sha256:op", 0, [[(BASE, "")]], "r2") == key
    store.refresh()
    assert {record.result for record in store.records(key)} == {"r1", "r2"}


def test_newer_schema_is_one_line(store: SqliteCacheStore) -> None:
    """A file of a newer version is refused, and not touched."""
    store.close()
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer bknb"):
        SqliteCacheStore(store.path)


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    """What is no database is a StoreError."""
    (tmp_path / "cache.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"cache\.db"):
        SqliteCacheStore(tmp_path / "cache.db")


KILLED = """
import sys
from bknb.cache.store import SqliteCacheStore
store = SqliteCacheStore(sys.argv[1])
number = 0
while True:
    number += 1
    store.save(f"sha256:{number}", 0, [[("k", "")]], f"r{number}")
    print(number, flush=True)
"""


def test_kill_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    """After a kill -9 every save that had returned is there, with its link."""
    path = str(tmp_path / "cache.db")
    running = subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True, start_new_session=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if int(line) >= 20:
            os.kill(running.pid, signal.SIGKILL)
            break
    said = [int(line) for line in running.stdout if line.endswith("\n")]
    running.wait()
    running.stdout.close()
    with closing(SqliteCacheStore(path)) as store:
        for number in range(1, max([20, *said]) + 1):
            (key,) = store.targets("k", 0, 0, f"sha256:{number}", "")
            assert store.records(key)[0].result == f"r{number}"
