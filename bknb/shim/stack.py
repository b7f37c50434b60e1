"""Layer directories laid over one another, read without a mount.

What overlayfs shows of a stack is found here by listing each directory in all layers that have it. Unlike a
mounted view this tells which layer a file comes from, which is what hardlinks need, and it works where
nothing can be mounted. Layers are immutable while they are read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from bknb import beneath
from bknb.shim.marks import Marks

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Found:
    """A name in a merged directory.

    Attributes:
        entry: the topmost entry, or None where the name is gone.
        fd: the directory that the entry is in.
        roots: for a directory: the layers that it is made of, topmost first.
        covers: nothing of this name that is below the stack shows through.
    """

    __slots__ = ("covers", "entry", "fd", "roots")

    def __init__(self, entry: os.DirEntry[str] | None, fd: int, roots: list[int], *, covers: bool) -> None:
        self.entry = entry
        self.fd = fd
        self.roots = roots
        self.covers = covers

    @property
    def is_dir(self) -> bool:
        return bool(self.roots)


class Level:
    """One directory of a stack: `names` maps each name to what the stack says of it.

    `roots` are descriptors of layer directories, topmost first, all of which have a directory at `path`.
    `opaque`: one of them hides what is below the stack here.
    """

    def __init__(self, roots: Sequence[int], path: str, marks: Marks) -> None:
        self.path = path
        self.names: dict[str, Found] = {}
        self.opaque = False
        self.top = -1
        self._open = ExitStack()
        try:
            for root in roots:
                fd = beneath.open(root, path, DIRECTORY)
                self._open.callback(os.close, fd)
                self.top = fd if self.top < 0 else self.top
                self._add(root, fd, marks)
                if self.opaque:
                    break
        except BaseException:
            self._open.close()
            raise

    def _add(self, root: int, fd: int, marks: Marks) -> None:
        listing = marks.listing(fd)
        for name in listing.gone:
            self.names.setdefault(name, Found(None, -1, [], covers=True)).covers = True
        for name, entry in listing.entries.items():
            is_dir = entry.is_dir(follow_symlinks=False)
            found = self.names.get(name)
            if found is None:
                self.names[name] = Found(entry, fd, [root] if is_dir else [], covers=not is_dir)
            elif not found.covers:
                if is_dir:
                    found.roots.append(root)
                else:
                    found.covers = True
        self.opaque = listing.opaque

    def visible(self) -> dict[str, Found]:
        """What is there, without what is gone."""
        return {name: found for name, found in self.names.items() if found.entry is not None}

    def __enter__(self) -> Level:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


class Roots:
    """Descriptors of layer directories, held open for as long as a stack is read.

    Takes stacks as paths, bottom first, as snapshots list them; gives them topmost first, as `Level` wants.
    """

    def __init__(self, *stacks: Sequence[str]) -> None:
        self._open = ExitStack()
        self.stacks: list[list[int]] = []
        try:
            for stack in stacks:
                self.stacks.append([self._enter(path) for path in reversed(stack)])
        except BaseException:
            self._open.close()
            raise

    def _enter(self, path: str) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.callback(os.close, fd)
        return fd

    def __enter__(self) -> list[list[int]]:
        return self.stacks

    def __exit__(self, *error: object) -> None:
        self._open.close()
