"""The content checksum of trees of files: what a COPY is keyed by (cache/contenthash of BuildKit).

A `Tree` holds one `Entry` for each path and answers queries (`ContentSelector`) with digests:

- of a file: of its header and its bytes (`bknb.shim.tarsum`);
- of a folder: of each child's name and digest in byte order, its own header first;
- of a selection by wildcards or filters: of the selected paths and their digests.

Symlinks in the middle of a path are followed inside of the tree; the last one where the query says so. A
digest of a file that is not known yet is asked for: `missing` names the files that some queries need and
the header that each digest begins with, the caller hashes them and tells `learn`. So only what is used is
ever read.
"""

from __future__ import annotations

import stat
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from bknb.cache.entries import Entry as Entry
from bknb.cache.entries import Record, clean, to_key, to_path
from bknb.cache.paths import EMPTY, Paths
from bknb.cache.selection import Selected, Selection, split_wildcards
from bknb.digest import Digest
from bknb.errors import PathError
from bknb.keys.selectors import ContentSelector, base_name


def scratch_digest(selectors: Sequence[ContentSelector]) -> Digest:
    """The content key of an input that is empty: what `Tree.digest` is for one that is not.

    Raises:
        PathError: a query names anything but the root.
    """
    for selector in selectors:
        if clean(selector.path):
            raise PathError(f"{clean(selector.path)}: no such file or directory")
    return Digest.of_text("\0".join([EMPTY] * max(len(selectors), 1)))


class Tree:
    """The content hashes of one tree of files.

    Attributes:
        paths: what there is; it may change between two questions.
    """

    def __init__(self, paths: Paths | None = None) -> None:
        self.paths = paths if paths is not None else Paths()
        self._missing: dict[bytes, Entry] = {}

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Entry]]) -> Tree:
        """The tree of some paths; one of them, "/", may be the root."""
        paths = Paths()
        for path, entry in entries:
            if clean(path):
                paths.add(path, entry)
            else:
                paths.head(entry)
        return cls(paths)

    @classmethod
    def streamed(cls, entries: Iterable[tuple[str, Entry]]) -> Tree:
        """As `of`, of a stream without a root; see `Paths.fill`."""
        paths = Paths()
        paths.fill(entries)
        return cls(paths)

    def changed(self, removed: Iterable[str], entries: Iterable[tuple[str, Entry]]) -> Tree:
        """Another tree: this one without some paths, with others or what they have become.

        What is as it was is shared, with the digests that are known of it.
        """
        paths = self.paths.copy()
        for path in removed:
            paths.remove(path)
        for path, entry in entries:
            paths.add(path, entry)
        paths.settle()
        return Tree(paths)

    def missing(self, selectors: Sequence[ContentSelector]) -> dict[str, bytes]:
        """Files whose digests some queries need and that are not known: path -> header to begin with.

        Raises:
            PathError: a query names what is not there.
        """
        self._missing.clear()
        for selector in selectors or (ContentSelector(),):
            self._query(selector)
        return {to_path(key): entry.header for key, entry in self._missing.items()}

    def learn(self, digests: Mapping[str, str]) -> None:
        """Digests of header and bytes, of files that `missing` named."""
        records = self.paths.records
        for path, digest in digests.items():
            record = records.get(to_key(clean(path)))
            if record is not None and not record.folder:
                record.digest = digest

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
                self._take(*self.paths.resolve(to_key(clean(query.path)), query.follow_links), found, limit)
                continue
            for one in self._select(query)[1]:
                key = to_key(clean(one.path))
                if one.head:
                    key += b"\0"
                    self._take(key, self.paths.records.get(key), found, limit)
                else:
                    self._take(*self.paths.resolve(key, one.follow and query.follow_links), found, limit)
        return found

    def _take(
        self, key: bytes, record: Record | None, found: dict[str, tuple[Entry, str]], limit: int
    ) -> None:
        """A record, and those below it where it is what is in a folder."""
        keys, records, prefix = self.paths.in_order(), self.paths.records, key + b"\0"
        place = bisect_left(keys, prefix) if record is not None and record.folder else len(keys)
        name, one = key, record
        while len(found) < limit:
            if one is not None and one.entry is not None:
                found[to_path(name).rstrip("/") or "/"] = (one.entry, one.digest)
            if place >= len(keys) or not keys[place].startswith(prefix):
                return
            name, one = keys[place], records[keys[place]]
            place += 1

    def _query(self, query: ContentSelector) -> str:
        """As `checksum`; "" if it needs a file's digest that is not known."""
        self.paths.settle()
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

    def _checksum(self, key: bytes, follow: bool) -> tuple[Record, str]:
        """The record that a key leads to, and its digest ("" if that needs a file's that is not known)."""
        found, record = self.paths.resolve(key, follow)
        if record is None:
            raise PathError(f'"{to_path(key)}": not found')
        if not record.digest:
            if record.folder:
                self._digest_folders(found)
            else:
                self._digest_file(found, record)
        return record, record.digest

    def _digest_file(self, key: bytes, record: Record) -> None:
        entry = record.entry
        assert entry is not None
        if stat.S_ISREG(entry.mode) and entry.size:
            self._missing[key] = entry
        else:
            record.digest = Digest.of(entry.header)

    def _digest_folders(self, top: bytes) -> None:
        """All folders from one down, the deepest first: a tree may be deeper than a stack."""
        keys, records = self.paths.in_order(), self.paths.records
        prefix = top + b"\0"
        folders = [top]
        for place in range(bisect_left(keys, prefix), len(keys)):
            key = keys[place]
            if not key.startswith(prefix):
                break
            record = records[key]
            if record.folder and not record.digest:
                folders.append(key)
        for key in sorted(folders, key=lambda key: key.count(b"\0"), reverse=True):
            records[key].digest = self._digest_folder(key)

    def _digest_folder(self, key: bytes) -> str:
        """Each child by name with its digest, the header first; "" if one is not known."""
        keys, records = self.paths.in_order(), self.paths.records
        first = key + b"\0"
        if first not in records:
            raise PathError(f'"{to_path(first)}": not found')
        parts, known, cut = [], True, len(key)
        place = bisect_left(keys, first)
        while place < len(keys) and keys[place].startswith(first):
            below = keys[place]
            record = records[below]
            if not record.digest and not record.folder:
                self._digest_file(below, record)
            known = known and bool(record.digest)
            parts.append(below[cut:] + record.digest.encode())
            place = bisect_left(keys, below + b"\0\xff", place) if record.folder else place + 1
        return Digest.of(b"".join(parts)) if known else ""

    # --- wildcards and filters ----------------------------------------------------------------------------

    def _select(self, query: ContentSelector) -> tuple[str, list[Selected]]:
        """The paths that a query selects, and the prefix that they are named without (includedPaths)."""
        path = clean(query.path)
        selection = Selection(query, path)
        prefix, place, resolved = self._start(query, path)
        keys = self.paths.in_order()
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
        keys = self.paths.in_order()
        if query.wildcard:
            prefix, rest = split_wildcards(path)
            if prefix == "/":
                return "", 0, ""
            key, record = self.paths.resolve(to_key(prefix), bool(rest))
        else:
            prefix = path
            key, record = self.paths.resolve(to_key(prefix), False)
        if not prefix:
            return "", 0, ""
        if record is None:
            return prefix, None, to_path(key)
        # The path itself comes first, then what lies below it; others may sort in between.
        return prefix, bisect_left(keys, key), to_path(key)
