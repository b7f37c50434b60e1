"""Which part of a client's folder a build is given, decided as BuildKit's client decides it.

Include patterns, exclude patterns (.dockerignore), and "follow paths": include patterns whose symbolic links are
followed to what they point at (vendor/github.com/tonistiigi/fsutil, filter.go and followlinks.go). Patterns that
are withheld are the session's own: what they match stays behind too, and is told apart.
"""

from __future__ import annotations

import os
import posixpath
import re

from bknb.patterns import PatternError, PatternMatcher
from bknb.shim.server import Failure
from bknb.shim.wildcards import compile_match, has_wildcards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bknb.patterns import MatchInfo

    Infos = tuple[MatchInfo | None, MatchInfo | None, MatchInfo | None]
    """What the matchers know of a folder, for what is in it."""

TOP: Infos = (None, None, None)
_PATTERN_CHARACTERS = frozenset("*[]?^\\")


class Verdict:
    """What becomes of one path: whether it is taken, whether a folder is entered, whether the session withheld it."""

    __slots__ = ("enter", "infos", "taken", "withheld")

    def __init__(self, taken: bool, enter: bool, withheld: bool, infos: Infos) -> None:
        self.taken = taken
        self.enter = enter
        self.withheld = withheld
        self.infos = infos


_EVERYTHING = Verdict(True, True, False, TOP)


class Sieve:
    """The patterns of one context.

    Args:
        root: the folder, where links are followed.
        include: patterns of which a path has to match one; none means everything.
        exclude: patterns of what is left out.
        follow: paths that are included with what their links point at.
        withheld: patterns of what the session keeps back.

    Raises:
        Failure: SourceError, a pattern is none.
    """

    def __init__(
        self, root: str, include: Sequence[str], exclude: Sequence[str], follow: Sequence[str],
        withheld: Sequence[str],
    ) -> None:  # fmt: skip
        if follow:
            targets = follow_links(root, follow)
            include = include if targets is None else _without_nested([*include, *targets]) or []
        self.wanted = tuple(include)
        """What is included, links followed: it may be something else in the next walk, with the same paths to follow."""
        try:
            self._include, self._exclude, self._withheld = (
                PatternMatcher.parse(patterns) if patterns else None
                for patterns in (include, exclude, withheld)
            )
        except PatternError as error:
            raise Failure(
                "SourceError", f"a pattern of the context {root} cannot be used: {error}"
            ) from None
        self.open = self._include is None and self._exclude is None and self._withheld is None
        """Everything passes."""

    def look(self, path: str, infos: Infos, is_folder: bool) -> Verdict:
        """Decide on a path; `infos` are those of the folder that it is in."""
        if self.open:
            return _EVERYTHING
        taken, enter, held = True, is_folder, False
        include, exclude, withheld = infos
        if self._include is not None:
            matched, include = self._include.walk(path, include)
            if not matched:
                taken = False
                enter = is_folder and _may_hold(self._include, path, exceptions=False)
        if self._exclude is not None:
            matched, exclude = self._exclude.walk(path, exclude)
            if matched:
                taken = False
                enter = enter and self._exclude.exclusions and _may_hold(self._exclude, path, exceptions=True)
        if self._withheld is not None and (taken or enter):
            matched, withheld = self._withheld.walk(path, withheld)
            if matched:
                taken, enter, held = False, False, taken
        return Verdict(taken, enter, held, (include, exclude, withheld))


def _may_hold(matcher: PatternMatcher, path: str, *, exceptions: bool) -> bool:
    """Whether something below a folder can match a pattern (of the exceptions, or of the others)."""
    folder = path + "/"
    for pattern in matcher.patterns:
        if pattern.exclusion != exceptions:
            continue
        text = pattern.text.removesuffix("/**").removesuffix("/*")
        if _PATTERN_CHARACTERS & set(text) or (text + "/").startswith(folder):
            return True
    return False


def follow_links(root: str, paths: Sequence[str]) -> list[str] | None:
    """The include patterns for some follow paths, links resolved; None when the whole folder is meant."""
    resolved: set[str] = set()
    for path in paths:
        _follow(root, path, resolved)
    return _without_nested(sorted(resolved))


def _follow(root: str, path: str, resolved: set[str]) -> None:
    todo = [path]
    while todo:
        rest = posixpath.normpath(posixpath.join("/", todo.pop())).lstrip("/") or "."
        current, targets = "", None
        while targets is None:
            first, _, rest = rest.partition("/")
            current = posixpath.join(current, first)
            targets = _link_targets(root, current)
            if (not rest or targets) and current in resolved:
                break
            if targets:
                resolved.add(current)
                todo += [posixpath.join(target, rest) for target in reversed(targets)]
            elif not rest:
                resolved.add(current)
                break


def _link_targets(root: str, path: str) -> list[str] | None:
    """What a link points at, seen from the root; of all links that a name with wildcards matches. None without any."""
    folder, base = posixpath.split(path)
    if not has_wildcards(base):
        return _link_target(root, path)
    match: re.Pattern[str] | None = compile_match(base)
    try:
        names = sorted(os.listdir(os.path.join(root, folder)), key=os.fsencode)
    except OSError:
        return None
    found: list[str] = []
    for name in names:
        if match is not None and match.fullmatch(name):
            found += _link_target(root, posixpath.join(folder, name)) or []
    return found or None


def _link_target(root: str, path: str) -> list[str] | None:
    if path in ("", "."):
        return None
    try:
        link = os.readlink(os.path.join(root, path))
    except OSError:
        return None
    return [posixpath.normpath(posixpath.join("/", posixpath.dirname(path), link))]


def _without_nested(paths: Sequence[str]) -> list[str] | None:
    """Paths without those that lie directly behind a folder that is named too; None if all is meant (dedupePaths)."""
    kept: list[str] = []
    last = ""
    for path in paths:
        if path == ".":
            return None
        if not path.startswith(last + "/"):
            kept.append(path)
            last = path
    return kept
