"""Contexts: what is known of a client's folder, and a tree that is brought up to date with it.

- ``look(key, state, source, seen, ...)``: what of a folder is not as it was in a state
- ``sync(key, state, target)``: remove and copy that, below a tree; what was copied, row by row
- ``forget(key)``: the folder is of no more interest

What is known is kept here, where it is compared: of 100,000 files the kernel is told a few numbers, and a row for each
that had changed. A state is named by the result that holds it. Whoever asks from a state that is not known here
is told so, and asks again with what was seen then.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from bknb import beneath
from bknb.patterns import PatternError
from bknb.shim import mounts as trees
from bknb.shim.server import Context, Failure, Server
from bknb.shim.sieve import Sieve
from bknb.shim.transfer import Transfer
from bknb.shim.twins import both
from bknb.shim.walking import Found, Known, Walk, order

KEPT = 16  # folders of which it is remembered what they were
MANY = 2000  # files; so many are copied by two processes


class Look:
    """A folder at one of its states, and what was found when it was last looked at."""

    __slots__ = ("found", "known", "source", "state")

    def __init__(self, source: str, state: str, known: Known) -> None:
        self.source = source
        self.state = state
        self.known = known
        self.found: Found | None = None


def look(
    context: Context,
    fds: list[int],
    *,
    key: str,
    state: str,
    source: str,
    include: list[str],
    exclude: list[str],
    follow: list[str],
    withheld: list[str],
    seen: list[Any] | None = None,
) -> dict[str, Any] | None:
    """Walk a folder.

    Args:
        context: of the request.
        fds: none.
        key: names the folder together with its patterns.
        state: what it is compared with; "" for nothing.
        source: the folder.
        include: patterns, as for `Sieve`.
        exclude: likewise.
        follow: likewise.
        withheld: likewise.
        seen: what there was in that state: path, signature, what it is a hard link of.

    Returns:
        ``files``, ``size``: of all that is part of the context; ``changed``: how many names have to be copied,
        ``copies`` of which are no folders, and have ``bytes``; ``removed``: how many paths are gone; ``withheld``: paths. None if the state is not known here.

    Raises:
        Failure: PathError, SourceError.
    """
    looks = context.server.looks
    one: Look | None = looks.pop(key, None)
    if one is None or one.state != state or seen is not None:
        if state and seen is None:
            return None
        one = Look(source, state, Known.of(seen or ()))
    sieve = Sieve(source, include, exclude, follow, withheld)
    one.known.decide_by(sieve.wanted)
    try:
        found = Walk(source, sieve, one.known, context.check).run()
    except PatternError as error:
        raise Failure("SourceError", f"a pattern of the context {source} cannot be used: {error}") from None
    one.found = found
    _keep(context.server, key, one)
    return {
        "files": found.files, "size": found.size, "changed": found.changes, "copies": found.copies,
        "bytes": found.to_copy, "removed": len(found.removed), "withheld": found.withheld,
    }  # fmt: skip


def _keep(server: Server, key: str, one: Look) -> None:
    with server.lock:
        server.looks[key] = one
        while len(server.looks) > KEPT:
            del server.looks[next(iter(server.looks))]


def sync(
    context: Context, fds: list[int], *, key: str, state: str, target: trees.Mounts
) -> dict[str, Any] | None:
    """Bring a tree up to date with what `look` found.

    Args:
        context: of the request.
        fds: none.
        key: as `look` was told.
        state: what the tree is going to be called.
        target: a tree that holds the state that was compared with.

    Returns:
        ``rows``: what was copied, see `transfer.Row`; ``removed``: paths that are gone, with all below them. None
        if nothing was looked at.

    Raises:
        Failure: PathError, SourceError.
    """
    one: Look | None = context.server.looks.pop(key, None)
    if one is None or one.found is None:
        return None
    found, one.found = one.found, None
    root = beneath.open_root(one.source)
    try:
        with trees.open_tree(context, target) as tree:
            _remove(context, tree.fd, found.removed)
            rows = _transfer(context, root, tree.fd, found)
            vanished = _vanished(found, rows)
            _remove(context, tree.fd, vanished)
    finally:
        os.close(root)
    removed = [*found.removed, *vanished]
    for path in removed:
        one.known.drop(path)
    for row in rows:
        one.known.put(row[0], row[5], row[3] if row[0] in found.links else "")
    one.state = state
    _keep(context.server, key, one)
    return {"rows": rows, "removed": removed}


def _remove(context: Context, tree: int, paths: list[str]) -> None:
    for path in paths:
        context.check()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            beneath.remove(tree, path)


def _transfer(context: Context, root: int, tree: int, found: Found) -> list[Any]:
    transfer = Transfer(root, tree, context.server.owners, context.check)
    paths = sorted(found.changed, key=order)
    for path in paths:
        transfer.folder(path, [name for name in found.changed[path] if _below(path, name) in found.folders], found)
    files = [
        (path, [name for name in found.changed[path] if _below(path, name) not in found.folders]) for path in paths
    ]

    def copy(part: list[tuple[str, list[str]]]) -> list[Any]:
        for path, names in part:
            transfer.folder(path, names, found)
        transfer.settle()
        return transfer.rows

    if found.copies < MANY:
        copy(files)
    else:
        here, there = _halves(files, found.copies)
        made = len(transfer.rows)
        transfer.rows += both(context.server.children, lambda: copy(here), lambda: copy(there)[made:])[1]
    transfer.link(_changed_links(found))
    above = {path.rpartition("/")[0] for path in found.removed}
    transfer.times({*paths, *above, *found.folders} - {""})
    return transfer.rows


def _halves(
    files: list[tuple[str, list[str]]], count: int
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """The folders' files, in two parts of about the same number."""
    first: list[tuple[str, list[str]]] = []
    rest = list(reversed(files))
    left = count // 2
    while left > 0:
        path, names = rest.pop()
        first.append((path, names[:left]))
        if len(names) > left:
            rest.append((path, names[left:]))
        left -= len(names)
    return first, rest[::-1]


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _changed_links(found: Found) -> dict[str, str]:
    if not found.links:
        return {}
    changed = {_below(path, name) for path, names in found.changed.items() for name in names}
    return {path: first for path, first in found.links.items() if path in changed}


def _vanished(found: Found, rows: list[Any]) -> list[str]:
    """What had changed and was gone when it was to be copied."""
    if len(rows) == found.changes:
        return []
    there = {row[0] for row in rows}
    changed = (_below(path, name) for path, names in found.changed.items() for name in names)
    return [path for path in changed if path not in there]


def forget(context: Context, fds: list[int], *, key: str) -> None:
    """Keep nothing of a folder."""
    context.server.looks.pop(key, None)


OPS = {"look": look, "sync": sync, "forget": forget}
