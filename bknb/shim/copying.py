"""COPY: one source, a file or a tree, into another tree.

The steps and their order are those of fsutil (vendor/github.com/tonistiigi/fsutil/copy/copy.go), so that
modes, owners, times and what is refused come out alike: a directory that exists keeps its metadata at the
top of the copy and takes the source's below; one that only an include pattern needs is made when the first
file in it is; a copied file always replaces one that is there, and never a directory.

Both sides are walked with descriptors of their own directories, so no link on either side is ever followed
below the start. Files are opened once, copied in the kernel, and share blocks where the disk can.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat as modes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bknb import beneath
from bknb.shim import owners
from bknb.shim.rules import Metadata, Rules, copy_xattrs
from bknb.shim.server import Context, Failure

if TYPE_CHECKING:
    from bknb.patterns import MatchInfo, PatternMatcher
    from bknb.shim.grafting import Graft

CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_USERSPACE = (errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.EIO, errno.EOPNOTSUPP, errno.EINVAL)


class Folder:
    """A directory on the way down: the source's, and the target's once it is needed.

    `empty`: nothing was in the target's, so that nothing has to make room.
    """

    __slots__ = ("above", "empty", "name", "path", "source", "target")

    def __init__(self, above: Folder | None, name: str, source: int, target: int, path: str) -> None:
        self.above = above
        self.name = name
        self.source = source
        self.target = target
        self.path = path
        self.empty = False

    def close(self) -> None:
        """Closes both descriptors."""
        os.close(self.source)
        if self.target >= 0:
            os.close(self.target)


class Copier:
    """Copies into one tree.

    Attributes:
        files, bytes: how much was copied.
        found: (path in the target, sha256 as hex) of each regular file, if digests are wanted.
    """

    def __init__(self, context: Context, rules: Rules, target_root: int) -> None:
        self.files = 0
        self.bytes = 0
        self.found: list[tuple[str, str]] = []
        self._context = context
        self._rules = rules
        self._root = target_root
        self.graft: Graft | None = None
        """Where new folders may be left empty, to be filled with links."""
        self._links: dict[tuple[int, int], str] = {}
        self._source = ""
        self._owners = context.server.owners
        self._metadata = Metadata(rules, self._owners)

    def copy_into(self, source_root: int, source: str, target: str) -> None:
        """Copy a path (its last name not followed) to a path whose directory exists; neither has links in it.

        Raises:
            Failure: PathError, as BuildKit words it.
        """
        above, name = beneath.split(source)
        self._source = source.rstrip("/")
        directory = beneath.open(source_root, above, _DIRECTORY)
        try:
            found = os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
            if not modes.S_ISDIR(found.st_mode):
                self._top_file(directory, name, found, target)
                return
            inside = beneath.child(directory, name, _DIRECTORY) if name else os.dup(directory)
            folder = Folder(None, "", inside, -1, target.rstrip("/"))
            try:
                truth = self._owners.state(directory, name, found) if name else found
                self._top_directory(folder, found, truth)
            finally:
                folder.close()
        finally:
            os.close(directory)

    def _top_file(self, source: int, name: str, found: os.stat_result, target: str) -> None:
        """The one file, link or device that was asked for."""
        below, target_name = beneath.split(target)
        if not target_name:
            raise Failure("PathError", "cannot replace to directory / with file")
        parent = beneath.open(self._root, below, _DIRECTORY)
        holder = Folder(None, "", os.dup(source), parent, f"/{below}" if below else "")
        try:
            self._other(holder, name, target_name, found)
        finally:
            holder.close()

    def _top_directory(self, folder: Folder, found: os.stat_result, truth: owners.State) -> None:
        """The directory that was asked for; one that exists keeps all but its time."""
        above, name = beneath.split(folder.path)
        directory = beneath.open(self._root, above, _DIRECTORY)
        try:
            created = False
            if name:
                self._make_room(directory, name, directory_comes=True)
                created = self._make_directory(directory, name, folder.path)
            folder.target = beneath.child(directory, name, _DIRECTORY) if name else os.dup(directory)
            folder.empty = created or _is_empty(folder.target)
            if not (created and self._is_grafted("", folder.path)):
                self._entries(folder, "", None, None)
            if created:
                self._describe(directory, name, folder, truth)
            self._metadata.set_time(folder.target, found)
        finally:
            os.close(directory)

    def _entries(
        self, folder: Folder, below: str, included: MatchInfo | None, excluded: MatchInfo | None
    ) -> None:
        """Everything in a directory, by name."""
        self._context.check()
        with os.scandir(folder.source) as scanned:
            entries = sorted((entry.name for entry in scanned), key=os.fsencode)
        rules = self._rules
        for name in entries:
            path = f"{below}/{name}" if below else name
            take, include_info, exclude_info, out = True, None, None, False
            if rules.include is not None:
                take, include_info = rules.include.walk(path, included)
            if rules.exclude is not None:
                out, exclude_info = rules.exclude.walk(path, excluded)
                take = take and not out
            if not take and rules.include is None and not _may_return(rules.exclude):
                continue
            found = os.stat(name, dir_fd=folder.source, follow_symlinks=False)
            if modes.S_ISDIR(found.st_mode):
                if take or not out or _may_return(rules.exclude):
                    self._directory(folder, name, path, found, take, (include_info, exclude_info))
            elif take:
                self._need(folder)
                self._other(folder, name, name, found)

    def _directory(
        self, above: Folder, name: str, path: str, found: os.stat_result, take: bool,
        infos: tuple[MatchInfo | None, MatchInfo | None],
    ) -> None:  # fmt: skip
        """A directory below the one that was asked for."""
        folder = Folder(
            above, name, beneath.child(above.source, name, _DIRECTORY), -1, f"{above.path}/{name}"
        )
        try:
            if take:
                self._need(above)
                self._make_room(above.target, name, directory_comes=True)
                folder.empty = self._make_directory(above.target, name, folder.path)
                folder.target = beneath.child(above.target, name, _DIRECTORY)
            if not (folder.empty and self._is_grafted(path, folder.path)):
                # Not `*infos`: such a call takes C stack, of which Python 3.12 has little.
                self._entries(folder, path, infos[0], infos[1])
            if take:
                self._describe(above.target, name, folder, self._owners.state(above.source, name, found))
                self._metadata.set_time(folder.target, found)
        finally:
            folder.close()

    def _is_grafted(self, below: str, target: str) -> bool:
        """Whether a new folder is left empty here, since its files will be linked."""
        return self.graft is not None and self.graft.offer(f"{self._source}/{below}", target)

    def _need(self, folder: Folder) -> None:
        """Make a directory, and those above it, that was only passed through until now."""
        above = folder.above
        if folder.target >= 0 or above is None:
            return
        self._need(above)
        created = self._make_directory(above.target, folder.name, folder.path)
        folder.target = beneath.child(above.target, folder.name, _DIRECTORY)
        folder.empty = created
        if created:
            found = os.fstat(folder.source)
            self._describe(
                above.target, folder.name, folder, self._owners.state(above.source, folder.name, found)
            )
            self._metadata.set_time(folder.target, found)

    def _make_room(self, directory: int, name: str, *, directory_comes: bool) -> None:
        """Remove what is in the way, if the rules say so."""
        if not self._rules.replace:
            return
        try:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not (directory_comes and modes.S_ISDIR(there.st_mode)):
            beneath.remove_child(directory, name)

    def _make_directory(self, directory: int, name: str, path: str) -> bool:
        """Make it unless it is there; True if it was made."""
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
            return True
        except FileExistsError:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not modes.S_ISDIR(there.st_mode):
                raise Failure("PathError", f"cannot copy to non-directory: {path}") from None
            return False

    def _other(self, folder: Folder, name: str, target_name: str, found: os.stat_result) -> None:
        """A file, link or device; takes the place of what is there."""
        directory, path = folder.target, f"{folder.path}/{target_name}"
        if not folder.empty:
            self._make_room(directory, target_name, directory_comes=False)
            try:
                os.unlink(target_name, dir_fd=directory)
            except FileNotFoundError:
                pass
            except (IsADirectoryError, PermissionError):
                raise Failure("PathError", f"cannot replace to directory {path} with file") from None
        truth = self._owners.state(folder.source, name, found)
        mode = truth.st_mode
        if modes.S_ISREG(mode):
            self._file(folder, name, target_name, path, found, truth)
            return
        if modes.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=folder.source), target_name, dir_fd=directory)
        else:
            if modes.S_ISSOCK(mode):
                mode = modes.S_IMODE(mode) | modes.S_IFREG  # a socket is copied as a stub
            self._owners.make_device(directory, target_name, mode, truth.st_rdev)
        self._metadata.give(directory, target_name, truth, fresh=False)
        self._metadata.set_time(directory, found, target_name)
        self.files += 1

    def _file(
        self,
        folder: Folder,
        name: str,
        target_name: str,
        path: str,
        found: os.stat_result,
        truth: owners.State,
    ) -> None:
        """A regular file; links to one file stay links to one file."""
        self.files += 1
        if found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            first = self._links.get(key)
            if first is not None:
                beneath.link(self._root, first, folder.target, target_name)
                return
            self._links[key] = path
        source = beneath.child(folder.source, name, _READ)
        try:
            # Writing takes set-id bits away from a file, except from root himself: they come last.
            bits = self._metadata.bits(truth.st_mode) & 0o777 if self._metadata.exact else 0o600
            target = beneath.child(folder.target, target_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, bits)
            try:
                self._bytes(source, target, found.st_size, path)
                copy_xattrs(source, target)
                self._metadata.give(folder.target, target_name, truth, fresh=True)
                self._metadata.set_time(target, found)
            finally:
                os.close(target)
        finally:
            os.close(source)
        self.bytes += found.st_size

    def _bytes(self, source: int, target: int, size: int, path: str) -> None:
        """The content; holes stay holes where the kernel copies."""
        if self._rules.digests:
            digest = hashlib.sha256()
            self._by_hand(source, target, digest.update)
            self.found.append((path, digest.hexdigest()))
            return
        done = 0
        while done < size:
            try:
                count = os.copy_file_range(source, target, min(size - done, 1 << 30))
            except OSError as error:
                if done or error.errno not in _USERSPACE:
                    raise
                self._by_hand(source, target, lambda _: None)
                return
            if count == 0:
                return
            done += count
            self._context.check()

    def _by_hand(self, source: int, target: int, see: Callable[[bytes], None]) -> None:
        while data := os.read(source, CHUNK):
            self._context.check()
            see(data)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(target, rest) :]

    def _describe(self, directory: int, name: str, folder: Folder, truth: owners.State) -> None:
        """Owner, mode and attributes of a directory, which is `name` in `directory`."""
        copy_xattrs(folder.source, folder.target)
        self._metadata.give(directory, name, truth, fresh=False)


def _is_empty(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _may_return(matcher: PatternMatcher | None) -> bool:
    """Whether something below an excluded directory may be taken back."""
    return matcher is not None and matcher.exclusions


def target_of(
    root: int, source_is_directory: bool, source: str, target: str, *, contents: bool
) -> tuple[str, str]:
    """Where a copy ends up, and the directory that must be there for it (prepareTargetDir).

    `target` has no links in it. Copying into a directory appends the source's name, unless the contents of
    a directory are copied.
    """
    try:
        found: Any = beneath.stat(root, target)
    except FileNotFoundError:
        found = None
    is_directory = found is not None and modes.S_ISDIR(found.st_mode)
    if (source_is_directory and not contents and found is not None) or (
        not source_is_directory and is_directory
    ):
        name = beneath.split(source)[1]
        target = f"{target.rstrip('/')}/{name}" if name else target
    if contents and source_is_directory and found is None:
        return target, target
    return target, target.rstrip("/").rpartition("/")[0] or "/"
