"""The paths of one tree of files: what is kept of each, in order, through changes and symlinks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from bknb.cache.entries import Entry, Record, clean, to_key, to_path
from bknb.digest import Digest
from bknb.errors import PathError

EMPTY: Final = Digest.of(b"")
_MAX_LINKS: Final = 255


class Paths:
    """All paths of a tree.

    Changes between two questions are one batch. A folder that is removed takes with it what was there before
    the batch, as BuildKit's transaction does (HandleChange).

    Attributes:
        records: by key.
    """

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {b"": Record(None, folder=True)}
        self.records[b"\0"] = Record(None, digest=EMPTY)
        self._links: dict[str, list[bytes]] = {}
        self._sorted: list[bytes] | None = None
        self._batch = 1
        self._changed: set[bytes] = set()

    def copy(self) -> Paths:
        """The same paths, of which the next batch of changes is another's."""
        self.settle()
        other = Paths()
        other.records = self.records.copy()
        other._links = {target: list(keys) for target, keys in self._links.items()}
        other._sorted = self._sorted
        other._batch = self._batch + 1
        return other

    def head(self, entry: Entry) -> None:
        """Give the root a header; that of a streamed tree has none."""
        self.records[b"\0"] = Record(entry, digest=entry.digest)

    def fill(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """Take many new paths: clean but without the leading slash, and with all folders above them among them."""
        records, links = self.records, []
        for path, entry in entries:
            key = b"\0" + os.fsencode(path).replace(b"/", b"\0")
            if stat.S_ISDIR(entry.mode):
                records[key] = Record(None, 1, "", True)
                records[key + b"\0"] = Record(entry, 1, entry.digest)
            elif entry.linkname and not stat.S_ISLNK(entry.mode):
                links.append((path, entry))
            else:
                records[key] = Record(entry, 1, entry.digest)
        for path, entry in links:
            self.add(path, entry)

    def add(self, path: str, entry: Entry) -> None:
        """Take a path, or what it has become; the folders above it are expected to be added too."""
        name = clean(path)
        key = to_key(name)
        known = self.records.get(key)
        folder = stat.S_ISDIR(entry.mode)
        if known is not None and known.folder and known.batch < self._batch and not folder:
            self._remove_below(key)
        if known is None or known.folder != folder:
            self._sorted = None
        record = Record(entry, self._batch, digest=entry.digest)
        if folder:
            self.records[key] = Record(None, self._batch, folder=True)
            self.records[key + b"\0"] = record
        else:
            record = self._hard_link(key, record)
            self.records[key] = record
            for link in self._links.pop(name, ()):
                if link != key:
                    self.records[link] = record
                    self._changed.add(link)
        self._changed.add(key)

    def _hard_link(self, key: bytes, record: Record) -> Record:
        """A hard link has the record of what it is linked to, which may also come later."""
        entry = record.entry
        assert entry is not None
        if not entry.linkname or record.link is not None:
            return record
        target = clean(entry.linkname)
        self._links.setdefault(target, []).append(key)
        return self.records.get(to_key(target), record)

    def remove(self, path: str) -> None:
        """A path, and all below it, is no more."""
        key = to_key(clean(path))
        record = self.records.pop(key, None)
        if record is not None and record.folder:
            self._remove_below(key)
        self._sorted = None
        self._changed.add(key)

    def _remove_below(self, key: bytes) -> None:
        prefix = key + b"\0"
        for below in [other for other in self.records if other.startswith(prefix)]:
            if self.records[below].batch < self._batch:
                del self.records[below]
        self._sorted = None

    def settle(self) -> None:
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
            if key in self.records:
                self.records[key] = Record(None, self._batch - 1, folder=True)
        self._changed.clear()

    def in_order(self) -> list[bytes]:
        """The keys of all paths, sorted."""
        if self._sorted is None:
            self._sorted = sorted(self.records)
        return self._sorted

    def resolve(self, key: bytes, follow: bool) -> tuple[bytes, Record | None]:
        """Look a path up, following symlinks; the last one only if asked to (getFollowLinks)."""
        record = self.records.get(key)
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
            record = self.records.get(to_key(following))
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
            record = self.records.get(to_key(current))
        return to_key(current), record
