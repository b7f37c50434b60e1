"""A sqlite file of the state folder that several kernels open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

from bknb.tables import connect

TABLE = "CREATE TABLE word (word TEXT)"


def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    """None of them is told that the file is locked, and the tables are made once."""
    for number in range(50):
        path, start = tmp_path / f"{number}.db", Barrier(8)

        def opened(path: Path = path, start: Barrier = start) -> int:
            start.wait()
            with closing(connect(path, TABLE, 1)) as db:
                return db.execute("INSERT INTO word VALUES ('a')").rowcount

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(lambda _: opened(), range(8))) == 8
        with closing(connect(path, TABLE, 1)) as db:
            assert db.execute("SELECT count(*) FROM word").fetchone() == (8,)
