"""``bknb du``, ``prune``, ``mounts``, ``images``, ``history``, ``doctor``: tables on stdout, or JSON for programs."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from bknb.cli.building import open_client
from bknb.errors import UsageError, did_you_mean
from bknb.options import wants_help

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas

    from bknb.api import Client

_DU_HELP = """usage: bknb du [options]

What the store holds, largest first.

  --filter FILTER   only what fits: type==regular, description~=apt, inuse, until=24h, ...; repeated: any of them
  -v, --verbose     with parents and flags
  --format json     a line of JSON for each record, sizes in bytes"""

_PRUNE_HELP = """usage: bknb prune [options]

Remove what nobody uses and no named image is made of.

  -a, --all                 also what named images share, internal records and those of frontends
  --filter FILTER           only what fits, as for bknb du; until=24h: not used for a day
  --keep-duration D         keep what was used in the last D
  --reserved-space SIZE     never go below this
  --max-used-space SIZE     go down to this, and no further
  --min-free-space SIZE     go on until so much of the disk is free
  --gc                      apply the rules that work by themselves after each build
  --explain                 remove nothing; tell for each record which rule takes it, or why it stays
  --format json             with --explain: a line of JSON for each record"""


_MOUNTS_HELP = """usage: bknb mounts [save|load ID FILE]

The directories that steps keep between builds: RUN --mount=type=cache.

  bknb mounts                          list them; --format json: a line of JSON for each
  bknb mounts save go-build go.tar.zst write one to a tar; .gz and .zst at the end compress it
  bknb mounts load go-build go.tar.zst put the files of a tar into one, over what is there"""


def du(words: list[str]) -> int:
    """``bknb du``: what the store holds."""
    if wants_help(words):
        print(_DU_HELP)
        return 0
    words, as_json = _format(words)
    from bknb.api.store import disk_usage, parse_usage

    asked = parse_usage(words, "bknb du")
    with closing(open_client()) as client:
        found = disk_usage(client, filters=asked.filters, until=asked.until, verbose=asked.verbose)
    total = int(found["size"].sum())
    _print(found, as_json)
    if not as_json:
        from bknb.display.amounts import count, size

        free = int(found.loc[~found["in_use"] & ~found["shared"], "size"].sum())
        print(f"{count(len(found), 'record')}, {size(total)}; bknb prune would free up to {size(free)}")
    return 0


def prune(words: list[str]) -> int:
    """``bknb prune``: remove what nobody uses."""
    if wants_help(words):
        print(_PRUNE_HELP)
        return 0
    words, as_json = _format(words)
    from bknb.api import store

    asked = store.parse_prune(words, "bknb prune")
    if as_json and not asked.explain:
        raise UsageError("bknb prune --format goes with --explain: a prune answers with one line")
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
    rest, as_json = _format(words)
    if wants_help(rest):
        print(f"usage: bknb {name} [--format json]")
        return 0
    if rest:
        raise UsageError(f"bknb {name} takes --format json and nothing else: {rest[0]!r} is left over")
    with closing(open_client(runtime=runtime)) as client:
        _print(ask(client), as_json)
    return 0


def _format(words: list[str]) -> tuple[list[str], bool]:
    """The words without ``--format``, and whether that asks for JSON."""
    rest, asked = list(words), "table"
    for position, word in enumerate(words):
        if word == "--format":
            asked = words[position + 1] if position + 1 < len(words) else ""
            del rest[position : position + 2]
        elif word.startswith("--format="):
            asked = word.removeprefix("--format=")
            del rest[position]
        else:
            continue
        break
    if asked not in ("table", "json"):
        raise UsageError(f"--format {asked!r}: it is table or json{did_you_mean(asked, ('table', 'json'))}")
    return rest, asked == "json"


def _print(frame: pandas.DataFrame, as_json: bool) -> None:
    """Rows as lines of JSON, or as columns; nothing where there are none."""
    if as_json:
        sys.stdout.write(frame.to_json(orient="records", lines=True, date_format="iso") if len(frame) else "")
        return
    if not len(frame):
        print("nothing yet")
        return
    cells = [[name.replace("_", " ") for name in frame.columns]]
    cells += [[_cell(name, value) for name, value in zip(frame.columns, row, strict=True)]
              for row in frame.itertuples(index=False)]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [frame[name].dtype.kind in "if" for name in frame.columns]
    for row in cells:
        texts = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        ]
        print("  ".join(texts).rstrip())


def _cell(name: str, value: object) -> str:
    from bknb.display.amounts import cut, seconds, size

    if isinstance(value, bool):
        return "yes" if value else ""
    if name == "size" and isinstance(value, int):
        return size(value)
    if name == "seconds" and isinstance(value, float):
        return seconds(value)
    return cut(str(value), 100)
