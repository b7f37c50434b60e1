"""``local://``: a folder of the client as a result.

A context is kept as a chain of snapshots: the first holds every file, each later one what had changed. A build
that finds nothing changed makes nothing. What is copied is hashed on its way, so the digests that the cache
sees are those of the bytes that were copied, whatever happens to the originals meanwhile. The folder is walked by
the shim, which knows what it was like (`bknb.shim.contexts`); what it was like in other kernels' times is written
down (`journal`).

One folder with other patterns is another context, so that two steps of a build that want different parts of it
do not undo each other's. A new one starts from what the folder's latest context has.

The key of a context is random (solver/source: "session:..." keys): a context never matches by its definition,
only the content of what is copied out of it can.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bknb.cache.contenthash import Entry, Tree
from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.events import DecisionEvent, Phase, StatusEvent
from bknb.keys import source as keys
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, LocalDirectory, Ref, RefStore, Shim
from bknb.source.journal import Journal, Row, State

_MAX_DEPTH = 100
"""Context snapshots on top of each other before the whole is copied anew."""
_MAX_WASTE = 2
"""So many times its own files may lie below a context before the whole is copied anew: what was removed or changed
still takes its room."""
_WASTE_FILES, _WASTE_BYTES = 1_000, 64 << 20
"""What may lie there in any case."""
_KEPT_TREES = 16
"""Contexts whose content hashes are kept in memory: a build may still ask for those of the version before."""


@dataclass(slots=True)
class _Context:
    """A context as it was last seen."""

    ref: Ref
    state: State
    tree: Tree


@dataclass(frozen=True, slots=True)
class _Found:
    """What the shim says of a folder: `files` and `size` of all of it, the others of what was not as known."""

    files: int
    size: int
    changed: int
    copies: int
    bytes: int
    removed: int
    withheld: list[str]


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder and the part of it that a source wants; `key` names both, and begins with `prefix`, which names the folder."""

    directory: LocalDirectory
    name: str
    prefix: str
    key: str
    patterns: dict[str, list[str]]

    @classmethod
    def of(cls, source: keys.LocalSource, directory: LocalDirectory) -> _Folder:
        """The folder of a source."""
        same = [
            source.name, source.shared_key_hint, directory.path, directory.shared_key, *sorted(directory.files or ()),
        ]  # fmt: skip
        patterns = {
            "include": list(source.include or ()), "exclude": list(source.exclude or ()),
            "follow": list(source.follow or ()), "withheld": list(directory.withheld),
        }  # fmt: skip
        prefix = Digest.of_text(json.dumps(same)).hex[:32]
        key = f"{prefix}-{Digest.of_text(json.dumps(patterns)).hex[:32]}"
        return cls(directory, source.name, prefix, key, patterns)


class LocalSource:
    """Makes contexts, and remembers them."""

    schemes: tuple[str, ...] = ("local",)

    def __init__(self, refs: RefStore, shim: Shim, folder: str) -> None:
        self._refs = refs
        self._shim = shim
        self._journal = Journal(Path(folder))
        self._contexts: dict[str, _Context] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._trees: dict[str, Tree] = {}

    async def cache_maps(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """One map, which nothing matches."""
        key = keys.LocalSource.parse(_source(vertex).identifier, _source(vertex).attrs).key(job.session.id)
        yield CacheMap(keys.source_digest(key), plaintext=key)

    def tree(self, ref: Ref) -> Tree | None:
        """The content hashes of a result of this source; None for any other result."""
        return self._trees.get(ref.id)

    async def snapshot(self, vertex: Vertex, job: Job) -> Ref:
        """Bring the context up to date and return it.

        Raises:
            SourceError: the client has no such folder, or it is gone.
            PathError: a wanted file cannot be read.
        """
        op = _source(vertex)
        source = keys.LocalSource.parse(op.identifier, op.attrs)
        directory = await job.session.local(source.name)
        if directory is None:
            raise SourceError(
                f"the client gave no folder called {source.name!r}: say CONTEXT, or --build-context {source.name}=FOLDER"
            )
        if directory.files is None and not os.path.isdir(directory.path):
            raise SourceError(
                f"the context {directory.path} is not a folder: say which folder COPY shall read"
            )
        folder = _Folder.of(source, directory)
        async with self._locks.setdefault(folder.key, asyncio.Lock()):
            return await self._update(folder, vertex, job)

    async def _update(self, folder: _Folder, vertex: Vertex, job: Job) -> Ref:
        started = time.time()
        before = context = await self._known(folder)
        if before is not None:
            self._contexts[folder.key] = before
        found = await self._look(folder, context)
        if context is not None and (found.changed or found.removed) and _is_wasteful(context.state, found):
            context = None
            found = await self._look(folder, None)
        if found.withheld:
            withheld = tuple(found.withheld)
            job.emit(DecisionEvent(0, vertex.digest, Phase.FILTER, "withheld", withheld, time.time()))
        job.annotate(note=_count(found))
        self._progress(job, vertex, folder.name, 0, found.bytes, started)
        if context is None or found.changed or found.removed:
            context = await self._copy(folder, context, found)
        self._contexts[folder.key] = context
        if before is not None and before is not context:
            await before.ref.release()
        self._trees[context.ref.id] = context.tree
        while len(self._trees) > _KEPT_TREES:
            del self._trees[next(iter(self._trees))]
        self._progress(job, vertex, folder.name, found.bytes, found.bytes, started, completed=time.time())
        return context.ref.clone()

    def remembered(self, source: keys.LocalSource, directory: LocalDirectory) -> list[Row]:
        """What is written down of a folder's files as they were copied last, for who only wants to know of them."""
        folder = _Folder.of(source, directory)
        state = self._journal.latest(folder.key) or self._journal.beside(folder.prefix)
        return (self._journal.rows(state.ref) if state is not None else None) or []

    # --- looking ---

    async def _look(self, folder: _Folder, context: _Context | None) -> _Found:
        """Have the folder walked, and compared with what it was."""
        if folder.directory.files is not None:
            return _Found(0, 0, 0, 0, 0, 0, [])
        state = context.state.ref if context is not None else ""
        asked: dict[str, Any] = {"key": folder.key, "state": state, "source": folder.directory.path, **folder.patterns}
        answer = await self._shim.call("contexts.look", **asked)
        if answer is None:  # the shim is a new one, or another kernel's context is gone on with
            rows = await asyncio.to_thread(self._journal.rows, state)
            seen = [[row[0], row[5], _hard_link(row)] for row in rows or ()]
            answer = await self._shim.call("contexts.look", **asked, seen=seen)
        return _Found(**answer)

    async def _known(self, folder: _Folder) -> _Context | None:
        """The context as it was last seen, if its files are still there; else the folder's, with other patterns."""
        context = self._contexts.get(folder.key)
        if context is not None:
            found = await self._refs.get(context.ref.id)
            if found is not None:
                await found.release()
                return context
            del self._contexts[folder.key]
            await context.ref.release()
        for look, name in ((self._journal.latest, folder.key), (self._journal.beside, folder.prefix)):
            state = await asyncio.to_thread(look, name)
            ref = await self._refs.get(state.ref) if state is not None else None
            rows = await asyncio.to_thread(self._journal.rows, ref.id) if ref is not None else None
            if state is not None and ref is not None and rows is not None:
                return _Context(ref, state, await asyncio.to_thread(_tree, rows))
            if ref is not None:
                await ref.release()
        return None

    # --- copying ---

    async def _copy(self, folder: _Folder, context: _Context | None, found: _Found) -> _Context:
        """A new state: what had changed is copied on top of what was there."""
        base = context.ref if context is not None else None
        mutable = await self._refs.new(base, description=f"local source for {folder.name}", kind="source.local")
        try:
            answer: dict[str, Any] = {"rows": [], "removed": []}
            if folder.directory.files is None:
                target = [mount.to_json() for mount in await mutable.mounts()]
                answer = await self._shim.call("contexts.sync", key=folder.key, state=mutable.id, target=target)
            if answer is None:
                raise SourceError("the process that copies files was started anew meanwhile: build again")
            ref = await mutable.commit()
        finally:
            await mutable.discard()
        rows: list[Row] = answer["rows"]
        state = _next(context.state if context is not None else None, ref.id, rows)
        await asyncio.to_thread(self._write, folder.key, state, answer["removed"], rows)
        if context is None:
            return _Context(ref, state, await asyncio.to_thread(_tree, rows))
        tree = await asyncio.to_thread(context.tree.changed, answer["removed"], map(_entry, rows))
        return _Context(ref, state, tree)

    def _write(self, key: str, state: State, removed: Collection[str], rows: Collection[Row]) -> None:
        self._journal.save(state, removed, rows)
        self._journal.point(key, state.ref)

    def _progress(
        self, job: Job, vertex: Vertex, name: str, current: int, total: int, started: float,
        completed: float | None = None,
    ) -> None:  # fmt: skip
        text = f"transferring {name}:"
        job.emit(StatusEvent(vertex.digest, text, current, total, time.time(), text, started, completed))

    # --- pruning ---

    def idle(self) -> list[str]:
        """Ids of the contexts that are held only to be at hand for the next build."""
        busy = {key for key, lock in self._locks.items() if lock.locked()}
        return [context.ref.id for key, context in self._contexts.items() if key not in busy]

    async def let_go(self, id: str) -> None:
        """A context is going to be pruned, if nobody else holds it; it is still known by its file."""
        for key, context in list(self._contexts.items()):
            if context.ref.id == id and not self._locks[key].locked():
                del self._contexts[key]
                await context.ref.release()

    def tidy(self, gone: Collection[str]) -> None:
        """Remove what was kept of contexts whose record is gone."""
        for id in gone:
            self._trees.pop(id, None)
        self._journal.forget(gone)

    async def aclose(self) -> None:
        """Let go of the contexts; they stay in the store."""
        contexts, self._contexts = self._contexts, {}
        self._trees.clear()
        for context in contexts.values():
            await context.ref.release()


def _is_wasteful(state: State, found: _Found) -> bool:
    """Whether more lies below a context than copying all of it anew would cost once in a while."""
    return (
        state.depth >= _MAX_DEPTH
        or state.rows + found.changed > _MAX_WASTE * found.files + _WASTE_FILES
        or state.bytes + found.bytes > _MAX_WASTE * found.size + _WASTE_BYTES
    )


def _next(before: State | None, ref: str, rows: Collection[Row]) -> State:
    """The state that follows one, with what was copied for it."""
    size = sum(row[2] for row in rows)
    if before is None:
        return State(ref, rows=len(rows), bytes=size)
    return State(ref, before.ref, before.depth + 1, before.rows + len(rows), before.bytes + size)


def _count(found: _Found) -> str:
    """The context in a few words: ``looked at 412 files, copied 1 (1.0 kB), removed 2``."""
    text = f"looked at {found.files:,} file{'' if found.files == 1 else 's'}"
    text += f", copied {found.copies:,} ({_size(found.bytes)})" if found.copies else ", copied none"
    return text + (f", removed {found.removed:,}" if found.removed else "")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _tree(rows: Iterable[Row]) -> Tree:
    """The content hashes of a context: of a tree that was streamed, owned by 0:0."""
    return Tree.streamed(map(_entry, rows))


def _entry(row: Row) -> tuple[str, Entry]:
    path, mode, size, linkname, device, _, digest, xattrs = row
    numbers = (os.major(device), os.minor(device)) if device else (0, 0)
    return path, Entry(mode, 0, 0, size, linkname, numbers, xattrs or None, digest)


def _hard_link(row: Row) -> str:
    """What a path is a hard link of, as the walk compares it; "" for what is none."""
    return "" if (row[1] & 0o170000) == 0o120000 else row[3]


def _source(vertex: Vertex) -> SourceOp:
    assert isinstance(vertex.op, SourceOp)
    return vertex.op
