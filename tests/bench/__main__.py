"""``python -m tests.bench [ROW...]``: measure, and print each row."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bknb.api import Client, Preferences
from tests.bench.peer import peer
from tests.bench.rows import ROWS, Bench, Mirror, now
from tests.bench.rows_d import ROWS as ROWS_D
from tests.bench.rows_g import ROWS as ROWS_G
from tests.bench.rows_r import ROWS as ROWS_R


def main(words: list[str]) -> int:
    """Run the named rows, or all."""
    rows = {**ROWS, **ROWS_D, **ROWS_G, **ROWS_R}  # d, g and r take minutes: only when they are asked for
    unknown = set(words) - set(rows)
    if unknown:
        print(f"no row {sorted(unknown)[0]!r}: there are {', '.join(rows)}", file=sys.stderr)
        return 2
    place = Path(tempfile.mkdtemp(prefix="bench-"))
    # An installed package has its bytecode; new processes find it here, wherever this one was told not to write it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(place / "bytecode")
    client = Client(Preferences(root=str(place / "state"), offline=True))
    mirror = Mirror(place / "mirror")
    try:
        with peer(mirror.host) as found:
            print(
                f"{now()} · {os.cpu_count()} cores · {'BuildKit on PATH' if found else 'no BuildKit on PATH'}; medians, in turn"
            )
            for name in words or ROWS:
                row = rows[name](Bench(place, client, found, itertools.count(os.getpid() * 1000), mirror.host))
                for each in row if isinstance(row, list) else [row]:
                    print("\n".join(each.lines()), flush=True)
    finally:
        client.close()
        mirror.close()
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
