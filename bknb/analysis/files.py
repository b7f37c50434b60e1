"""How the files that a step read differ from those that it read before."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bknb.analysis.causes import Cause, Kind
from bknb.cache.listing import ListedFile, Listing
from bknb.keys.selectors import has_wildcards
from bknb.llb.ops import CopyAction, FileOp, SourceOp
from bknb.llb.vertex import Vertex
from bknb.patterns import PatternError, PatternMatcher

MOST_CAUSES = 200
IGNORED = ".dockerignore"


def file_causes(before: Listing, after: Listing, origin: tuple[str, str]) -> list[Cause]:
    """A cause for each path that differs, at most `MOST_CAUSES`.

    Of lists that were cut only the part that both have counts.
    """
    found: list[Cause] = []
    last = min((side.files[-1].path for side in (before, after) if side.cut and side.files), default=None)
    old, new = ({file.path: file for file in side.files} for side in (before, after))
    for path in sorted({**old, **new}):
        if last is not None and path > last:
            break
        for kind, was, now in _differ(old.get(path), new.get(path)):
            found.append(Cause(kind, path.lstrip("/") or "/", was, now, origin))
        if len(found) >= 4 * MOST_CAUSES:
            break
    # A folder that came or went is named only where nothing in it is.
    paths = {cause.subject for cause in found}
    named = [
        cause
        for cause in found
        if cause.kind not in (Kind.FILE_ADDED, Kind.FILE_REMOVED)
        or not any(path.startswith(cause.subject + "/") for path in paths)
    ]
    return named[:MOST_CAUSES]


def through_links(
    causes: Sequence[Cause], before: Listing, after: Listing, step: Vertex, number: int
) -> list[Cause]:
    """The same causes; where a step copies through a link that leads elsewhere now, that instead of what it led to."""
    sources = _copied(step, number)
    if not sources:
        return list(causes)
    paths = [file.path.lstrip("/") for file in before.files], [file.path.lstrip("/") for file in after.files]
    away = [source for source in sources if not any(_lies_in(path, source) for side in paths for path in side)]
    if len(away) != 1:
        return list(causes)
    was, now = (
        min((path for path in side if not any(_lies_in(path, source) for source in sources)), default="")
        for side in paths
    )
    led = [cause for cause in causes if _lies_in(cause.subject, was) or _lies_in(cause.subject, now)]
    if not was or not now or was == now or not led:
        return list(causes)
    return [Cause(Kind.FILE_LINK, away[0], was, now, led[0].origin), *(c for c in causes if c not in led)]


def _copied(step: Vertex, number: int) -> list[str]:
    """The paths, as written, that a step copies from an input; none if one of them is a pattern."""
    actions = step.op.actions if isinstance(step.op, FileOp) else ()
    copies = [a.action for a in actions if isinstance(a.action, CopyAction) and a.secondary_input == number]
    found = [copy.src.strip("/") for copy in copies]
    return [] if any(not path or "\\" in path or has_wildcards(path) for path in found) else found


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def by_patterns(causes: Sequence[Cause], before: Vertex, after: Vertex) -> list[Cause]:
    """The same causes; of a file that came or went because it is ignored or not any more, that is said."""
    old, new = _ignored(before), _ignored(after)
    if old == new:
        return list(causes)
    return [_by_patterns(cause, old, new) for cause in causes]


def _by_patterns(cause: Cause, old: PatternMatcher, new: PatternMatcher) -> Cause:
    if cause.kind is Kind.FILE_REMOVED and new.matches(cause.subject):
        return replace(cause, after=IGNORED)
    if cause.kind is Kind.FILE_ADDED and old.matches(cause.subject):
        return replace(cause, before=IGNORED)
    return cause


def _ignored(source: Vertex) -> PatternMatcher:
    """What a context leaves out; nothing of other sources, and where the patterns are none."""
    attrs = source.op.attrs if isinstance(source.op, SourceOp) else {}
    try:
        matcher = PatternMatcher.parse(json.loads(attrs.get("local.excludepatterns", "null")) or ())
        matcher.matches("any")  # a pattern may turn out to be none only now
        return matcher
    except (PatternError, ValueError):
        return PatternMatcher(())


def _differ(old: ListedFile | None, new: ListedFile | None) -> Iterator[tuple[Kind, str, str]]:
    if old == new:
        return
    if old is None or new is None:
        kind = Kind.FILE_ADDED if old is None else Kind.FILE_REMOVED
        yield kind, _what(old), _what(new)
        return
    if old.kind != new.kind:
        yield Kind.FILE_CONTENT, _what(old), _what(new)
        return
    header = False
    if stat.S_IMODE(old.mode) != stat.S_IMODE(new.mode):
        yield Kind.FILE_MODE, f"{stat.S_IMODE(old.mode):04o}", f"{stat.S_IMODE(new.mode):04o}"
        header = True
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield Kind.FILE_OWNER, f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}"
        header = True
    if old.link != new.link:
        yield Kind.FILE_LINK, old.link, new.link
        header = True
    if old.xattrs != new.xattrs:
        yield Kind.FILE_XATTR, _xattrs(old, new), _xattrs(new, old)
        header = True
    # The digest covers the header too: with that changed only another size proves other bytes.
    if old.size != new.size or (not header and old.digest != new.digest):
        yield Kind.FILE_CONTENT, _what(old), _what(new)


def _what(file: ListedFile | None) -> str:
    if file is None:
        return ""
    return (
        f"{file.size} bytes {file.digest}".rstrip()
        if file.kind == "file"
        else f"{file.kind} {file.link}".rstrip()
    )


def _xattrs(file: ListedFile, other: ListedFile) -> str:
    return ", ".join(name for name, digest in sorted(file.xattrs.items()) if other.xattrs.get(name) != digest)
