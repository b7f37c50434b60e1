"""Folders of a context that come into a result as hardlinks: its files are on the disk once.

A layer's files are never written: overlayfs copies one up before a step changes it, and what makes trees without
overlayfs copies them. So a file may lie in the context and in results at once, if two things hold. Nothing writes to the
result's own layer any more: only the last action of an operation links. And no tree may show one file under two
paths, as if it had been two names of it: each layer of a context gives its files away under one mapping
of paths, `/src/x` to `/app/x`, which is written down beside it; whoever wants another copies.

What is linked goes into the layer itself, beside overlayfs: so it is done when the tree is not mounted any more.
"""

from __future__ import annotations

import contextlib
import marshal
import os

from bknb import beneath
from bknb.shim.farm import Farm
from bknb.shim.marks import Marks, marks_of
from bknb.shim.stack import DIRECTORY, Roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from bknb.shim.mounts import Mounts

GIVEN = "given"
"""Beside a layer of a context: the mapping of paths under which its files are linked to."""
LINKED = "linked"
"""Beside a layer that is being written: its linked folders, with inodes and bytes of what is not shared."""

Linked = dict[str, tuple[int, int]]


class Graft:
    """What of one copy is linked: offered folder by folder while the trees are open, laid afterwards.

    Args:
        layers: directories that the source is made of, topmost first.
        upper: the layer directory that is written.
        marks: how both spell what is gone.
    """

    def __init__(self, layers: Sequence[str], upper: str, marks: Marks) -> None:
        self._layers = layers
        self._upper = upper
        self._marks = marks
        self._folders: list[tuple[str, str]] = []
        self._mapping: bytes | None = None
        self.linked = 0

    @classmethod
    def between(cls, source: Mounts, target: Mounts, tier: str) -> Graft | None:
        """For two trees; None where they are not made of layers."""
        layers, upper = _layers(source), _upper(target)
        if not layers or not upper:
            return None
        return cls(layers, upper, marks_of("user" if tier == "user" else "trusted"))

    def offer(self, source: str, target: str) -> bool:
        """Whether a folder of the source will be laid at a new folder of the target: it is to be left empty."""
        mapping = mapping_of(source, target)
        if self._mapping is None:
            self._mapping = mapping if _give(self._layers, mapping) else b""
        if self._mapping != mapping:
            return False
        self._folders.append((source, target))
        return True

    def lay(self, check: Callable[[], None]) -> None:
        """Link everything that was offered."""
        if not self._folders:
            return
        linked: Linked = {}
        with Roots(list(reversed(self._layers)), [self._upper]) as (stack, (upper,)):
            for source, target in self._folders:
                roots = [fd for fd in (_inside(root, source) for root in stack) if fd >= 0]
                try:
                    made = self._lay(roots, upper, target, check)
                finally:
                    for fd in roots:
                        os.close(fd)
                linked[target.strip("/")] = made
                self.linked += 1
        note(os.path.dirname(self._upper), linked)

    def _lay(
        self, roots: list[int], upper: int, target: str, check: Callable[[], None]
    ) -> tuple[int, int]:
        fd = beneath.open(upper, target, DIRECTORY)
        try:
            farm = Farm(fd, self._marks, check)
            farm.flatten(roots, [])
            farm.finish()
            return farm.inodes, farm.bytes
        finally:
            os.close(fd)


def _layers(mounts: Mounts) -> list[str]:
    """The layers of a tree that is only read, topmost first."""
    if len(mounts) != 1:
        return []
    mount: dict[str, Any] = mounts[0]
    if mount["type"] == "bind":
        return [mount["source"]] if "ro" in mount["options"] else []
    lowers = [option[6:] for option in mount["options"] if option.startswith("lower=")]
    return lowers if "ro" in mount["options"] else []


def _upper(mounts: Mounts) -> str:
    """The layer of a tree that is written; "" for a tree that starts as a copy (`trees.copy`)."""
    if len(mounts) != 1:
        return ""
    mount: dict[str, Any] = mounts[0]
    if mount["type"] == "bind":
        place = os.path.dirname(mount["source"])
        return mount["source"] if "rw" in mount["options"] and not os.path.exists(f"{place}/copied") else ""
    return next((option[6:] for option in mount["options"] if option.startswith("upper=")), "")


def mapping_of(source: str, target: str) -> bytes:
    r"""Where paths come to lie, without what is the same on both sides.

    >>> mapping_of("/src/lib", "/app/src/lib"), mapping_of("/", "/app"), mapping_of("/", "/")
    (b'\x00/app', b'\x00/app', b'\x00')
    """
    old, new = [[part for part in path.split("/") if part] for path in (source, target)]
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    return b"\0".join(os.fsencode("".join(f"/{part}" for part in parts)) for parts in (old, new))


def _give(layers: Sequence[str], mapping: bytes) -> bool:
    """Whether all layers are given away under this mapping; decided once for each, by whoever comes first."""
    places = [os.path.join(os.path.dirname(layer), GIVEN) for layer in layers]
    if any(_read(place) not in (b"", mapping) for place in places):
        return False
    return all(_take(place, mapping) for place in places)


def _take(place: str, mapping: bytes) -> bool:
    draft = f"{place}.{os.getpid()}.{os.urandom(4).hex()}"
    if _read(place) == mapping:
        return True
    with open(draft, "xb") as file:
        file.write(mapping)
    try:
        os.link(draft, place)
        return True
    except FileExistsError:
        return _read(place) == mapping
    finally:
        os.unlink(draft)


def _read(place: str) -> bytes:
    try:
        with open(place, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _inside(root: int, path: str) -> int:
    """A folder of a layer, or -1 where the layer has none there."""
    try:
        return beneath.open(root, path, DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def note(folder: str, linked: Linked) -> None:
    """Write beside a layer what of it is linked."""
    known = noted(folder)
    with open(os.path.join(folder, LINKED), "wb") as file:
        marshal.dump({**known, **linked}, file)


def noted(folder: str) -> Linked:
    """What `note` has written."""
    try:
        with open(os.path.join(folder, LINKED), "rb") as file:
            found: Linked = marshal.load(file)
    except FileNotFoundError:
        return {}
    return found


def settled(folder: str) -> None:
    """The layer is sealed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, LINKED))
