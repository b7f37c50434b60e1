"""What both drivers have in common: stacks of layer directories, and the rules by which they are made.

Merging concatenates stacks, and the difference to an ancestor is a slice: no file is touched. Only where a
layer holds whiteouts, which would mean something else over another base, is a stack flattened against
that base. A stack that grows long is flattened in runs, newest first, so that a base image with its many
files stays as it is: 2,000 steps are some 120 directories.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bknb.errors import SnapshotError
from bknb.owner import Owner
from bknb.protocols import LayerDirectory, Mount, Mounts, Shim, SnapshotInfo, Usage
from bknb.snapshot.database import Database, New, Row, Sealed

STACK_LIMIT: Final = 200
"""Directories in one mount; the kernel takes 500, and names of 400 fit into a page where mounts need one."""
LISTED: Final = 100
"""Of more layers than this the folder that they lie in is listed, instead of asking for each."""
RUN_LENGTH: Final = 100
"""Layers that are flattened into one."""


class LayeredSnapshotter(ABC):
    """A `protocols.Snapshotter`; drivers say how a stack becomes a tree."""

    name: str

    def __init__(self, root: Path, shim: Shim, marks: str) -> None:
        self._root = root
        self._layers = str(root / "layers")  # a chain names many of them: joining Paths would cost 5 us each
        self._shim = shim
        self._marks = marks
        self._doomed: set[int] = set()
        self._looked_at = (0, 0)  # when the folders changed last, and the version of the table
        self._there: set[str] = set()  # snapshots that had their folders then
        self._active: dict[str, Row] = {}  # of those that are made several at a time: asked for again at once
        (root / "layers").mkdir(parents=True, exist_ok=True)
        (root / "empty").mkdir(exist_ok=True)
        self._owner = Owner(root / "owners")
        self._db = Database(root / "snapshots.db", self._owner.token)

    # --- what a driver says ---

    @abstractmethod
    async def _make(self, row: Row) -> None:
        """Make the folder of a new active snapshot."""

    @abstractmethod
    def _writable(self, row: Row) -> Mounts:
        """Mounts of an active snapshot."""

    @abstractmethod
    async def _readable(self, row: Row) -> Mounts:
        """Mounts of a committed snapshot that has layers."""

    @abstractmethod
    async def _seal(self, row: Row) -> dict[str, Any]:
        """Make the layer of an active snapshot immutable; {bytes, inodes, marks, plain}."""

    # --- containerd's verbs ---

    async def prepare(self, name: str, parent: str = "") -> Mounts:
        row = self._db.insert_active(name, self._db.need(parent) if parent else None)
        try:
            await self._make(row)
        except BaseException:
            await self.remove(name)
            raise
        return self._writable(row)

    async def view(self, name: str) -> Mounts:
        row = self._db.need(name)
        if not row.stack:
            return (Mount("bind", str(self._root / "empty"), ("rbind", "ro")),)
        return await self._readable(row)

    async def mounts(self, name: str) -> Mounts:
        return self._writable(self._db.need(name, "active"))

    async def prepare_folder(self, name: str, base: str = "") -> Mounts:
        stack = self._db.need(base).stack if base else ()
        row = self._db.insert_active(name, None)
        assert row.layer is not None
        try:
            await self._shim.call(
                "trees.copy", layers=self._paths(stack), path=self._folder(row.layer), marks=self._marks
            )
            self._db.keep(row)
        except BaseException:
            await self.remove(name)
            raise
        return self._writable(row)

    async def commit(self, name: str, active: str) -> Usage:
        row = self._db.need(active, "active")
        sealed = await self._sealed(name, row, await self._seal(row))
        self._db.commit([sealed])
        return sealed.usage

    async def _sealed(self, name: str, row: Row, made: dict[str, Any]) -> Sealed:
        """What to write of a snapshot whose layer is sealed."""
        assert row.layer is not None
        stack, flats = await self._shorten([*row.stack, row.layer])
        usage = Usage(made["bytes"], made["inodes"])
        return Sealed(row, name, stack, flats, made["marks"] > 0, made["plain"], usage)

    async def prepare_each(self, wanted: Sequence[tuple[str, str]]) -> list[Mounts]:
        parents = {parent: self._db.need(parent) for _, parent in wanted if parent}
        rows = self._db.insert_actives([(name, parents.get(parent)) for name, parent in wanted])
        try:
            await self._make_each(rows)
        except BaseException:
            for name, _ in wanted:
                await self.remove(name)
            raise
        self._active.update((row.name or "", row) for row in rows)
        return [self._writable(row) for row in rows]

    async def commit_each(self, wanted: Sequence[tuple[str, str]]) -> list[Usage]:
        known = self._active
        rows = [known.pop(name) if name in known else self._db.need(name, "active") for _, name in wanted]
        made = await self._seal_each(rows)
        sealed = [
            await self._sealed(name, row, each) for (name, _), row, each in zip(wanted, rows, made, strict=True)
        ]
        self._db.commit(sealed)
        return [each.usage for each in sealed]

    async def _make_each(self, rows: Sequence[Row]) -> None:
        """`_make` of several."""
        for row in rows:
            await self._make(row)

    async def _seal_each(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """`_seal` of several."""
        return [await self._seal(row) for row in rows]

    async def merge(self, name: str, parents: Sequence[str]) -> None:
        rows = [self._db.need(parent) for parent in parents]
        if not rows:
            raise SnapshotError("a merge needs at least one snapshot")
        first, others = rows[0], rows[1:]
        above = [layer for row in others for layer in self._db.logical(row)]
        stack, flats, made = list(first.stack), [], None
        if above and not self._db.marked_layers().isdisjoint(above):
            layer, made = await self._flatten(_last_of_each(above), first.stack)
            stack.append(-layer)
            flats.append(layer)
        else:
            stack += [layer for row in others for layer in row.stack]
        shorter, more = await self._shorten(_last_of_each(stack))
        usage = Usage(0, made["inodes"]) if made else Usage(0, 0)
        self._db.insert(
            New(
                name, "committed", None, first, shorter, above, [*flats, *more], rows,
                plain=all(row.plain for row in rows), usage=usage,
            )
        )  # fmt: skip

    async def diff(self, name: str, lower: str, upper: str) -> None:
        below = self._db.need(lower) if lower else None
        above = self._db.need(upper) if upper else None
        under = self._db.logical(below) if below else ()
        over = self._db.logical(above) if above else ()
        parents = [row for row in (below, above) if row is not None]
        if over[: len(under)] == under:
            layers = over[len(under) :]
            stack, flats = await self._alone(layers)
            plain = above.plain if above else True
            self._db.insert(New(name, "committed", None, None, stack, layers, flats, parents, plain=plain))
            return
        layer, made = await self._new_layer(
            "trees.difference", lower=self._paths(below.stack if below else ()),
            upper=self._paths(above.stack if above else ()),
        )  # fmt: skip
        marked = made["marks"] > 0
        stack, flats = await self._alone([layer], {layer} if marked else set())
        usage = Usage(made["bytes"], made["inodes"])
        self._db.insert(
            New(name, "committed", layer, None, stack, [layer], flats, parents, marked, made["plain"], usage)
        )

    async def stat(self, name: str) -> SnapshotInfo | None:
        row = self._db.find(name)
        if row is None:
            return None
        written = (row.layer,) if row.kind == "active" and row.layer is not None else ()
        return row.info if all(os.path.isdir(path) for path in self._paths((*row.stack, *written))) else None

    def are_there(self, names: Collection[str]) -> bool:
        # Where no folder has come or gone, and nobody else has written, what was there is there.
        state = (os.stat(self._layers).st_mtime_ns, self._db.version())
        if state != self._looked_at:
            self._looked_at, self._there = state, set()
        if not self._there.issuperset(names):
            if not self._have_folders(names):
                return False
            self._there.update(names)
        return True

    def _have_folders(self, names: Collection[str]) -> bool:
        stacks = self._db.stacks(names)
        if len(stacks) < len(names):
            return False
        layers = {abs(layer) for stack in stacks.values() for layer in stack}
        if len(layers) > LISTED:
            return layers <= {int(name) for name in os.listdir(self._layers) if name.isdigit()}
        return all(os.path.isdir(self._fs(layer)) for layer in layers)

    async def usage(self, name: str) -> Usage:
        row = self._db.find(name)
        if row is None:
            raise SnapshotError(f"there is no snapshot {name!r}")
        if row.kind == "active" and row.layer is not None:
            made = await self._shim.call("trees.measure", path=self._fs(row.layer), marks=self._marks)
            return Usage(made["bytes"], made["inodes"])
        return row.usage

    async def remove(self, name: str) -> None:
        self._active.pop(name, None)
        self._there.discard(name)
        row = self._db.find(name)
        if row is not None and row.kind == "active" and row.layer is not None:
            # A full disk takes no change of a table either: what nobody else stands on goes first.
            await self._shim.call("trees.remove", paths=[self._folder(row.layer)])
        await self._discard(self._db.remove(name))

    async def walk(self) -> Sequence[SnapshotInfo]:
        return [row.info for row in self._db.walk()]

    async def layer(self, name: str) -> LayerDirectory | None:
        """The layer that a committed snapshot adds, for making a blob of it; None for a merge or a slice."""
        row = self._db.need(name)
        if row.layer is None:
            return None
        base = self._db.by_id(row.base) if row.base is not None else None
        lower = base.stack if base is not None else ()
        return LayerDirectory(self._fs(row.layer), tuple(self._paths(lower)), self._marks)

    # --- stacks ---

    def _folder(self, layer: int) -> str:
        return f"{self._layers}/{abs(layer)}"

    def _fs(self, layer: int) -> str:
        return f"{self._layers}/{abs(layer)}/fs"

    def _paths(self, stack: Sequence[int]) -> list[str]:
        layers = self._layers
        return [f"{layers}/{abs(layer)}/fs" for layer in stack]  # of a long chain, several times a step

    async def _flatten(self, layers: Sequence[int], below: Sequence[int]) -> tuple[int, dict[str, Any]]:
        """A new layer that does to `below` what a stack of others does."""
        return await self._new_layer("trees.flatten", layers=self._paths(layers), below=self._paths(below))

    async def _new_layer(self, op: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Have the shim make a layer out of others; ours until a snapshot takes it."""
        layer = self._db.new_layer()
        try:
            made = await self._shim.call(op, path=self._folder(layer), marks=self._marks, **arguments)
        except BaseException:
            await self._discard([layer])
            raise
        return layer, made

    async def _shorten(self, stack: Sequence[int]) -> tuple[list[int], list[int]]:
        """The stack with runs flattened until it is short enough, and the new layers."""
        short, flats = list(stack), []
        while len(short) > STACK_LIMIT:
            start, end = _run_to_flatten(short)
            layer, _ = await self._flatten(short[start:end], short[:start])
            short[start:end] = [-layer]
            flats.append(layer)
        return short, flats

    async def _alone(
        self, layers: Sequence[int], marked: set[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """A mounted stack that shows layers over nothing, and the flattened layers that it needs."""
        marked = self._db.marked_layers() if marked is None else marked
        stack = _last_of_each(layers)
        if marked.isdisjoint(stack):
            return await self._shorten(stack)
        layer, _ = await self._flatten(stack, ())
        return [-layer], [layer]

    # --- what is left behind ---

    async def _discard(self, layers: Sequence[int]) -> None:
        """Remove folders, then forget them: cancelled in between the next call does it, killed the next start.

        What cannot be removed is no reason for a build to fail; it is tried again likewise.
        """
        self._doomed.update(layers)
        doomed = sorted(self._doomed)
        if doomed:
            left: list[str] = await self._shim.call(
                "trees.remove", paths=[self._folder(layer) for layer in doomed]
            )
            gone = [layer for layer in doomed if self._folder(layer) not in left]
            self._db.forget_layers(gone)
            self._doomed.difference_update(gone)

    async def sweep(self) -> None:
        """Remove what dead kernels were writing, and folders that nobody knows."""
        folders = {int(entry) for entry in os.listdir(self._root / "layers") if entry.isdigit()}
        layers = sorted(folders - self._db.known_layers())
        for token in self._db.owners():
            if self._owner.is_dead(token):
                layers += self._db.adopt(token)
        await self._discard(layers)
        self._owner.tidy(self._db.owners())

    async def aclose(self) -> None:
        """Drop what is unfinished and let go of the folder."""
        with suppress(Exception):  # what cannot be removed now is swept at the next start
            await self._discard(self._db.adopt(self._owner.token))
        self._db.close()
        self._owner.release()


def _last_of_each(layers: Sequence[int]) -> list[int]:
    """Without repetitions: what lies on top once more hides, and repeats, all that it did below."""
    return list(dict.fromkeys(reversed(layers)))[::-1]


def _run_to_flatten(stack: Sequence[int]) -> tuple[int, int]:
    """Which part of a stack to make one layer of: the topmost long run of single layers, else the top."""
    end = len(stack)
    while end > 0:
        start = end
        while start > 0 and stack[start - 1] > 0:
            start -= 1
        if end - start >= RUN_LENGTH // 2:
            return max(start, end - RUN_LENGTH), end
        end = start - 1 if start == end else start
    return len(stack) - RUN_LENGTH, len(stack)
