"""Layer directories made out of others: flattened stacks, differences, sealed upper directories.

Files are hardlinked: both sides are immutable, so one file may be in any number of layers. What is made here
is again a layer directory (`marks`). Marks that have nothing below them to hide are left out, because
overlayfs shows them to whoever lists a directory that exists in one layer only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence

from bknb import beneath
from bknb.shim.marks import Marks
from bknb.shim.same import Copier, copy_metadata, same
from bknb.shim.stack import DIRECTORY, Found, Level

Check = Callable[[], None]
"""Called now and then; raises when the op was cancelled."""


Known = dict[str, tuple[int, int]]


class Made:
    """What a layer directory holds: bytes on disk, inodes, whiteouts, paths of opaque directories.

    `plain`: its root is as a new one, owned by root and of mode 0755.
    """

    __slots__ = ("bytes", "inodes", "marks", "opaque", "plain")

    def __init__(self) -> None:
        self.opaque: list[str] = []
        self.bytes = 0
        self.inodes = 0
        self.marks = 0
        self.plain = True

    def to_dict(self) -> dict[str, int | bool]:
        """As it goes over the wire."""
        return {"bytes": self.bytes, "inodes": self.inodes, "marks": self.marks, "plain": self.plain}


class Farm:
    """Writes one new layer directory.

    `copying` copies instead of linking. `known` tells files of the upper side that are certainly as they
    were: path -> (inode, change time in ns).
    """

    def __init__(
        self, target: int, marks: Marks, check: Check, *, copying: bool = False, known: Known | None = None
    ) -> None:
        self._known = known or {}
        self._target = target
        self._marks = marks
        self._check = check
        self._copier = Copier(target)
        self._place = self._copier.copy if copying else self._link
        self._directories: list[tuple[str, int]] = []  # (path, layer with its metadata), outermost first
        self.inodes = 0
        self.bytes = 0  # of the directories that `finish` finished

    def _link(self, source: int, name: str, target: int, path: str) -> None:
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.EXDEV):
                raise
            self._copier.copy(source, name, target, path)

    def flatten(self, roots: Sequence[int], below: Sequence[int], path: str = "") -> None:
        """Lay a stack down as one directory that does the same to what is `below`.

        Starts at `path`, which exists in the target.
        """
        todo = [(path, list(roots), list(below), False)]
        while todo:
            self._check()
            path, roots, below, covers = todo.pop()
            self._directories.append((path, roots[0]))
            target = beneath.open(self._target, path, DIRECTORY)
            try:
                if len(roots) == 1 and not below:
                    todo += [(child, roots, below, False) for child in self._lay(roots[0], target, path)]
                    continue
                with Level(roots, path, self._marks) as level, Level(below, path, self._marks) as under:
                    if (covers or level.opaque) and below:
                        self._marks.make_opaque(target)
                    hidden = covers or level.opaque
                    under_names = {} if hidden else under.visible()
                    for name, found in level.names.items():
                        there = under_names.get(name)
                        if found.entry is None:
                            if there is not None:
                                self._marks.hide(target, name)
                        elif found.is_dir:
                            os.mkdir(name, 0o700, dir_fd=target)
                            lower = there.roots if there is not None else []
                            child = f"{path}/{name}".lstrip("/")
                            todo.append((child, found.roots, lower, found.covers))
                        else:
                            self._place(found.fd, name, target, f"{path}/{name}")
            finally:
                os.close(target)

    def _lay(self, root: int, target: int, path: str) -> list[str]:
        """One directory of one layer, with nothing below it to hide; the paths of those in it, made and empty."""
        folders = []
        source = beneath.open(root, path, DIRECTORY)
        try:
            for name, entry in self._marks.listing(source).entries.items():
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(name, 0o700, dir_fd=target)
                    folders.append(f"{path}/{name}".lstrip("/"))
                else:
                    self._place(source, name, target, f"{path}/{name}")
        finally:
            os.close(source)
        return folders

    def difference(self, lower: Sequence[int], upper: Sequence[int]) -> None:
        """Lay down what the stack `upper` has over the stack `lower`."""
        todo = [("", list(lower), list(upper))]
        walked: list[tuple[str, int, bool]] = []
        while todo:
            self._check()
            path, lower, upper = todo.pop()
            target = beneath.open(self._target, path, DIRECTORY)
            try:
                with Level(lower, path, self._marks) as below, Level(upper, path, self._marks) as above:
                    there, here = below.visible(), above.visible()
                    for name in there.keys() - here.keys():
                        self._marks.hide(target, name)
                    for name, found in here.items():
                        old, child = there.get(name), f"{path}/{name}".lstrip("/")
                        if not found.is_dir:
                            if old is None or old.is_dir or not self._same(old, found, name, child):
                                self._place(found.fd, name, target, child)
                            continue
                        os.mkdir(name, 0o700, dir_fd=target)
                        if old is not None and old.is_dir:
                            walked.append((child, found.roots[0], self._same(old, found, name, child)))
                            todo.append((child, old.roots, found.roots))
                        else:
                            self.flatten(found.roots, [], child)
            finally:
                os.close(target)
        for child, root, unchanged in reversed(walked):
            if not unchanged or not self._drop_empty(child):
                self._directories.append((child, root))

    def _same(self, old: Found, new: Found, name: str, path: str) -> bool:
        """Whether two visible entries are the same file, or directories of the same metadata."""
        right = os.stat(name, dir_fd=new.fd, follow_symlinks=False)
        if self._known.get(path) == (right.st_ino, right.st_ctime_ns):
            return True
        left = os.stat(name, dir_fd=old.fd, follow_symlinks=False)
        return same(left, old.fd, right, new.fd, name)

    def _drop_empty(self, path: str) -> bool:
        """Remove a directory that nothing was put in."""
        try:
            beneath.rmdir(self._target, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def finish(self) -> None:
        """Give directories their metadata, innermost first: filling them changed their times."""
        depth_first = sorted(self._directories, key=lambda item: -item[0].count("/") - bool(item[0]))
        for path, root in depth_first:
            source = beneath.open(root, path, DIRECTORY)
            try:
                target = beneath.open(self._target, path, DIRECTORY)
                try:
                    copy_metadata(source, target, os.fstat(source))
                    self.inodes += 1
                    self.bytes += os.fstat(target).st_blocks * 512
                finally:
                    os.close(target)
            finally:
                os.close(source)


def expand(layer: int, lower: Sequence[int], path: str, marks: Marks) -> None:
    """Replace the opaque mark at a path by whiteouts of what the stack below has there."""
    fd = beneath.open(layer, path, DIRECTORY)
    try:
        marks.clear_opaque(fd)
    finally:
        os.close(fd)
    todo = [(path, roots)] if (roots := directory_roots(lower, path, marks)) else []
    while todo:
        path, roots = todo.pop()
        fd = beneath.open(layer, path, DIRECTORY)
        try:
            with Level([layer], path, marks) as own, Level(roots, path, marks) as below:
                for name, old in below.visible().items():
                    new = own.names.get(name)
                    if new is None:
                        marks.hide(fd, name)
                    elif new.is_dir and old.is_dir:
                        todo.append((f"{path}/{name}".lstrip("/"), old.roots))
        finally:
            os.close(fd)


def directory_roots(stack: Sequence[int], path: str, marks: Marks) -> list[int]:
    """The layers of a stack that the merged directory at a path is made of; empty if it is not one."""
    roots, at = list(stack), ""
    for word in [part for part in path.split("/") if part]:
        if not roots:
            return []
        with Level(roots, at, marks) as level:
            found = level.names.get(word)
            roots = found.roots if found is not None else []
        at = f"{at}/{word}".lstrip("/")
    return roots


def measure(
    layer: int, marks: Marks, check: Check, linked: Mapping[str, tuple[int, int]] | None = None
) -> Made:
    """What a layer directory holds; a file with several names counts once.

    `linked` are directories without marks whose inodes and bytes are known: path -> (inodes, bytes).
    """
    made, seen, linked = Made(), set(), linked or {}
    root = os.fstat(layer)
    made.plain = (root.st_mode & 0o7777, root.st_uid, root.st_gid) == (0o755, 0, 0)
    made.plain = made.plain and all(marks.own_xattr(key) for key in os.listxattr(layer))
    for path, fd, entries in beneath.walk(layer):
        check()
        if marks.is_opaque(fd):
            made.opaque.append(path.strip("/"))
        made.inodes += 1
        made.bytes += os.fstat(fd).st_blocks * 512
        if linked:
            known = [e for e in entries if f"{path}/{e.name}".strip("/") in linked]
            for entry in known:
                entries.remove(entry)
                made.inodes += linked[f"{path}/{entry.name}".strip("/")][0]
                made.bytes += linked[f"{path}/{entry.name}".strip("/")][1]
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            state = entry.stat(follow_symlinks=False)
            if state.st_nlink > 1:
                if state.st_ino in seen:
                    continue
                seen.add(state.st_ino)
            made.inodes += 1
            made.bytes += state.st_blocks * 512
            made.marks += entry.name.startswith(".wh.") if marks.name == "names" else _is_device_mark(state)
    return made


def _is_device_mark(state: os.stat_result) -> bool:
    return state.st_rdev == 0 and (state.st_mode & 0o170000) == 0o020000


def taken_down(tree: int, check: Check) -> Known:
    """What is needed to see later which files of a tree were touched: every change sets the change time."""
    known: Known = {}
    for path, _, entries in beneath.walk(tree):
        check()
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                state = entry.stat(follow_symlinks=False)
                known[f"{path}/{entry.name}".lstrip("/")] = (state.st_ino, state.st_ctime_ns)
    return known
