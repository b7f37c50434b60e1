"""What the store holds, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bknb.builder.local import LocalBuilder
from bknb.events import Outcome
from bknb.reference import Reference

if TYPE_CHECKING:
    import pandas

    from bknb.api.client import Client


_CACHED = frozenset((Outcome.DEFINITION, Outcome.CONTENT, Outcome.REMOTE))


def images(client: Client) -> pandas.DataFrame:
    """The images that ``-t`` kept: name, digest, size in bytes, when it was made."""
    import pandas

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

    return pandas.DataFrame(client.call(look), columns=["name", "digest", "size", "created"])


def disk_usage(client: Client) -> pandas.DataFrame:
    """The records of results: id, kind, bytes on disk, in use, description, times and number of uses."""
    import pandas

    async def look(builder: LocalBuilder) -> list[dict[str, object]]:
        await builder.parts.refs.measure()
        held = builder.parts.refs.records.held()
        return [
            {
                "id": record.id[:12],
                "kind": record.type,
                "size": record.size,
                "in_use": record.id in held,
                "uses": record.uses,
                "created": pandas.Timestamp(record.created, unit="s").floor("s"),
                "last_used": pandas.Timestamp(record.used, unit="s").floor("s"),
                "description": record.description,
            }
            for record in builder.parts.refs.records.all()
        ]

    columns = ["id", "kind", "size", "in_use", "uses", "created", "last_used", "description"]
    return pandas.DataFrame(client.call(look), columns=columns)


def prune(client: Client, *, everything: bool) -> str:
    """Remove results that nothing holds; a line that says what was freed.

    Args:
        client: whose store.
        everything: also what an image of the store needs to be rebuilt quickly: the whole cache.
    """

    async def clear(builder: LocalBuilder) -> tuple[int, int]:
        return await builder.prune(everything=everything)

    count, freed = client.call(clear)
    return f"removed {count} results, {freed / 1e6:.1f} MB"


def history(client: Client) -> pandas.DataFrame:
    """The builds so far, newest first: when, what, how long, how many steps were cached, and whether it failed."""
    import pandas

    async def look(builder: LocalBuilder) -> list[dict[str, object]]:
        return [
            {
                "id": record.id,
                "started": pandas.Timestamp(record.started, unit="s").floor("s"),
                "title": record.title,
                "seconds": round(record.finished - record.started, 2),
                "cached": sum(step.outcome in _CACHED for step in record.steps),
                "steps": sum(bool(step.command) for step in record.steps),
                "error": record.error,
            }
            for record in builder.parts.history.walk()
        ]

    return pandas.DataFrame(
        client.call(look), columns=["id", "started", "title", "seconds", "cached", "steps", "error"]
    )
