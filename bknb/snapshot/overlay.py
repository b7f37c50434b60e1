"""The overlayfs driver: a stack is mounted as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bknb.protocols import Mount, Mounts, Shim
from bknb.snapshot.database import Row
from bknb.snapshot.layered import LayeredSnapshotter

SEVERAL: Final = 8
"""From so many folders on the shim makes them: a request costs less than they do, and this process works on."""


class OverlaySnapshotter(LayeredSnapshotter):
    """`marks` is the namespace of overlayfs's attributes: ``trusted``, or ``user`` in a user namespace."""

    name = "overlayfs"

    def __init__(self, root: Path, shim: Shim, marks: str) -> None:
        super().__init__(root, shim, marks)

    async def _make(self, row: Row) -> None:
        assert row.layer is not None
        folder = self._folder(row.layer)
        if row.plain:  # as this process is root of the shim's namespace, it need not be asked
            os.mkdir(folder, 0o711)
            # What stands on nothing is not mounted as an overlay, which would need a folder to work in.
            for name, mode in (("fs", 0o755), ("work", 0o700))[: 2 if row.stack else 1]:
                os.mkdir(f"{folder}/{name}", mode)
                os.chmod(f"{folder}/{name}", mode)
        else:
            await self._shim.call("trees.make", path=folder, like=self._fs(row.stack[-1]))

    def _writable(self, row: Row) -> Mounts:
        assert row.layer is not None
        if not row.stack:
            return (Mount("bind", self._fs(row.layer), ("rbind", "rw")),)
        lowers = tuple(f"lower={path}" for path in reversed(self._paths(row.stack)))
        folder = self._folder(row.layer)
        return (Mount("overlay", "", (*lowers, f"upper={folder}/fs", f"work={folder}/work")),)

    async def _readable(self, row: Row) -> Mounts:
        if len(row.stack) == 1:
            return (Mount("bind", self._fs(row.stack[0]), ("rbind", "ro")),)
        lowers = tuple(f"lower={path}" for path in reversed(self._paths(row.stack)))
        return (Mount("overlay", "", (*lowers, "ro")),)

    async def _seal(self, row: Row) -> dict[str, Any]:
        assert row.layer is not None
        made: dict[str, Any] = await self._shim.call(
            "trees.seal", path=self._folder(row.layer), lower=self._paths(row.stack), marks=self._marks
        )
        return made

    async def _make_each(self, rows: Sequence[Row]) -> None:
        if len(rows) < SEVERAL:
            await super()._make_each(rows)
            return
        folders = [
            (self._folder(row.layer or 0), "" if row.plain else self._fs(row.stack[-1]), bool(row.stack)) for row in rows
        ]
        await self._shim.call("trees.make_each", folders=folders)

    async def _seal_each(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        layers = [(self._folder(row.layer or 0), self._paths(row.stack)) for row in rows]
        made: list[dict[str, Any]] = await self._shim.call("trees.seal_each", layers=layers, marks=self._marks)
        return made
