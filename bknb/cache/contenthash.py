"""The content checksum of trees of files: what a COPY is keyed by (cache/contenthash of BuildKit).

A `Tree` holds one `Entry` for each path and answers queries (`ContentSelector`) with digests:

- of a file: of its header and its bytes (`bknb.shim.tarsum`);
- of a folder: of each child's name and digest in byte order, its own header first;
- of a selection by wildcards or filters: of the selected paths and their digests.

Symlinks in the middle of a path are followed inside of the tree; the last one where the query says so. A
digest of a file that is not known yet is asked for: `missing` names the files that some queries need and
the header that each digest begins with, the caller hashes them and tells `learn`. So only what is used is
ever read.

Paths are text with surrogate escapes for bytes that are not UTF-8, absolute, "" for the root. They are
sorted as BuildKit sorts them: as bytes, with a NUL for each slash, and a folder's header under its path
with a NUL behind.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from bknb.cache.selection import Selected, Selection, split_wildcards
from bknb.digest import Digest
from bknb.errors import PathError
from bknb.keys.selectors import ContentSelector, base_name
from bknb.shim.tarsum import header

EMPTY: Final = Digest.of(b"")
_MAX_LINKS: Final = 255


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One path of a tree.

    Attributes:
        mode: st_mode, with the type.
        size: of a regular file, in bytes.
        linkname: where a symlink points; of anything else in a stream: the path that it is a hard link to.
        device: major and minor number; 0, 0 for trees on disk, whatever they are (see `tarsum.header`).
        xattrs: by name; those that do not count may be left out.
        digest: of header and bytes, "" where it is not known; computed where there are no bytes.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    linkname: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] | None = None
    digest: str = ""

    @property
    def header(self) -> bytes:
        """What its digest begins with."""
        return header(self.mode, self.uid, self.gid, self.size, self.linkname, self.device, self.xattrs)


class _Record(msgspec.Struct, gc=False):
    """What the tree keeps of a path. A folder has two: of itself and, a NUL behind, of its header."""

    entry: Entry | None
    batch: int = 0
    digest: str = ""
    folder: bool = False

    @property
    def link(self) -> str | None:
        """Where a symlink points; None for anything else."""
        entry = self.entry
        return entry.linkname if entry is not None and stat.S_ISLNK(entry.mode) else None


def scratch_digest(selectors: Sequence[ContentSelector]) -> Digest:
    """The content key of an input that is empty: what `Tree.digest` is for one that is not.

    Raises:
        PathError: a query names anything but the root.
    """
    for selector in selectors:
        if clean(selector.path):
            raise PathError(f"{clean(selector.path)}: no such file or directory")
    return Digest.of_text("\0".join([EMPTY] * max(len(selectors), 1)))


def to_key(path: str) -> bytes:
    """A path as it is sorted: slashes are NULs."""
    return os.fsencode(path).replace(b"/", b"\0")


def to_path(key: bytes) -> str:
    """The path of a key."""
    return os.fsdecode(key.replace(b"\0", b"/"))


def clean(path: str) -> str:
    """Absolute, without trailing slash; "" for the root."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return "" if cleaned == "/" else cleaned


class Tree:
    """The content hashes of one tree of files.

    Args:
        root: the entry of "/" for a tree on disk; None for a streamed one, whose root has no header.
    """

    def __init__(self, root: Entry | None = None) -> None:
        self._records: dict[bytes, _Record] = {b"": _Record(None, folder=True)}
        self._records[b"\0"] = _Record(root, digest=EMPTY if root is None else "")
        self._links: dict[str, list[bytes]] = {}
        self._sorted: list[bytes] | None = None
        # Changes between two questions are one batch. A folder that is removed takes with it what was there
        # before the batch, as BuildKit's transaction does (HandleChange).
        self._batch = 1
        self._changed: set[bytes] = set()
        self._missing: dict[bytes, Entry] = {}

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Entry]]) -> Tree:
        """The tree of some paths; one of them, "/", may be the root."""
        tree = cls()
        for path, entry in entries:
            if clean(path):
                tree.add(path, entry)
            else:
                tree._records[b"\0"] = _Record(entry, digest=entry.digest)
        return tree

    @classmethod
    def streamed(cls, entries: Iterable[tuple[str, Entry]]) -> Tree:
        """As `of`, of many paths that are clean already and have all folders above them among them."""
        tree = cls()
        records, links = tree._records, []
        for path, entry in entries:
            key = b"\0" + os.fsencode(path).replace(b"/", b"\0")
            if stat.S_ISDIR(entry.mode):
                records[key] = _Record(None, 1, "", True)
                records[key + b"\0"] = _Record(entry, 1, entry.digest)
            elif entry.linkname and not stat.S_ISLNK(entry.mode):
                links.append((path, entry))
            else:
                records[key] = _Record(entry, 1, entry.digest)
        for path, entry in links:
            tree.add(path, entry)
        return tree

    def changed(self, removed: Iterable[str], entries: Iterable[tuple[str, Entry]]) -> Tree:
        """Another tree: this one without some paths, with others or what they have become.

        What is as it was is shared, with the digests that are known of it.
        """
        self._settle()
        tree = Tree()
        tree._records = self._records.copy()
        tree._links = {target: list(keys) for target, keys in self._links.items()}
        tree._sorted = self._sorted
        tree._batch = self._batch + 1
        for path in removed:
            tree.remove(path)
        for path, entry in entries:
            tree.add(path, entry)
        tree._settle()
        return tree

    # --- what there is ----------------------------------------------------------------------------------

    def add(self, path: str, entry: Entry) -> None:
        """Take a path, or what it has become; the folders above it are expected to be added too."""
        name = clean(path)
        key = to_key(name)
        known = self._records.get(key)
        folder = stat.S_ISDIR(entry.mode)
        if known is not None and known.folder and known.batch < self._batch and not folder:
            self._remove_below(key)
        if known is None or known.folder != folder:
            self._sorted = None
        record = _Record(entry, self._batch, digest=entry.digest)
        if folder:
            self._records[key] = _Record(None, self._batch, folder=True)
            self._records[key + b"\0"] = record
        else:
            record = self._hard_link(key, record)
            self._records[key] = record
            for link in self._links.pop(name, ()):
                if link != key:
                    self._records[link] = record
                    self._changed.add(link)
        self._changed.add(key)

    def _hard_link(self, key: bytes, record: _Record) -> _Record:
        """A hard link has the record of what it is linked to, which may also come later."""
        entry = record.entry
        assert entry is not None
        if not entry.linkname or record.link is not None:
            return record
        target = clean(entry.linkname)
        self._links.setdefault(target, []).append(key)
        return self._records.get(to_key(target), record)

    def remove(self, path: str) -> None:
        """A path, and all below it, is no more."""
        key = to_key(clean(path))
        record = self._records.pop(key, None)
        if record is not None and record.folder:
            self._remove_below(key)
        self._sorted = None
        self._changed.add(key)

    def _remove_below(self, key: bytes) -> None:
        prefix = key + b"\0"
        for below in [other for other in self._records if other.startswith(prefix)]:
            if self._records[below].batch < self._batch:
                del self._records[below]
        self._sorted = None

    def _settle(self) -> None:
        """End a batch of changes: every folder above a change has to be digested anew.

        What others lie in is a folder from now on, even if the batch has made a file of it: BuildKit's
        commitActiveTransaction does so.
        """
        if not self._changed:
            return
        self._batch += 1
        above: set[bytes] = set()
        for key in self._changed:
            parent = key.rpartition(b"\0")[0]
            while parent not in above:
                above.add(parent)
                parent = parent.rpartition(b"\0")[0]
        for key in above:
            if key in self._records:
                self._records[key] = _Record(None, self._batch - 1, folder=True)
        self._changed.clear()

    def learn(self, digests: Mapping[str, str]) -> None:
        """Digests of header and bytes, of files that `missing` named."""
        for path, digest in digests.items():
            record = self._records.get(to_key(clean(path)))
            if record is not None and not record.folder:
                record.digest = digest

    # --- questions --------------------------------------------------------------------------------------

    def missing(self, selectors: Sequence[ContentSelector]) -> dict[str, bytes]:
        """Files whose digests some queries need and that are not known: path -> header to begin with.

        Raises:
            PathError: a query names what is not there.
        """
        self._missing.clear()
        for selector in selectors or (ContentSelector(),):
            self._query(selector)
        return {to_path(key): entry.header for key, entry in self._missing.items()}

    def digest(self, selectors: Sequence[ContentSelector]) -> Digest:
        """The content key of an input: its queries' digests joined (ops/opsutils/contenthash.go); () is all.

        Raises:
            PathError: a query names what is not there.
            ValueError: files that `missing` named have not been learned.
        """
        return Digest.of_text("\0".join(self.checksum(query) for query in selectors or (ContentSelector(),)))

    def checksum(self, query: ContentSelector) -> Digest:
        """The digest of one query.

        Raises:
            PathError: it names what is not there, or too many symlinks.
            ValueError: files that `missing` named have not been learned.
        """
        digest = self._query(query)
        if not digest:
            raise ValueError(f"{len(self._missing)} files have not been hashed")
        return Digest(digest)

    def files(
        self, selectors: Sequence[ContentSelector], limit: int = sys.maxsize
    ) -> dict[str, tuple[Entry, str]]:
        """The paths whose headers and bytes `digest` is taken of, with the digest of each; so many at most.

        Raises:
            PathError: a query names what is not there.
        """
        found: dict[str, tuple[Entry, str]] = {}
        for query in selectors or (ContentSelector(),):
            if not query.filtered:
                self._take(*self._resolve(to_key(clean(query.path)), query.follow_links), found, limit)
                continue
            for one in self._select(query)[1]:
                key = to_key(clean(one.path))
                if one.head:
                    key += b"\0"
                    self._take(key, self._records.get(key), found, limit)
                else:
                    self._take(*self._resolve(key, one.follow and query.follow_links), found, limit)
        return found

    def _take(
        self, key: bytes, record: _Record | None, found: dict[str, tuple[Entry, str]], limit: int
    ) -> None:
        """A record, and those below it where it is what is in a folder."""
        keys, prefix = self._keys(), key + b"\0"
        place = bisect_left(keys, prefix) if record is not None and record.folder else len(keys)
        name, one = key, record
        while len(found) < limit:
            if one is not None and one.entry is not None:
                found[to_path(name).rstrip("/") or "/"] = (one.entry, one.digest)
            if place >= len(keys) or not keys[place].startswith(prefix):
                return
            name, one = keys[place], self._records[keys[place]]
            place += 1

    def _query(self, query: ContentSelector) -> str:
        """As `checksum`; "" if it needs a file's digest that is not known."""
        self._settle()
        if not query.filtered:
            return self._checksum(to_key(clean(query.path)), query.follow_links)[1]
        prefix, selected = self._select(query)
        for one in selected:
            if one.follow and one.link:
                one.digest = self._checksum(to_key(clean(one.path)), query.follow_links)[1]
        if not selected:
            return EMPTY
        if len(selected) == 1 and base_name(query.path or "/") == base_name(selected[0].path):
            return selected[0].digest
        if not all(one.digest for one in selected):
            return ""
        parts = [(to_key(one.path.removeprefix(prefix)) or b"\0") + one.digest.encode() for one in selected]
        return Digest.of(b"".join(parts))

    def _keys(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self._records)
        return self._sorted

    def _checksum(self, key: bytes, follow: bool) -> tuple[_Record, str]:
        """The record that a key leads to, and its digest ("" if that needs a file's that is not known)."""
        found, record = self._resolve(key, follow)
        if record is None:
            raise PathError(f'"{to_path(key)}": not found')
        if not record.digest:
            if record.folder:
                self._digest_folders(found)
            else:
                self._digest_file(found, record)
        return record, record.digest

    def _digest_file(self, key: bytes, record: _Record) -> None:
        entry = record.entry
        assert entry is not None
        if stat.S_ISREG(entry.mode) and entry.size:
            self._missing[key] = entry
        else:
            record.digest = Digest.of(entry.header)

    def _digest_folders(self, top: bytes) -> None:
        """All folders from one down, the deepest first: a tree may be deeper than a stack."""
        keys = self._keys()
        prefix = top + b"\0"
        folders = [top]
        for place in range(bisect_left(keys, prefix), len(keys)):
            key = keys[place]
            if not key.startswith(prefix):
                break
            record = self._records[key]
            if record.folder and not record.digest:
                folders.append(key)
        for key in sorted(folders, key=lambda key: key.count(b"\0"), reverse=True):
            self._records[key].digest = self._digest_folder(key)

    def _digest_folder(self, key: bytes) -> str:
        """Each child by name with its digest, the header first; "" if one is not known."""
        keys = self._keys()
        first = key + b"\0"
        if first not in self._records:
            raise PathError(f'"{to_path(first)}": not found')
        parts, known, cut = [], True, len(key)
        place = bisect_left(keys, first)
        while place < len(keys) and keys[place].startswith(first):
            below = keys[place]
            record = self._records[below]
            if not record.digest and not record.folder:
                self._digest_file(below, record)
            known = known and bool(record.digest)
            parts.append(below[cut:] + record.digest.encode())
            place = bisect_left(keys, below + b"\0\xff", place) if record.folder else place + 1
        return Digest.of(b"".join(parts)) if known else ""

    def _resolve(self, key: bytes, follow: bool) -> tuple[bytes, _Record | None]:
        """Look a path up, following symlinks; the last one only if asked to (getFollowLinks)."""
        record = self._records.get(key)
        if record is not None and (not follow or record.link is None):
            return key, record
        if not key:
            return key, None
        rest = to_path(key)
        slash = rest.endswith("/")
        rest = rest.removesuffix("/")
        current, links = "/", 0
        while rest:
            part, _, rest = rest.partition("/")
            following = clean(f"{current}/{part}")
            record = self._records.get(to_key(following))
            if record is None or record.link is None or (not follow and not rest):
                current = following
                continue
            links += 1
            if links > _MAX_LINKS:
                raise PathError("too many links")
            rest = f"{record.link}/{rest}"
            if record.link.startswith("/"):
                current = "/"
        if slash:
            current += "/"
            record = self._records.get(to_key(current))
        return to_key(current), record

    # --- wildcards and filters ----------------------------------------------------------------------------

    def _select(self, query: ContentSelector) -> tuple[str, list[Selected]]:
        """The paths that a query selects, and the prefix that they are named without (includedPaths)."""
        path = clean(query.path)
        selection = Selection(query, path)
        prefix, place, resolved = self._start(query, path)
        keys = self._keys()
        while place is not None and place < len(keys):
            key = keys[place]
            place += 1
            name = to_path(key)
            if name.startswith(resolved):
                name = prefix + name[len(resolved) :]
            if selection.ends_before(name):
                break
            one = selection.look(name)
            if one is not None:
                record, one.digest = self._checksum(key, False)
                one.folder, one.link = record.folder, record.link is not None
                selection.take(one)
        selection.check_required()
        return prefix, selection.taken

    def _start(self, query: ContentSelector, path: str) -> tuple[str, int | None, str]:
        """Prefix as asked for, position of the first key, prefix as it is after symlinks."""
        keys = self._keys()
        if query.wildcard:
            prefix, rest = split_wildcards(path)
            if prefix == "/":
                return "", 0, ""
            key, record = self._resolve(to_key(prefix), bool(rest))
        else:
            prefix = path
            key, record = self._resolve(to_key(prefix), False)
        if not prefix:
            return "", 0, ""
        if record is None:
            return prefix, None, to_path(key)
        # The path itself comes first, then what lies below it; others may sort in between.
        return prefix, bisect_left(keys, key), to_path(key)
