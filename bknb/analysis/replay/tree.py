"""The context of a commit as the cache sees it: content digests of git trees, of files that lie nowhere.

A file's digest depends on its header (kind, mode, owner, size) and its bytes, so it is that of git's blob, hashed
once for each mode. What a checkout makes of git's modes is taken for granted: 0755 for folders and executables, 0644
for files (a umask of 022), owned by 0:0 as every context is; submodules are empty folders, as without
``--recurse-submodules``; bytes are as git keeps them, without filters (LFS, line ends).

From commit to commit only what changed is digested again.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bknb.analysis.replay.git import Blob, Change, Repository
from bknb.cache.contenthash import Entry, Tree
from bknb.digest import Digest
from bknb.errors import PathError, SourceError
from bknb.keys import ContentSelector
from bknb.patterns import MatchInfo, PatternError, PatternMatcher
from bknb.shim.tarsum import header

FOLDER: Final = stat.S_IFDIR | 0o755
MODES: Final[Mapping[str, int]] = {
    "100755": stat.S_IFREG | 0o755, "120000": stat.S_IFLNK | 0o777, "160000": FOLDER,
}  # fmt: skip
"""What a checkout makes of git's modes; of all others files of mode 0644."""
LONGEST_LINK: Final = 64 << 10
_UNKNOWN_SIZE: Final = 1
"""Stands in for the size of a file, which is known when its bytes are asked for: nothing is empty until then."""


def mode_of(blob: Blob) -> int:
    """The st_mode of a path in a checkout.

    >>> oct(mode_of(Blob("100644", ""))), oct(mode_of(Blob("100755", ""))), oct(mode_of(Blob("120000", "")))
    ('0o100644', '0o100755', '0o120777')
    """
    return MODES.get(blob.mode, stat.S_IFREG | 0o644)


class Digests:
    """Content digests of blobs, each read once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[Blob, str] = {}

    def find(self, blob: Blob) -> str:
        """The digest of a blob, "" where it is not known yet."""
        return self._known.get(blob, "")

    def make(self, wanted: Sequence[Blob]) -> None:
        """Have some known.

        Raises:
            SourceError: git does not have one of them.
        """
        missing = [blob for blob in dict.fromkeys(wanted) if blob not in self._known]
        made = self._repository.digests(missing, lambda blob, size: header(mode_of(blob), size=size))
        for blob, digest in zip(missing, made, strict=True):
            self._known[blob] = f"sha256:{digest}"

    def link(self, blob: Blob) -> str:
        """Where a symbolic link points.

        Raises:
            SourceError: git does not have it, or it is no link that a file system takes.
        """
        target = self._repository.content(blob, LONGEST_LINK)
        if target is None:
            raise SourceError(f"git does not have the symbolic link {blob.id}")
        return target.decode(errors="surrogateescape")


class ContextTree:
    """The files of a commit that a .dockerignore lets through.

    Args:
        digests: of blobs.
        files: every path of the first commit.
        exclude: patterns, as the definition's ``local://`` source names them.

    Raises:
        SourceError: a pattern cannot be used.
    """

    def __init__(self, digests: Digests, files: Mapping[str, Blob], exclude: Sequence[str] = ()) -> None:
        self._digests = digests
        try:
            self._matcher = PatternMatcher.parse(exclude) if exclude else None
        except PatternError as error:
            raise SourceError(f".dockerignore: {error}") from None
        self._tree = Tree()
        self._files: dict[str, Blob] = {}
        self._kept: dict[str, Blob] = {}
        self._folders: dict[str, _Folder] = {"": _Folder()}
        self._pending: dict[str, Blob | None] = dict(files)

    def change(self, changes: Sequence[Change]) -> None:
        """Go on to a commit that differs so. Nothing is looked at before somebody asks."""
        self._pending.update(changes)

    def digest(self, selectors: Sequence[ContentSelector]) -> Digest:
        """The content key of some of the files; () is all.

        Raises:
            PathError: one of them is not there.
            SourceError: git does not have the bytes of one.
        """
        self._settle()
        wanted = list(self._tree.missing(selectors))
        if wanted:
            blobs = [self._kept[path.lstrip("/")] for path in wanted]
            self._digests.make(blobs)
            self._tree.learn(dict(zip(wanted, map(self._digests.find, blobs), strict=True)))
        return self._tree.digest(selectors)

    def paths(self) -> frozenset[str]:
        """Every path that is there, folders too."""
        self._settle()
        return frozenset(self._kept).union(path for path, one in self._folders.items() if path and one.shown)

    # --- from git's paths to the tree's ---------------------------------------------------------------------

    def _settle(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        changed = {path: blob for path, blob in pending.items() if self._files.get(path) != blob}
        for batch in (
            self._remove_all,
            self._add_all,
        ):  # apart: a file may have become a folder, and the other way round
            batch(changed)
            with contextlib.suppress(
                PathError
            ):  # any question ends a batch of the tree's, also one about nothing
                self._tree.missing((ContentSelector("\0"),))

    def _remove_all(self, changed: Mapping[str, Blob | None]) -> None:
        for path in changed:
            if path in self._files:
                self._remove(path)

    def _add_all(self, changed: Mapping[str, Blob | None]) -> None:
        for path, blob in changed.items():
            if blob is not None:
                self._add(path, blob)

    def _add(self, path: str, blob: Blob) -> None:
        self._files[path] = blob
        above = self._enter(path)
        try:
            kept, _ = self._match(path, above.info)
        except PatternError as error:
            raise SourceError(f".dockerignore: {error}") from None
        if kept:
            self._kept[path] = blob
            self._count(path, 1)
            self._tree.paths.add(path, self._entry(blob))

    def _enter(self, path: str) -> _Folder:
        """The folder that a path lies in, made where there was none, as are those above; one more lies in each."""
        folder = self._folders[""]
        for parent in _parents(path):
            above, known = folder, self._folders.get(parent)
            if known is None:
                kept, info = self._match(parent, above.info)
                known = self._folders[parent] = _Folder(kept, info)
                if kept:
                    self._count(parent, 1)
                    self._show(parent, known, 1)
            known.inside += 1
            folder = known
        return folder

    def _remove(self, path: str) -> None:
        del self._files[path]
        if self._kept.pop(path, None) is not None:
            self._tree.paths.remove(path)
            self._count(path, -1)
        for parent in reversed(list(_parents(path))):
            folder = self._folders[parent]
            folder.inside -= 1
            if not folder.inside:
                if folder.kept:
                    self._show(parent, folder, -1)
                    self._count(parent, -1)
                del self._folders[parent]

    def _count(self, path: str, by: int) -> None:
        """One more path, or one less, is shown below each folder above this one."""
        for parent in _parents(path):
            self._show(parent, self._folders[parent], by)

    def _show(self, path: str, folder: _Folder, by: int) -> None:
        """A folder is there for its own sake, or for what is shown below it."""
        before, folder.shown = folder.shown, folder.shown + by
        if not before:
            self._tree.paths.add(path, Entry(FOLDER))
        elif not folder.shown:
            self._tree.paths.remove(path)

    def _match(self, path: str, above: MatchInfo | None) -> tuple[bool, MatchInfo | None]:
        """Whether a path is kept, and what those below it need to know."""
        if self._matcher is None:
            return True, None
        matched, info = self._matcher.walk(path, above)
        return not matched, info

    def _entry(self, blob: Blob) -> Entry:
        mode = mode_of(blob)
        if stat.S_ISLNK(mode):
            return Entry(mode, linkname=self._digests.link(blob))
        if stat.S_ISDIR(mode):
            return Entry(mode)
        return Entry(mode, size=_UNKNOWN_SIZE, digest=self._digests.find(blob))


class _Folder:
    """A folder of a commit.

    Attributes:
        kept: no pattern excludes it; `info` is what those below it need to know.
        inside: how many of git's paths lie below it.
        shown: how many of them are kept, kept folders counted too, and itself.
    """

    __slots__ = ("info", "inside", "kept", "shown")

    def __init__(self, kept: bool = True, info: MatchInfo | None = None) -> None:
        self.kept = kept
        self.info = info
        self.inside = 0
        self.shown = 0


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, outermost first.

    >>> list(_parents("a/b/c"))
    ['a', 'a/b']
    """
    place = path.find("/")
    while place >= 0:
        yield path[:place]
        place = path.find("/", place + 1)
