"""``bknb du``, ``prune``, ``mounts``, ``images``, ``history``, ``doctor``: tables on stdout, or JSON for programs."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from bknb.cli.building import open_client
from bknb.errors import UsageError
from bknb.options import prune_parser, usage_parser, wants_help, words_parser

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    import pandas

    from bknb.api import Client

_MOUNTS_HELP = """usage: bknb mounts [save|load ID FILE]

The directories that steps keep between builds: RUN --mount=type=cache.

  bknb mounts                          list them; --format json: a line of JSON for each
  bknb mounts save go-build go.tar.zst write one to a tar; .gz and .zst at the end compress it
  bknb mounts load go-build go.tar.zst put the files of a tar into one, over what is there"""


def du(words: list[str]) -> int:
    """``bknb du``: what the store holds."""
    found = _asked(usage_parser("bknb du"), words)
    if found is None:
        return 0
    from bknb.api.store import disk_usage, usage_of

    asked = usage_of(found)
    with closing(open_client()) as client:
        table = disk_usage(client, filters=asked.filters, until=asked.until, verbose=asked.verbose)
    nothing = "nothing fits" if asked.filters or asked.until else "nothing yet"
    _print(table, found.format == "json", nothing)
    return 0


def prune(words: list[str]) -> int:
    """``bknb prune``: remove what nobody uses."""
    found = _asked(prune_parser("bknb prune"), words)
    if found is None:
        return 0
    as_json = found.format == "json"
    if as_json and not found.explain:
        raise UsageError("bknb prune --format goes with --explain: a prune answers with one line")
    from bknb.api import store

    asked = store.prune_of(found)
    with closing(open_client()) as client:
        if asked.explain:
            _print(store.explain(client, asked.policy), as_json)
        else:
            print(store.prune(client, asked.policy))
    return 0


def images(words: list[str]) -> int:
    """``bknb images``: the images that ``-t`` kept."""
    from bknb import api

    return _table(words, "images", api.images, runtime="none")


def history(words: list[str]) -> int:
    """``bknb history``: the builds so far, newest first."""
    from bknb import api

    return _table(words, "history", api.history, runtime="none")


def mounts(words: list[str]) -> int:
    """``bknb mounts``: the cache mounts; ``save ID FILE`` and ``load ID FILE`` take one out as a tar and put it back."""
    from bknb import api
    from bknb.api.tables import moved

    if wants_help(words):
        print(_MOUNTS_HELP)
        return 0
    if words and not words[0].startswith("--"):
        with closing(open_client()) as client:
            print(moved(client, words, "bknb mounts"))
        return 0
    return _table(words, "mounts", api.mounts)


def doctor(words: list[str]) -> int:
    """``bknb doctor``: what this machine can do, and what is missing."""
    if words:
        raise UsageError(f"bknb doctor takes no options: {words[0]!r} is left over")
    from bknb.doctor import examine

    with closing(open_client()) as client:
        print(examine(client))
    return 0


def _table(
    words: list[str], name: str, ask: Callable[[Client], pandas.DataFrame], *, runtime: str = "auto"
) -> int:
    """Print a table; with the runtime ``none`` no process is started for it."""
    found = _asked(words_parser(f"bknb {name}"), words)
    if found is None:
        return 0
    with closing(open_client(runtime=runtime)) as client:
        _print(ask(client), found.format == "json")
    return 0


def _asked(made: ArgumentParser, words: list[str]) -> Namespace | None:
    """What the words say, `format` among it; None where they ask for help, which is printed."""
    made.add_argument(
        "--format", choices=("table", "json"), default="table", help="json: a line for each, sizes in bytes"
    )
    if wants_help(words):
        print(made.format_help(), end="")
        return None
    return made.parse_args(words)


def _print(frame: pandas.DataFrame, as_json: bool, nothing: str = "nothing yet") -> None:
    """Rows as lines of JSON, or as columns; where there are none, nothing or what is to be said of that."""
    if as_json:
        sys.stdout.write(frame.to_json(orient="records", lines=True, date_format="iso") if len(frame) else "")
        return
    if not len(frame):
        print(nothing)
        return
    from bknb.api.frames import tabular
    from bknb.display.amounts import cut

    shown = tabular(frame)
    cells = [[name.replace("_", " ") for name in shown.names]]
    cells += [[cut(text, 100) for text in row] for row in shown.rows()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        texts = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, shown.numeric, strict=True)
        ]
        print("  ".join(texts).rstrip())
    if note := getattr(frame, "note", ""):
        print(note)
