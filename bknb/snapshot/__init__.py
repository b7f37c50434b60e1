"""File system states, as stacks of layer directories.

::

    ROOT/snapshots.db              names, parents, stacks (sqlite, WAL; several kernels at once)
    ROOT/layers/ID/fs              a layer directory: what one step added, changed and (whiteouts) removed
    ROOT/layers/ID/work            overlayfs's own, while the snapshot is active
    ROOT/owners/TOKEN.lock         locked by each living kernel: active snapshots of a dead one are swept

Two drivers, one set of rules (`layered`): `overlay` mounts the stack, `native` copies it where overlayfs
cannot be mounted. A snapshot has two stacks. The *logical* one is what merges and layer blobs are made of:
one layer for each step. The *mounted* one shows the same files with fewer directories: runs of layers are
flattened into hardlink farms, because the kernel takes 500 at most and each costs time.
"""

from __future__ import annotations

from pathlib import Path

from bknb.errors import UnsupportedError
from bknb.protocols import Shim
from bknb.snapshot.layered import LayeredSnapshotter
from bknb.snapshot.native import NativeSnapshotter
from bknb.snapshot.overlay import OverlaySnapshotter

__all__ = ["LayeredSnapshotter", "NativeSnapshotter", "OverlaySnapshotter", "open_snapshotter"]


async def open_snapshotter(root: str | Path, shim: Shim, wanted: str = "auto") -> LayeredSnapshotter:
    """The driver for this machine, on a folder of its own below the state folder; the shim has been started.

    What dead kernels left is swept. Close it with `aclose`. `wanted` is ``auto``, ``overlayfs`` or ``native``.

    Raises:
        StoreError: the folder cannot be used.
        UnsupportedError: overlayfs is wanted and cannot be mounted.
    """
    isolation = shim.isolation
    if wanted == "overlayfs" and not isolation.overlay:
        raise UnsupportedError("overlayfs cannot be mounted on the state folder: set %config Bknb.snapshotter to auto or native")
    snapshotter: LayeredSnapshotter
    if isolation.overlay and wanted != "native":
        marks = "trusted" if isolation.tier == "root" else "user"
        snapshotter = OverlaySnapshotter(Path(root) / f"overlay-{marks}", shim, marks)
    else:
        snapshotter = NativeSnapshotter(Path(root) / "native", shim)
    await snapshotter.sweep()
    return snapshotter
