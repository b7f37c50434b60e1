"""The plain-copy driver, for machines that mount no overlayfs: what is to be written is a copy of its parent.

What a step changed is found when it is committed, by comparing with the copy as it was made, and only that is
kept: on disk a committed snapshot is the same layer directory as with overlayfs. A snapshot that is read
is laid out once, by hardlinks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bknb.protocols import Mount, Mounts, Shim
from bknb.snapshot.database import Row
from bknb.snapshot.layered import LayeredSnapshotter


class NativeSnapshotter(LayeredSnapshotter):
    """Marks of deletion are files, because some of these machines refuse device nodes."""

    name = "native"

    def __init__(self, root: Path, shim: Shim) -> None:
        super().__init__(root, shim, "names")
        self._laying_out = asyncio.Lock()

    async def _make(self, row: Row) -> None:
        assert row.layer is not None
        await self._shim.call(
            "trees.copy", layers=self._paths(row.stack), path=self._folder(row.layer), marks=self._marks
        )

    def _writable(self, row: Row) -> Mounts:
        assert row.layer is not None
        return (Mount("bind", self._fs(row.layer), ("rbind", "rw")),)

    async def _readable(self, row: Row) -> Mounts:
        if len(row.stack) > 1:
            async with self._laying_out:
                row = self._db.need(row.name or "")
                if len(row.stack) > 1:
                    row = await self._lay_out(row)
        return (Mount("bind", self._fs(row.stack[0]), ("rbind", "ro")),)

    async def _lay_out(self, row: Row) -> Row:
        """Have a directory that shows the whole stack.

        Without namespaces nothing keeps a step from writing to what it only reads: there it gets copies.
        """
        layer, _ = await self._new_layer(
            "trees.flatten", layers=self._paths(row.stack), below=[],
            copying=self._shim.isolation.tier == "none",
        )  # fmt: skip
        self._db.restack(row, [-layer], [layer])
        return self._db.need(row.name or "")

    async def _seal(self, row: Row) -> dict[str, Any]:
        assert row.layer is not None
        made: dict[str, Any] = await self._shim.call(
            "trees.distill", path=self._folder(row.layer), lower=self._paths(row.stack), marks=self._marks
        )
        return made
