"""Layers made several at a time: a transaction for all of them instead of some for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bknb.cache.handles import StoredMutableRef, StoredRef, active_name
from bknb.cache.records import Record, new_id
from bknb.protocols import Ref

if TYPE_CHECKING:
    from bknb.cache.refs import DiskRefStore


async def begin(store: DiskRefStore, wanted: Sequence[tuple[Ref | None, str]]) -> list[StoredMutableRef]:
    """Begin results on top of others, as (parent, description) pairs; all or none.

    Raises:
        SnapshotError: a parent is gone, or cannot be made.
    """
    bases: list[StoredRef | None] = []
    try:
        for parent, _ in wanted:
            bases.append(store.hold(parent.id) if parent is not None else None)
        below = [await store.materialise(base.id) if base is not None else "" for base in bases]
        ids = [new_id() for _ in wanted]
        made = await store.snapshots.prepare_each(
            [(active_name(id), parent) for id, parent in zip(ids, below, strict=True)]
        )
    except BaseException:
        for base in bases:
            if base is not None:
                await base.release()
        raise
    return [
        StoredMutableRef(store, id, base, mounts, "regular", text)
        for id, base, mounts, (_, text) in zip(ids, bases, made, wanted, strict=True)
    ]


async def commit(store: DiskRefStore, made: Sequence[StoredMutableRef]) -> list[StoredRef]:
    """Make results immutable; all or none. They are used up.

    Raises:
        SnapshotError, StoreError: they cannot be written.
    """
    store.records.insert_each(
        Record(each.id, "layer", each.parents, type=each.kind, description=each.text) for each in made
    )
    refs = [store.counted(each.id) for each in made]
    try:
        usages = await store.snapshots.commit_each([(each.id, active_name(each.id)) for each in made])
    except BaseException:
        for ref in refs:
            store.records.forget(ref.id)
            await ref.release()
        raise
    store.records.materialised_each(
        [(each.id, usage.bytes, each.id) for each, usage in zip(made, usages, strict=True)]
    )
    for each in made:
        await each.used_up()
    return refs
