"""Looking at a client's folder: what a build is given of it, and what of that is not as it was last time.

One pass, no file is opened. A file's signature decides whether it is copied again: BuildKit compares size, mode and
modification time; the inode and its change time are compared too, so that an edit which restores the time is
seen. What is known is kept by folder, so that a file that is as it was costs one lstat and one look-up, and no
text is made of its path; the filter is not asked again about a name that it has decided on.

Owners are not part of a context: every file belongs to 0:0 (client/solve.go). Files that are one by hardlink
stay one: the later ones, in the order of BuildKit's walk (names sorted as bytes in each folder), name the first.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from bknb.shim.server import Failure
from bknb.shim.sieve import TOP, Sieve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from bknb.shim.sieve import Infos

    Signature = tuple[int, ...]
    """Mode, size, modification and change time in ns, inode; of a folder its mode; () for what has to be read again."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def signature(info: os.stat_result) -> Signature:
    """What changes when a file may have changed."""
    if modes.S_ISDIR(info.st_mode):
        return (info.st_mode,)
    return (info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def order(path: str) -> list[bytes]:
    """What paths are sorted by: a folder stands before what is in it."""
    return [os.fsencode(part) for part in path.split("/")]


class Known:
    """A folder as it was copied last.

    Attributes:
        folders: path -> name -> signature; "" is the root, and every folder that is part of it is there.
        links: path -> the path that it is a hard link of.
        passed_over: path -> names that the sieve has taken out -> (is a folder, is withheld).
        sieved: all that is known has passed the sieve that is in use.
        wanted: what that sieve includes.
    """

    __slots__ = ("folders", "links", "passed_over", "sieved", "wanted")

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, Signature]] = {"": {}}
        self.links: dict[str, str] = {}
        self.passed_over: dict[str, dict[str, tuple[bool, bool]]] = {}
        self.sieved = False
        self.wanted: tuple[str, ...] = ()

    def decide_by(self, wanted: tuple[str, ...]) -> None:
        """Forget what was decided by a sieve that included something else: a link pointed elsewhere then."""
        if wanted != self.wanted:
            self.wanted = wanted
            self.sieved = False
            self.passed_over.clear()

    @classmethod
    def of(cls, seen: Iterable[tuple[str, Signature, str]]) -> Known:
        """From path, signature and what it is a hard link of; folders before what is in them."""
        known = cls()
        for path, found, link in seen:
            known.put(path, found, link)
        return known

    def put(self, path: str, found: Signature, link: str = "") -> None:
        """A path is part of it, and as its signature says."""
        folder, _, name = path.rpartition("/")
        if len(found) == 1:
            self.folders.setdefault(path, {})
        elif path in self.folders:
            self.drop(path)
        self.folders[folder][name] = found
        self.links.pop(path, None)
        if link:
            self.links[path] = link

    def drop(self, path: str) -> None:
        """A path is no part of it any more, nor is what was below it."""
        folder, _, name = path.rpartition("/")
        above = self.folders.get(folder)
        if above is not None:
            above.pop(name, None)
        self.links.pop(path, None)
        if path not in self.folders:
            return
        below = path + "/"
        for other in [other for other in self.folders if other == path or other.startswith(below)]:
            del self.folders[other]
            self.passed_over.pop(other, None)
        for other in [other for other in self.links if other.startswith(below)]:
            del self.links[other]


class Found:
    """What a walk found.

    Attributes:
        changed: path of a folder -> names in it that are new or may have changed, with their sizes.
        removed: paths that are not there any more, the top of each.
        links: path -> the path that it is a hard link of.
        folders: paths in `changed` of folders.
        special: paths in `changed` of what is neither a file nor a folder.
        withheld: paths that the session kept back.
        files: how many files are part of the context now, folders not counted; `size` is their bytes.
        changes: how many names are in `changed`; `copies` of them are no folders, `to_copy` is their bytes.
    """

    __slots__ = ("changed", "changes", "copies", "files", "folders", "links", "removed", "size", "special", "to_copy", "withheld")

    def __init__(self) -> None:
        self.changed: dict[str, list[str]] = {}
        self.removed: list[str] = []
        self.links: dict[str, str] = {}
        self.folders: set[str] = set()
        self.special: set[str] = set()
        self.withheld: list[str] = []
        self.files = self.size = self.changes = self.copies = self.to_copy = 0

    def change(self, folder: str, name: str, size: int, *, is_folder: bool = False) -> None:
        """A name that has to be copied."""
        self.changed.setdefault(folder, []).append(name)
        self.changes += 1
        if is_folder:
            self.folders.add(f"{folder}/{name}" if folder else name)
        else:
            self.copies += 1
        self.to_copy += size


class _Folder:
    """A folder on the way down.

    `taken`: it is part of the context; else it becomes so with the first thing in it that is. `seen` counts the
    names in it that were known and are still part, `lost` are those that were known and are there but no part.
    """

    __slots__ = ("above", "fd", "infos", "known", "lost", "mode", "name", "names", "path", "seen", "taken", "todo")

    def __init__(
        self, above: _Folder | None, name: str, fd: int, mode: int, infos: Infos, *, taken: bool
    ) -> None:
        self.above = above
        self.name = name
        self.path: str = f"{above.path}/{name}" if above is not None and above.path else name
        self.fd = fd
        self.mode = mode
        self.infos = infos
        self.taken = taken
        self.known: dict[str, Signature] = {}
        self.seen = 0
        self.names: list[str] = []
        self.lost: set[str] = set()
        self.todo: list[tuple[str, int, Infos, bool]] = []


class Walk:
    """One walk of a folder. `run` it once; `found` is the answer.

    Args:
        root: the folder.
        sieve: what of it is wanted.
        known: as it was; the walk notes in it what the sieve decided, and nothing else.
        check: called for each folder; raises when nobody wants the answer.
    """

    def __init__(self, root: str, sieve: Sieve, known: Known, check: Callable[[], None]) -> None:
        self.found = Found()
        self._root = root
        self._sieve = sieve
        self._known = known
        self._check = check
        self._several: list[tuple[list[bytes], str, tuple[int, int], bool]] = []

    def run(self) -> Found:
        """Walk.

        Raises:
            Failure: PathError, something that is wanted cannot be read.
        """
        stack: list[_Folder] = []
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.append(_Folder(None, "", fd, 0, TOP, taken=True))
            self._list(stack[-1])
            while stack:
                here = stack[-1]
                below = self._enter(here) if here.todo else None
                if below is not None:
                    stack.append(below)
                    self._list(below)
                elif not here.todo:
                    self._leave(stack.pop())
        except OSError as error:
            at = stack[-1].path if stack else ""
            raise self._unreadable(error, at) from None
        finally:
            for folder in stack:
                os.close(folder.fd)
        self._link()
        self.found.withheld.sort(key=order)
        self._known.sieved = True
        return self.found

    def _unreadable(self, error: OSError, folder: str) -> Failure:
        name = str(error.filename) if isinstance(error.filename, str) else ""
        name = f"{folder}/{name}".strip("/") if not name.startswith("/") else ""
        return Failure(
            "PathError", f"cannot read {name or '.'} of the context {self._root} ({error.strerror}): "
            "make it readable, or put it in .dockerignore",
        )  # fmt: skip

    def _enter(self, above: _Folder) -> _Folder | None:
        """The next folder in a folder; None if it is gone, or need not be seen and cannot be read."""
        name, mode, infos, taken = above.todo.pop()
        try:
            fd = os.open(name, _FOLDER, dir_fd=above.fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) or (
                not taken and error.errno in (errno.EACCES, errno.EPERM)
            ):
                return None
            raise
        return _Folder(above, name, fd, mode, infos, taken=taken)

    def _list(self, here: _Folder) -> None:
        """All names of a folder: files that are as they were in one go, then the others."""
        self._check()
        path, found = here.path, self.found
        known = here.known = self._known.folders.get(path, {})
        passed_over = self._known.passed_over.get(path, {}) if self._known.sieved else {}
        same, size, others, folders = 0, 0, [], []
        with os.scandir(here.fd) as entries:
            for entry in entries:
                name = entry.name
                here.names.append(name)
                if name in passed_over and self._still_out(here, entry, passed_over[name]):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    here.lost.add(name)
                    continue
                now = (info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
                if known.get(name) == now and self._known.sieved:
                    same += 1
                    size += info.st_size
                    if info.st_nlink > 1:
                        self._one_of_several(path, name, info, changed=False)
                else:
                    others.append((name, info, now))
        here.seen += same
        found.size += size
        found.files += same
        if same:
            self._take(here)
        for name, info, now in sorted(others, key=_by_name):
            self._file(here, name, info, now)
        for name in sorted(folders, key=os.fsencode):
            self._folder(here, name)
        here.todo.reverse()

    def _still_out(self, here: _Folder, entry: os.DirEntry[str], was: tuple[bool, bool]) -> bool:
        """Whether a name that the sieve has taken out is still what it was then."""
        if entry.is_dir(follow_symlinks=False) != was[0]:
            return False
        here.lost.add(entry.name)  # it may be known still, from before this sieve
        if was[1]:
            self.found.withheld.append(f"{here.path}/{entry.name}".lstrip("/"))
        return True

    def _file(self, here: _Folder, name: str, info: os.stat_result, now: Signature) -> None:
        """What is no folder, and is not known as it is."""
        path = f"{here.path}/{name}" if here.path else name
        verdict = self._sieve.look(path, here.infos, False)
        if not verdict.taken:
            self._pass_over(here, name, False, verdict.withheld)
            return
        self._take(here)
        before = here.known.get(name)
        here.seen += before is not None
        self.found.files += 1
        self.found.size += info.st_size
        if before != now:
            regular = modes.S_ISREG(info.st_mode)
            self.found.change(here.path, name, info.st_size if regular else 0)
            if not regular:
                self.found.special.add(path)
        if info.st_nlink > 1:
            self._one_of_several(here.path, name, info, changed=before != now)

    def _folder(self, here: _Folder, name: str) -> None:
        """A folder: to be entered, taken, or neither."""
        path = f"{here.path}/{name}" if here.path else name
        verdict = self._sieve.look(path, here.infos, True)
        if not verdict.taken and not verdict.enter:
            self._pass_over(here, name, True, verdict.withheld)
            return
        try:
            mode = os.stat(name, dir_fd=here.fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            here.lost.add(name)
            return
        if verdict.taken:
            self._take(here)
            self._take_folder(here, name, mode)
        else:
            here.lost.add(name)  # until something in it is taken
        if verdict.enter:
            here.todo.append((name, mode, verdict.infos, verdict.taken))

    def _pass_over(self, here: _Folder, name: str, is_folder: bool, withheld: bool) -> None:
        """A name that is no part of the context."""
        self._known.passed_over.setdefault(here.path, {})[name] = (is_folder, withheld)
        here.lost.add(name)
        if withheld:
            self.found.withheld.append(f"{here.path}/{name}".lstrip("/"))

    def _take(self, here: _Folder) -> None:
        """Something in a folder is part of the context, so the folder is, and those above it."""
        while not here.taken and here.above is not None:
            here.taken = True
            here.above.lost.discard(here.name)
            self._take_folder(here.above, here.name, here.mode)
            here = here.above

    def _take_folder(self, above: _Folder, name: str, mode: int) -> None:
        before = above.known.get(name)
        above.seen += before is not None
        if before != (mode,):
            self.found.change(above.path, name, 0, is_folder=True)

    def _leave(self, here: _Folder) -> None:
        """All of a folder has been seen: what was known and was not seen is gone."""
        os.close(here.fd)
        if here.seen < len(here.known):
            there = set(here.names) - here.lost
            self.found.removed += [
                f"{here.path}/{name}" if here.path else name for name in here.known if name not in there
            ]

    def _one_of_several(self, folder: str, name: str, info: os.stat_result, *, changed: bool) -> None:
        """A file with more than one name, some of which may be elsewhere."""
        if not modes.S_ISLNK(info.st_mode):
            path = f"{folder}/{name}" if folder else name
            self._several.append((order(path), path, (info.st_dev, info.st_ino), changed))

    def _link(self) -> None:
        """Say of each file with several names which name is the first; a change of that is a change."""
        first: dict[tuple[int, int], str] = {}
        for _, path, inode, changed in sorted(self._several):
            link = first.setdefault(inode, path)
            link = link if link != path else ""
            if link:
                self.found.links[path] = link
            if not changed and self._known.links.get(path, "") != link:
                folder, _, name = path.rpartition("/")
                self.found.change(folder, name, 0)


def _by_name(one: tuple[str, Any, Any]) -> bytes:
    return os.fsencode(one[0])
