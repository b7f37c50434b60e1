"""The overlayfs driver: a stack is mounted as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bknb.protocols import Mount, Mounts, Shim
from bknb.snapshot.database import Row
from bknb.snapshot.layered import LayeredSnapshotter


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
            for name, mode in (("fs", 0o755), ("work", 0o700)):
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
