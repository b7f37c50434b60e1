"""The cache as data: what is in it, what leads to what, and who used it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bknb.api.store import disk_usage
from bknb.builder.cachemounts import CacheMount, cache_mounts, load_cache_mount, save_cache_mount
from bknb.builder.local import LocalBuilder
from bknb.cache.contents import Contents, contents
from bknb.display.amounts import count, seconds, size
from bknb.errors import UsageError, did_you_mean
from bknb.record import Record, Use

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client


@dataclass(frozen=True, slots=True, repr=False)
class CacheTables:
    """The cache of a store at one moment, as DataFrames. Sizes in bytes, durations in seconds.

    Attributes:
        records: a row for each result: id, kind, size, in_use, shared, uses, created, last_used, description,
            keys (that lead to it), seconds (making it took), hits (of recorded builds), saved (seconds, by those).
        keys: a row for each cache key: key, digest (of the cache map), output, created, results.
        links: source, input, output, digest, selector, target: from the key of an input to that of a step.
        uses: a row for each result that a build did not have to make: build, started, title, step, command,
            record, kind (of the hit), saved (seconds; missing where no build that made it is on record).
        mounts: a row for each cache mount: id, record, size, uses, created, last_used, description.

    Example:
        Time saved, by instruction, and what nobody ever used again::

            cache.uses.groupby("command").saved.sum().sort_values()
            cache.records[cache.records.hits == 0]
    """

    records: pandas.DataFrame
    keys: pandas.DataFrame
    links: pandas.DataFrame
    uses: pandas.DataFrame
    mounts: pandas.DataFrame

    def __repr__(self) -> str:
        records = self.records
        return (
            f"{count(len(records), 'record')}, {size(int(records['size'].sum()))}, "
            f"{int((records.hits == 0).sum()):,} of them never used by a later build; "
            f"{count(len(self.keys), 'key')}, {count(len(self.links), 'link')}, {count(len(self.mounts), 'cache mount')}; "
            f"{count(len(self.uses), 'use')} saved {seconds(float(self.uses.saved.sum())) or '0 s'}"
            "\n  .records  .keys  .links  .uses  .mounts are DataFrames"
        )


def cache(client: Client | None = None) -> CacheTables:
    """The cache as DataFrames.

    Args:
        client: whose; the process's own if absent.
    """
    from bknb.api.client import default_client
    from bknb.api.frames import table

    client = client or default_client()
    records = disk_usage(client, verbose=True)

    async def look(builder: LocalBuilder) -> tuple[Contents, list[Use], list[Record], list[CacheMount]]:
        parts = builder.parts
        path = Path(parts.settings.root)
        return (
            await asyncio.to_thread(contents, path / "cache.db"),
            await asyncio.to_thread(parts.history.uses),
            await asyncio.to_thread(lambda: list(parts.history.walk())),
            await cache_mounts(parts),
        )

    found, uses, builds, mounts = client.call(look)
    used = _uses(uses, builds)
    frames = (_records(records, found, used, builds), _keys(found), _links(found), used, _mounts(mounts))
    return CacheTables(*map(table, frames))


def _records(
    records: pandas.DataFrame, found: Contents, uses: pandas.DataFrame, builds: list[Record]
) -> pandas.DataFrame:
    import pandas

    results = pandas.Series([result for _, result in found.results], dtype=object)
    leading = results.value_counts()
    made = {
        result[:12]: step.seconds
        for build in reversed(builds) for step in build.steps if step.outcome == "ran"
        for result in step.results if result
    }  # fmt: skip
    grouped = uses.groupby("record").saved
    frame = records.drop(columns=["parents", "image", "mutable"])
    frame["id"] = frame["id"].str[:12]
    leading.index = leading.index.str[:12] if len(leading) else leading.index
    frame["keys"] = frame["id"].map(leading).fillna(0).astype(int)
    frame["seconds"] = frame["id"].map(made).astype(float)
    frame["hits"] = frame["id"].map(grouped.size()).fillna(0).astype(int)
    frame["saved"] = frame["id"].map(grouped.sum()).fillna(0.0)
    return frame


def _keys(found: Contents) -> pandas.DataFrame:
    import pandas

    made = pandas.DataFrame(found.keys, columns=["key", "digest", "output", "created"])
    made["created"] = pandas.to_datetime(made["created"], unit="s").dt.floor("s")
    results = pandas.Series([key for key, _ in found.results], dtype=object).value_counts()
    made["results"] = made["key"].map(results).fillna(0).astype(int)
    return made


def _links(found: Contents) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(
        found.links, columns=["source", "input", "output", "digest", "selector", "target"]
    )


def _uses(uses: list[Use], builds: list[Record]) -> pandas.DataFrame:
    import pandas

    known = {build.id: build for build in builds}
    commands = {
        (build.id, step.digest): step.command or step.name for build in builds for step in build.steps
    }
    rows = [
        {
            "build": use.build,
            "started": pandas.Timestamp(known[use.build].started, unit="s").floor("s"),
            "title": known[use.build].title,
            "step": use.step,
            "command": commands.get((use.build, use.step), ""),
            "record": use.result[:12],
            "kind": use.kind,
            "saved": use.seconds,
        }
        for use in uses
        if use.build in known
    ]
    columns = ["build", "started", "title", "step", "command", "record", "kind", "saved"]
    return pandas.DataFrame(rows, columns=columns).astype({"saved": float})


def _mounts(mounts: list[CacheMount]) -> pandas.DataFrame:
    import pandas

    rows = [
        {
            "id": mount.id.removeprefix("/"),  # which the Dockerfile frontend puts there
            "record": mount.record[:12],
            "size": mount.size,
            "uses": mount.uses,
            "created": pandas.Timestamp(mount.created, unit="s").floor("s"),
            "last_used": pandas.Timestamp(mount.used, unit="s").floor("s"),
            "description": mount.description,
        }
        for mount in mounts
    ]
    return pandas.DataFrame(
        rows, columns=["id", "record", "size", "uses", "created", "last_used", "description"]
    )


def mounts(client: Client) -> pandas.DataFrame:
    """The cache mounts of a store; the columns are those of `CacheTables.mounts`."""
    from bknb.api.frames import table

    return table(_mounts(client.call(lambda builder: cache_mounts(builder.parts))))


def save_mount(client: Client, id: str, path: str) -> str:
    """Write a cache mount to a tar (``.tar``, ``.tar.gz``, ``.tar.zst``); a line that says what was written.

    Raises:
        UsageError: there is no such cache mount, or the file cannot be written.
    """
    written = client.call(lambda builder: save_cache_mount(builder.parts, id, path))
    return f"wrote {path}, {size(written)}: the cache mount {id}"


def load_mount(client: Client, id: str, path: str) -> str:
    """Put the files of a tar into a cache mount, over what is there; a line that says so.

    Raises:
        UsageError: the file cannot be read.
        SourceError: it is no tar.
    """
    read = client.call(lambda builder: load_cache_mount(builder.parts, id, path))
    return f"read {path}, {size(read)}, into the cache mount {id}"


def moved(client: Client, words: Sequence[str], prog: str) -> str:
    """What ``mounts save ID FILE`` and ``mounts load ID FILE`` do; the line that they say.

    Raises:
        UsageError: the words are others.
    """
    acts = {"save": save_mount, "load": load_mount}
    verb, *rest = words or ("",)
    if verb not in acts:
        raise UsageError(
            f"{prog} takes save ID FILE.tar or load ID FILE.tar, or nothing{did_you_mean(verb, acts)}"
        )
    if len(rest) < 2:
        missing = "the file: FILE.tar" if rest else f"which cache mount, and the file; {prog} lists them"
        raise UsageError(f"{prog} {verb} ID FILE.tar: say {missing}")
    if len(rest) > 2:
        raise UsageError(f"{prog} {verb} ID FILE.tar: {rest[2]!r} is left over (quote a name that has spaces)")
    return acts[words[0]](client, words[1], words[2])
