"""What the store holds, as tables."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bknb.builder.collect import Pruned
from bknb.builder.local import LocalBuilder
from bknb.cache.filters import duration, from_words, parse_filters, size
from bknb.cache.gc import Plan, in_use
from bknb.display import amounts
from bknb.errors import UsageError
from bknb.events import Outcome
from bknb.record import Record
from bknb.reference import Reference
from bknb.settings import DiskSpace, GCPolicy

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client


_CACHED = frozenset((Outcome.DEFINITION, Outcome.CONTENT, Outcome.REMOTE))


def images(client: Client) -> pandas.DataFrame:
    """The images that ``-t`` kept: name, digest, size in bytes, when it was made."""
    import pandas

    from bknb.api.frames import table

    async def look(builder: LocalBuilder) -> list[dict[str, object]]:
        return [
            {
                "name": Reference.parse(image.name).familiar,
                "digest": image.target.digest.short,
                "size": builder.image_size(image.target),
                "created": pandas.Timestamp(image.updated, unit="s").floor("s"),
            }
            for image in builder.parts.image_store.walk()
        ]

    return table(pandas.DataFrame(client.call(look), columns=["name", "digest", "size", "created"]))


def disk_usage(
    client: Client, *, filters: Sequence[str] = (), until: float = 0.0, verbose: bool = False
) -> pandas.DataFrame:
    """What the store holds: a row for each record, and one for what only the name of an image keeps.

    Args:
        client: whose store.
        filters: of which one has to fit; see `bknb.cache.filters`.
        until: only what was not used for so many seconds.
        verbose: with parents and flags, and whole ids, which filters compare with.

    Returns:
        id, kind, bytes on disk, in use, description, times and number of uses; largest first.

    Raises:
        UsageError: a filter is not understood.
    """
    import pandas

    from bknb.api.frames import table

    survey = client.call(lambda builder: builder.collector.survey())
    used, wanted, last = in_use(survey.facts), parse_filters(filters), time.time() - until
    rows = [
        {
            "id": fact.id if verbose else fact.id[:12],
            "kind": fact.type,
            "size": fact.size,
            "in_use": fact.id in used,
            "shared": bool(fact.image),
            "uses": fact.uses,
            "created": pandas.Timestamp(fact.created, unit="s").floor("s"),
            "last_used": pandas.Timestamp(fact.used, unit="s").floor("s"),
            "description": fact.description,
            "mutable": fact.mutable,
            "image": fact.image,
            "parents": ", ".join(fact.parents),
        }
        for fact in sorted((*survey.facts, *survey.images), key=lambda fact: -fact.size)
        if fact.used <= last and wanted(fact.fields(in_use=fact.id in used))
    ]
    columns = ["id", "kind", "size", "in_use", "shared", "uses", "created", "last_used", "description"]
    shown = pandas.DataFrame(rows, columns=columns + (["mutable", "image", "parents"] if verbose else []))
    free = int(shown.loc[~shown["in_use"].astype(bool) & ~shown["shared"].astype(bool), "size"].sum())
    return table(shown, f"{_total(shown)}; bknb prune would free up to {amounts.size(free)}")


def _total(records: pandas.DataFrame) -> str:
    return f"{amounts.count(len(records), 'record')}, {amounts.size(int(records['size'].sum()))}"


def prune(client: Client, policy: GCPolicy | None = GCPolicy()) -> str:  # noqa: B008 - frozen
    """Remove what a policy takes, which is everything that is not in use; a line that says what was freed.

    Args:
        client: whose store.
        policy: None for the builder's own, as they are applied after builds.

    Raises:
        UsageError: a filter is not understood.
        StoreError: another kernel is pruning.
    """

    async def act(builder: LocalBuilder) -> Pruned:
        return await (builder.collector.collect() if policy is None else builder.collector.prune(policy))

    done = client.call(act)
    return f"removed {amounts.count(len(done.removed), 'result')}, {amounts.size(done.freed)}"


def explain(client: Client, policy: GCPolicy | None = GCPolicy()) -> pandas.DataFrame:  # noqa: B008 - frozen
    """What `prune` would do: for each record that it goes, and by which rule, or the reason why it stays.

    Args:
        client: whose store.
        policy: as for `prune`.
    """
    import pandas

    from bknb.api.frames import table

    async def think(builder: LocalBuilder) -> Plan:
        return await builder.collector.plan(None if policy is None else [policy])

    decided = client.call(think)
    rows = [
        {
            "id": verdict.fact.id[:12],
            "kind": verdict.fact.type,
            "size": verdict.fact.size,
            "last_used": pandas.Timestamp(verdict.fact.used, unit="s").floor("s"),
            "goes": verdict.rule is not None,
            "reason": "nothing keeps it" if verdict.rule is not None and policy is not None else str(verdict),
            "description": verdict.fact.description,
        }
        for verdict in (*decided.removed, *decided.kept)
    ]
    shown = pandas.DataFrame(
        rows, columns=["id", "kind", "size", "last_used", "goes", "reason", "description"]
    )
    goes = shown["goes"].astype(bool)
    return table(shown, f"{_total(shown[goes])}, would go; {_total(shown[~goes])}, would stay")


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """What the words after ``prune`` say; `policy` None: the builder's own."""

    policy: GCPolicy | None
    explain: bool = False


def prune_of(found: argparse.Namespace) -> PruneOptions:
    """What the words after ``prune`` say, as `bknb.options.prune_parser` has read them.

    Raises:
        UsageError: a value is not understood.
    """
    filters, until = from_words(found.filter)
    policy = GCPolicy(
        reserved_space=_space(found.reserved_space),
        max_used_space=_space(found.max_used_space),
        min_free_space=_space(found.min_free_space),
        keep_duration=until if found.keep_duration is None else duration(found.keep_duration),
        filters=filters,
        all=found.all,
    )
    if not found.gc:
        return PruneOptions(policy, found.explain)
    if policy != GCPolicy():
        raise UsageError("--gc applies the builder's own rules: it takes --explain only")
    return PruneOptions(None, found.explain)


def _space(text: str | None) -> DiskSpace:
    return DiskSpace() if text is None else DiskSpace(*size(text))


@dataclass(frozen=True, slots=True)
class UsageOptions:
    """What the words after ``du`` say."""

    filters: tuple[str, ...] = ()
    until: float = 0.0
    verbose: bool = False


def usage_of(found: argparse.Namespace) -> UsageOptions:
    """What the words after ``du`` say, as `bknb.options.usage_parser` has read them.

    Raises:
        UsageError: a filter is not understood.
    """
    filters, until = from_words(found.filter)
    return UsageOptions(filters, until, found.verbose)


def _title(record: Record) -> str:
    """What a build is called; one that has only its file's name is told apart by the folder."""
    folder = os.path.basename(record.context)
    plain = record.title in ("Dockerfile", "dockerfile") and folder and not record.cell
    return f"{record.title} in {folder}" if plain else record.title


def history(client: Client) -> pandas.DataFrame:
    """The builds so far, newest first: when, what, how long, how many steps were cached, and whether it failed."""
    import pandas

    from bknb.api.frames import table

    async def look(builder: LocalBuilder) -> list[dict[str, object]]:
        return [
            {
                "id": record.id,
                "started": pandas.Timestamp(record.started, unit="s").floor("s"),
                "title": _title(record),
                "seconds": round(record.finished - record.started, 2),
                "cached": sum(step.outcome in _CACHED for step in record.steps),
                "steps": sum(bool(step.command) for step in record.steps),
                "error": record.error,
            }
            for record in builder.parts.history.walk()
        ]

    columns = ["id", "started", "title", "seconds", "cached", "steps", "error"]
    return table(pandas.DataFrame(client.call(look), columns=columns))
