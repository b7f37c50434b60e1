"""Which paths of a tree a query with wildcards or filters takes (includedPaths of cache/contenthash/checksum.go)."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from bknb.errors import PathError
from bknb.keys.selectors import ContentSelector, has_wildcards
from bknb.patterns import MatchInfo, PatternMatcher
from bknb.shim.wildcards import compile_match


@dataclass(slots=True)
class Selected:
    """One path while a selection is made.

    Attributes:
        path: as the query names it, symlinks in its prefix not followed.
        follow: a symlink here is followed.
        head: it is the header of a folder, not what is in it.
        folder: it is what is in a folder.
        link: it is a symlink.
        digest: of it; "" where that is not known.
        include: which patterns matched; `exclude` likewise.
        taken: it is part of the selection.
    """

    path: str
    follow: bool
    head: bool
    folder: bool = False
    link: bool = False
    digest: str = ""
    include: MatchInfo | None = None
    exclude: MatchInfo | None = None
    taken: bool = False


class Selection:
    """Which paths a query with wildcards or filters takes, told one path after the other in sorted order."""

    def __init__(self, query: ContentSelector, path: str) -> None:
        self.query = query
        self.path = path
        self.taken: list[Selected] = []
        self._include = PatternMatcher.parse(query.include) if query.include else None
        self._exclude = PatternMatcher.parse(query.exclude) if query.exclude else None
        self._pattern = compile_match(path) if query.wildcard and path else None
        if query.wildcard and path and self._pattern is None:
            raise PathError(f"{path}: syntax error in pattern")
        self._folders: list[Selected] = []
        self._matched = ""

    def ends_before(self, name: str) -> bool:
        """Whether nothing more is to come, since this path lies behind all that could."""
        return not self.query.wildcard and not f"{name}/".startswith(self.path + "/")

    def look(self, name: str) -> Selected | None:
        """A path to take into account, None for one to pass over."""
        while self._folders and not name.startswith(self._folders[-1].path + "/"):
            self._folders.pop()
        parent = self._folders[-1] if self._folders else None
        head = name.endswith("/")
        if head:
            name = name[:-1]
            if name == self.path and self.query.path.endswith("/"):
                return None
        one = Selected(name, parent is None and self.query.follow_links, head)
        if self._pattern is not None:
            if not self._matched or not name.startswith(self._matched + "/"):
                if not self._pattern.fullmatch(name):
                    return None
                self._matched = name
            base = self._matched
        else:
            base = self._matched if self.query.wildcard else self.path
        one.taken = self._wanted(f"{name}/".removeprefix(base + "/").removesuffix("/"), one, parent)
        return one if one.taken or head else None

    def _wanted(self, name: str, one: Selected, parent: Selected | None) -> bool:
        if self._include is not None:
            matched, one.include = self._include.walk(name, parent.include if parent is not None else None)
            if not matched:
                return False
        if self._exclude is not None:
            matched, one.exclude = self._exclude.walk(name, parent.exclude if parent is not None else None)
            return not matched
        return True

    def take(self, one: Selected) -> None:
        """A path with its record: it is taken, or remembered as a folder of which a file may be."""
        wanted, one.taken = one.taken, False
        if wanted and not one.folder:
            for folder in self._folders:
                if not folder.taken:
                    self.taken.append(folder)
                    folder.taken = True
            self.taken.append(one)
            one.taken = True
        if one.head:
            self._folders.append(one)

    def check_required(self) -> None:
        """What has to be there is there."""
        for path in self.query.required:
            if not any(one.path.startswith(path) for one in self.taken):
                raise PathError(f'"{path}": not found')


def split_wildcards(path: str) -> tuple[str, str]:
    """The components before the first that is a pattern, and the rest."""
    parts = posixpath.normpath(path or ".").split("/")
    first = next((i for i, part in enumerate(parts) if has_wildcards(part)), len(parts))
    head = "/".join(parts[:first])
    return head or "/", "/".join(parts[first:])
