"""What a plan is told by the builder in this kernel: images by their registry, files where they lie.

Nothing is copied, pulled or unpacked. Of a folder of the client only those files are read whose digests some step's
key needs; of a result that the cache has, those of a snapshot that is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bknb import beneath
from bknb.cache.contenthash import Entry, Tree
from bknb.cache.listing import Listing
from bknb.cache.refs import DiskRefStore
from bknb.digest import Digest
from bknb.errors import PathError, SourceError, UnsupportedError
from bknb.keys import ContentSelector
from bknb.keys.source import LocalSource
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.protocols import CacheMap, Job, LocalDirectory, Session
from bknb.shim import tarsum
from bknb.shim.server import Failure
from bknb.shim.sieve import Sieve
from bknb.shim.walking import Known, Walk, signature
from bknb.source.journal import Row
from bknb.worker.content import ContentHasher

_CHUNK: Final = 1 << 20
_NOT_COPIED: Final = ("com.apple.", "user.bknb.")


class Remembers(Protocol):
    """The source of folders, as far as what it knows of their files."""

    def remembered(self, source: LocalSource, directory: LocalDirectory) -> Sequence[Row]:
        """What is known of a folder's files from when they were copied last."""


class Keyed(Protocol):
    """A kind of source, as far as its keys."""

    schemes: tuple[str, ...]

    def cache_maps(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """Its keys, cheap first."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the client as a ``local://`` source wants it.

    Attributes:
        directory: where it lies.
        paths: what a build would take of it, relative to it.
        excluded: patterns of .dockerignore.
        withheld: what the session keeps back.
        tree: the content hashes, as far as they were needed.
    """

    directory: LocalDirectory
    paths: frozenset[str]
    excluded: tuple[str, ...]
    withheld: tuple[str, ...]
    tree: Tree


@dataclass(slots=True)
class BuilderFacts:
    """Implements `predict.Facts`.

    Attributes:
        session: names the client's folders.
        sources: give the keys of images and the like.
        local: knows the digests of files that are as they were.
        refs: holds results.
        hasher: hashes the files of those that are there.
        note: told of each content key and of how to make the list of files that it stands for.
        touched: absolute paths of files that shall count as changed.
        folders: what was looked at of the client, by vertex.
    """

    session: Session
    sources: Sequence[Keyed]
    local: Remembers
    refs: DiskRefStore
    hasher: ContentHasher
    note: Callable[[str, str], None]
    touched: Collection[str] = ()
    folders: dict[Digest, Folder] = field(default_factory=dict)

    async def keys(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """As a build is given them; a registry is asked for names and documents."""
        identifier = _source(vertex).identifier
        found = [one for one in self.sources if identifier.partition("://")[0] in one.schemes]
        if not found:
            raise UnsupportedError(
                f"sources like {identifier[:80]} are not there yet: images and local folders are"
            )
        async for cache_map in found[0].cache_maps(vertex, job):
            yield cache_map

    async def content(
        self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
    ) -> Digest | None:
        """Of a folder of the client, or of a result that is unpacked; None of anything else."""
        if isinstance(vertex.op, SourceOp) and vertex.op.identifier.startswith("local://"):
            folder = await self._folder(vertex)
            return await asyncio.to_thread(self._digest, folder, selectors)
        record = self.refs.records.find(result) if result else None
        if record is None or not record.snapshot:
            return None
        ref = await self.refs.get(result)
        if ref is None:
            return None
        try:
            return await self.hasher.digest(ref, selectors)
        finally:
            await ref.release()

    def missing(self, results: Collection[str]) -> Collection[str]:
        """Those that cannot become files any more."""
        return self.refs.missing(results)

    async def _folder(self, vertex: Vertex) -> Folder:
        known = self.folders.get(vertex.digest)
        if known is None:
            op = _source(vertex)
            source = LocalSource.parse(op.identifier, op.attrs)
            directory = await self.session.local(source.name)
            if directory is None:
                raise SourceError(f"the client gave no folder called {source.name!r}")
            known = self.folders[vertex.digest] = await asyncio.to_thread(
                _look, source, directory, self.local
            )
            for path in known.paths:
                if os.path.join(directory.path, path) in self.touched:
                    known.tree.learn({path: Digest.of(b"touched " + os.fsencode(path))})
        return known

    def _digest(self, folder: Folder, selectors: Sequence[ContentSelector]) -> Digest:
        missing = folder.tree.missing(selectors)
        if missing:
            folder.tree.learn(_hashes(folder.directory.path, missing))
        digest = folder.tree.digest(selectors)
        self.note(digest, Listing.of(folder.tree.files(selectors)).to_text())
        return digest


def _look(source: LocalSource, directory: LocalDirectory, local: Remembers) -> Folder:
    """Walk a folder as a build has it walked; no file's content is read."""
    excluded = source.exclude or ()
    if directory.files is not None:
        return Folder(directory, frozenset(), excluded, (), Tree())
    if not os.path.isdir(directory.path):
        raise SourceError(f"the context {directory.path} is not a folder: say which folder COPY shall read")
    try:
        sieve = Sieve(directory.path, source.include or (), excluded, source.follow or (), directory.withheld)
        found = Walk(directory.path, sieve, Known(), lambda: None).run()
    except Failure as failure:
        raise (SourceError if failure.kind == "SourceError" else PathError)(str(failure)) from None
    paths = [f"{folder}/{name}".lstrip("/") for folder, names in found.changed.items() for name in names]
    rows = {row[0]: row for row in local.remembered(source, directory)} if paths else {}
    root = beneath.open_root(directory.path)
    try:
        entries = [
            (path, _entry(root, path, found.links.get(path, ""), rows.get(path))) for path in sorted(paths)
        ]
    finally:
        os.close(root)
    tree = Tree.of((path, entry) for path, entry in entries if entry is not None)
    return Folder(directory, frozenset(paths), excluded, tuple(found.withheld), tree)


def _entry(root: int, path: str, link: str, row: Row | None) -> Entry | None:
    """What the content hash needs of a file, with its digest if it is as it was when that was taken; None if it is gone.

    Args:
        root: of the folder.
        path: in it.
        link: the earlier path that it is a hard link of.
        row: what is known of it.
    """
    try:
        info = beneath.stat(root, path, follow=False)
        if stat.S_ISLNK(info.st_mode):
            return Entry(info.st_mode, linkname=beneath.readlink(root, path))
    except FileNotFoundError:
        return None
    if link:
        return Entry(info.st_mode, linkname=link)
    if not stat.S_ISREG(info.st_mode):
        special = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
        return Entry(
            info.st_mode, device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if special else (0, 0),
            xattrs=_xattrs(root, path) if stat.S_ISDIR(info.st_mode) else None,
        )  # fmt: skip
    if row is not None and row[5] == signature(info) and not row[3]:
        return Entry(info.st_mode, size=info.st_size, xattrs=row[7] or None, digest=row[6])
    return Entry(info.st_mode, size=info.st_size, xattrs=_xattrs(root, path))


def _xattrs(root: int, path: str) -> dict[str, bytes] | None:
    """Extended attributes as a copy of the file would have them (`bknb.shim.contexts`)."""
    try:
        fd = beneath.open(root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # whoever needs its bytes says so
        return None
    try:
        names = [n for n in os.listxattr(fd) if tarsum.counts(n) and not n.startswith(_NOT_COPIED)]
        return {name: os.getxattr(fd, name) for name in names} or None
    except OSError:
        return None
    finally:
        os.close(fd)


def _hashes(path: str, missing: Mapping[str, bytes]) -> dict[str, str]:
    """The content hashes of some files of a folder: of their headers and bytes."""
    found: dict[str, str] = {}
    root = beneath.open_root(path)
    try:
        for name, header in missing.items():
            inside = name.lstrip("/")
            hasher = hashlib.sha256(header)
            try:
                _feed(hasher, root, inside)
            except OSError as error:
                raise PathError(
                    f"cannot read {inside} of the context {path} ({error.strerror}): make it readable, or put it in .dockerignore"
                ) from None
            found[name] = f"sha256:{hasher.hexdigest()}"
    finally:
        os.close(root)
    return found


def _feed(hasher: hashlib._Hash, root: int, path: str) -> None:
    fd = beneath.open(root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        while data := os.read(fd, _CHUNK):
            hasher.update(data)
    finally:
        os.close(fd)


def _source(vertex: Vertex) -> SourceOp:
    assert isinstance(vertex.op, SourceOp)
    return vertex.op
