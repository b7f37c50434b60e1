"""``local://``: a folder of the client as a result.

A context is kept as a chain of snapshots: the first holds every file, each later one what had changed. A build
that finds nothing changed makes nothing. What is copied is hashed on its way, so the digests that the cache
sees are those of the bytes that were copied, whatever happens to the originals meanwhile; the signature that
is compared next time is taken from the open file before its bytes are read.

The key of a context is random (solver/source: "session:..." keys): a context never matches by its definition,
only the content of what is copied out of it can.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bknb.cache import contenthash
from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.events import DecisionEvent, Phase, StatusEvent
from bknb.keys import source as keys
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, LocalDirectory, Ref, RefStore, Shim
from bknb.source.scan import ContextFilter, Entry, Scan, scan

_FORMAT = 1
_MAX_CHAIN = 100
"""Context snapshots on top of each other before the whole is copied anew: removed files still take their room."""
_KEPT_TREES = 16
"""Contexts whose content hashes are kept in memory: a build may still ask for those of the version before."""


@dataclass(frozen=True, slots=True)
class ContextFile:
    """What is kept of one file of a context: what the content hash needs, and the signature it had.

    `digest` is the content hash of a regular file, header and bytes; `linkname` as in `scan.Entry`.
    """

    path: str
    mode: int
    size: int
    linkname: str
    device: int
    signature: tuple[int, ...]
    digest: str = ""
    xattrs: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Context:
    """A context as it was last seen."""

    ref: Ref
    files: dict[str, ContextFile]
    depth: int = 1


class _Saved(msgspec.Struct):
    format: int
    ref: str
    depth: int
    files: list[ContextFile]


class _Head(msgspec.Struct):
    ref: str


class LocalSource:
    """Makes contexts, and remembers them."""

    schemes: tuple[str, ...] = ("local",)

    def __init__(self, refs: RefStore, shim: Shim, folder: str) -> None:
        self._refs = refs
        self._shim = shim
        self._folder = Path(folder)
        self._contexts: dict[str, _Context] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._trees: dict[str, contenthash.Tree] = {}

    async def cache_maps(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """One map, which nothing matches."""
        key = keys.LocalSource.parse(_source(vertex).identifier, _source(vertex).attrs).key(job.session.id)
        yield CacheMap(keys.source_digest(key), plaintext=key)

    def tree(self, ref: Ref) -> contenthash.Tree | None:
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
        name = source.name
        directory = await job.session.local(name)
        if directory is None:
            raise SourceError(
                f"the client gave no folder called {name!r}: say CONTEXT, or --build-context {name}=FOLDER"
            )
        wanted = _filter(source, directory)
        if directory.files is None and not os.path.isdir(directory.path):
            raise SourceError(
                f"the context {directory.path} is not a folder: say which folder COPY shall read"
            )
        same = [
            name,
            source.shared_key_hint,
            directory.path,
            directory.shared_key,
            *sorted(directory.files or ()),
        ]
        key = Digest.of_text(json.dumps(same)).hex
        async with self._locks.setdefault(key, asyncio.Lock()):
            return await self._sync(key, directory, wanted, vertex, job)

    async def _sync(
        self, key: str, directory: LocalDirectory, wanted: ContextFilter, vertex: Vertex, job: Job
    ) -> Ref:
        started = time.time()
        found = await asyncio.to_thread(scan, directory.path, wanted) if directory.files is None else Scan()
        if found.withheld:
            job.emit(
                DecisionEvent(0, vertex.digest, Phase.FILTER, "withheld", tuple(found.withheld), time.time())
            )
        context = await self._known(key)
        before = context.files if context is not None else {}
        changed, removed = _difference(before, found.entries)
        size = sum(entry.size for entry in changed)
        job.annotate(note=_count(len(found.entries), len(changed), len(removed), first=context is None))
        self._progress(job, vertex, directory, 0, size, started)
        if context is None or changed or removed:
            context = await self._copy(directory, wanted, context, found, changed, removed, vertex)
            previous = self._contexts.pop(key, None)
            if previous is not None:
                await previous.ref.release()
            await asyncio.to_thread(self._save, key, context)
        self._contexts[key] = context
        if context.ref.id not in self._trees:
            self._trees[context.ref.id] = await asyncio.to_thread(_tree, context.files)
            while len(self._trees) > _KEPT_TREES:
                del self._trees[next(iter(self._trees))]
        self._progress(job, vertex, directory, size, size, started, completed=time.time())
        return context.ref.clone()

    async def _known(self, key: str) -> _Context | None:
        """The context as it was last seen, if its files are still there."""
        context = self._contexts.get(key)
        if context is None:
            context = await self._restore(key)
            if context is not None:
                self._contexts[key] = context
            return context
        found = await self._refs.get(context.ref.id)
        if found is None:
            return None
        await found.release()
        return context

    async def _copy(
        self, directory: LocalDirectory, wanted: ContextFilter, context: _Context | None, found: Scan,
        changed: Sequence[Entry], removed: Sequence[str], vertex: Vertex,
    ) -> _Context:  # fmt: skip
        fresh = context is None or context.depth >= _MAX_CHAIN
        base = None if context is None or fresh else context.ref
        copies = found.entries if fresh else changed
        name = _source(vertex).identifier.removeprefix("local://")
        mutable = await self._refs.new(base, description=f"local source for {name}", kind="source.local")
        try:
            answer: list[list[Any]] = await self._shim.call(
                "contexts.sync", source=directory.path, target=[m.to_json() for m in await mutable.mounts()],
                remove=[] if fresh else list(removed), copy=[[e.path, e.linkname if not _is_link(e) else ""] for e in copies],
            )  # fmt: skip
            ref = await mutable.commit()
        finally:
            await mutable.discard()
        files = {} if fresh or context is None else dict(context.files)
        for path in removed:
            files.pop(path, None)
        for path, mode, size, linkname, device, signature, digest, xattrs in answer:
            files[path] = ContextFile(
                path,
                mode,
                size,
                linkname,
                device,
                tuple(signature),
                digest,
                {k: bytes.fromhex(v) for k, v in xattrs.items()},
            )
        return _Context(ref, files, 1 if fresh or context is None else context.depth + 1)

    def _progress(
        self,
        job: Job,
        vertex: Vertex,
        directory: LocalDirectory,
        current: int,
        total: int,
        started: float,
        completed: float | None = None,
    ) -> None:
        name = _source(vertex).identifier.removeprefix("local://")
        job.emit(
            StatusEvent(
                vertex.digest,
                f"transferring {name}:",
                current,
                total,
                time.time(),
                f"transferring {name}:",
                started,
                completed,
            )
        )

    async def _restore(self, key: str) -> _Context | None:
        """The context as an earlier kernel left it."""
        try:
            saved = msgspec.msgpack.decode(
                await asyncio.to_thread((self._folder / key).read_bytes), type=_Saved
            )
        except (OSError, msgspec.DecodeError):
            return None
        ref = await self._refs.get(saved.ref) if saved.format == _FORMAT else None
        return None if ref is None else _Context(ref, {file.path: file for file in saved.files}, saved.depth)

    def _save(self, key: str, context: _Context) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        data = msgspec.msgpack.encode(
            _Saved(_FORMAT, context.ref.id, context.depth, list(context.files.values()))
        )
        draft = self._folder / f".{key}.{os.getpid()}"
        draft.write_bytes(data)
        draft.replace(self._folder / key)

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
        for path in self._folder.glob("*") if gone else ():
            try:
                if msgspec.msgpack.decode(path.read_bytes(), type=_Head).ref in gone:
                    path.unlink()
            except (OSError, msgspec.DecodeError):
                continue

    async def aclose(self) -> None:
        """Let go of the contexts; they stay in the store."""
        contexts, self._contexts = self._contexts, {}
        self._trees.clear()
        for context in contexts.values():
            await context.ref.release()


def _count(files: int, changed: int, removed: int, *, first: bool) -> str:
    """The context in a few words: ``412 files, 1 changed``."""
    text = f"{files} file{'' if files == 1 else 's'}"
    if first:
        return text
    parts = [f"{number} {word}" for number, word in ((changed, "changed"), (removed, "removed")) if number]
    return f"{text}, {' and '.join(parts) or 'none changed'}"


def _tree(files: Mapping[str, ContextFile]) -> contenthash.Tree:
    """The content hashes of a context: of a tree that was streamed, owned by 0:0."""
    return contenthash.Tree.of(
        (
            file.path,
            contenthash.Entry(
                file.mode, size=file.size, linkname=file.linkname, device=(os.major(file.device), os.minor(file.device)),
                xattrs=file.xattrs or None, digest=file.digest,
            ),
        )
        for file in files.values()
    )  # fmt: skip


def _is_link(entry: Entry) -> bool:
    return (entry.mode & 0o170000) == 0o120000


def _difference(before: Mapping[str, ContextFile], entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Entries that are new or may have changed, and paths that are gone or have become another kind."""
    now = {entry.path for entry in entries}
    removed = [path for path in before if path not in now]
    changed = []
    for entry in entries:
        known = before.get(entry.path)
        if known is None or known.signature != entry.signature or known.linkname != entry.linkname:
            changed.append(entry)
    return changed, removed


def _source(vertex: Vertex) -> SourceOp:
    assert isinstance(vertex.op, SourceOp)
    return vertex.op


def _filter(wanted: keys.LocalSource, directory: LocalDirectory) -> ContextFilter:
    return ContextFilter(wanted.include or (), wanted.exclude or (), wanted.follow or (), directory.withheld)
