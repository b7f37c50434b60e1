"""Wildcards of COPY and of rm: Go's filepath.Match over a tree (ResolveWildcards of fsutil/copy/copy.go).

``*`` and ``?`` match no slash, ``[...]`` may. What matches is not looked into, so that nothing is found
twice; links are matched and not followed.
"""

from __future__ import annotations

import os
import re

from bknb import beneath


def has_wildcards(text: str) -> bool:
    """Whether a path, or a part of it, is a pattern; a backslash takes the meaning of what follows."""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", text, flags=re.DOTALL)) is not None


def compile_match(pattern: str) -> re.Pattern[str] | None:
    """filepath.Match as an expression for fullmatch; None if malformed, which matches nothing."""
    chunks, place = [""], 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "*":
            if chunks[-1] or len(chunks) == 1:
                chunks.append("")
        elif char == "?":
            chunks[-1] += "[^/]"
        elif char == "[":
            found = _class(pattern, place)
            if found is None:
                return None
            source, place = found
            chunks[-1] += source
        else:
            if char == "\\":
                if place == len(pattern):
                    return None
                char = pattern[place]
                place += 1
            chunks[-1] += re.escape(char)
    first, *rest = chunks
    # The first place where a chunk fits is as good as any later one, so nothing is ever tried twice.
    inner = "".join(f"(?>[^/]*?{chunk})" for chunk in rest[:-1])
    return re.compile(first + inner + (f"[^/]*{rest[-1]}" if rest else ""), re.DOTALL)


def _class(pattern: str, place: int) -> tuple[str, int] | None:
    """A character class, from behind its bracket: (expression, position behind it)."""
    negated = pattern.startswith("^", place)
    place += negated
    ranges: list[str] = []
    while place < len(pattern):
        if pattern[place] == "]" and ranges:
            inside = "".join(ranges)
            if not inside:
                return "." if negated else "(?!)", place + 1
            return f"[{'^' if negated else ''}{inside}]", place + 1
        low = _one(pattern, place)
        if low is None:
            return None
        char, place = low
        high = char
        if pattern.startswith("-", place):
            end = _one(pattern, place + 1)
            if end is None:
                return None
            high, place = end
        if char <= high:
            ranges.append(f"{re.escape(char)}-{re.escape(high)}")
        else:
            ranges.append("")  # an empty range matches nothing, and counts as one
    return None


def _one(pattern: str, place: int) -> tuple[str, int] | None:
    """One character of a class; a bare dash or bracket is malformed."""
    if place >= len(pattern) or pattern[place] in "-]":
        return None
    if pattern[place] == "\\":
        place += 1
        if place >= len(pattern):
            return None
    return pattern[place], place + 1


def split(path: str) -> tuple[str, str]:
    """A path as (part without wildcards, pattern below it).

    >>> split("/a/b*/c"), split("/a")
    (('/a', 'b*/c'), ('/a', ''))
    """
    parts = [part for part in path.split("/") if part]
    for index, part in enumerate(parts):
        if has_wildcards(part):
            return "/" + "/".join(parts[:index]), "/".join(parts[index:])
    return "/" + "/".join(parts), ""


def resolve(root: int, path: str, *, follow: bool) -> list[str]:
    """The paths beneath a root that a path names, in order; one without wildcards is returned as it is.

    Raises:
        OSError: the part before the wildcards is not there.
    """
    plain, pattern = split(path)
    if not pattern:
        return [plain]
    base = beneath.resolve(root, plain) if follow else _parent_resolved(root, plain)
    match = compile_match(pattern)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        start = beneath.open(root, base, flags)
    except OSError:
        beneath.stat(root, base, follow=False)  # raises if it is missing; what is no directory holds nothing
        return []
    # A class may match a slash; everything else matches name by name, and needs no deeper look.
    names = None if "[" in pattern else [compile_match(part) for part in pattern.split("/")]
    depth = None if names is None else len(names)
    found: list[str] = []
    try:
        _search(start, base.rstrip("/"), "", match, names, depth, found)
    finally:
        os.close(start)
    return found


def _parent_resolved(root: int, path: str) -> str:
    directory, name = beneath.split(path)
    return f"{beneath.resolve(root, directory).rstrip('/')}/{name}"


def _search(
    fd: int, base: str, below: str, match: re.Pattern[str] | None,
    names: list[re.Pattern[str] | None] | None, depth: int | None, found: list[str],
) -> None:  # fmt: skip
    """Collect matches in one directory and below, in Go's order of names (bytes)."""
    if match is None:
        return
    with os.scandir(fd) as scanned:
        entries = sorted(scanned, key=lambda entry: os.fsencode(entry.name))
    level = below.count("/") + 1 if below else 0
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if (depth is None or level == depth - 1) and match.fullmatch(path):
            found.append(f"{base}/{path}")
            continue
        if depth is not None and level >= depth - 1:
            continue
        if names is not None and ((part := names[level]) is None or not part.fullmatch(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False):
            inner = beneath.child(fd, entry.name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _search(inner, base, path, match, names, depth, found)
            finally:
                os.close(inner)
