"""File actions of LLB: copy, mkfile, mkdir, symlink, rm (solver/llbsolver/file/backend.go).

Everything happens beneath the roots of the trees. A path in a message is the one inside of its tree.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat as modes
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bknb import beneath
from bknb.shim import mounts, users, wildcards
from bknb.shim.copying import Copier, target_of
from bknb.shim.rules import Owner, Rules
from bknb.shim.server import Context, Failure, describe

if TYPE_CHECKING:
    from bknb.shim.grafting import Graft

DEFAULT_MODE = 0o755  # of directories that a copy needs (fsutil/copy/copy.go)


class Trees:
    """The trees of one request, each opened when it is first needed."""

    def __init__(self, context: Context, trees: Sequence[Any], stack: ExitStack) -> None:
        self._context = context
        self._trees = trees
        self._stack = stack
        self._open: dict[Any, int] = {}
        self.owners = context.server.owners
        self.grafts: list[Graft] = []

    def graft(self, source: int, target: int) -> Graft | None:
        """Where a copy may link instead; it is laid when all trees are closed."""
        from bknb.shim.grafting import Graft

        graft = Graft.between(self._trees[source], self._trees[target], self._context.server.entered.tier)
        self.grafts += [graft] if graft is not None else []
        return graft

    def root(self, tree: int | dict[str, str] | None) -> int:
        """A descriptor of a tree's root: by index, or ``{"directory": PATH}``; None is an empty tree."""
        key = tree["directory"] if isinstance(tree, dict) else tree
        if key not in self._open:
            if isinstance(tree, dict):
                what: Any = [{"type": "bind", "source": key, "options": []}]
            else:
                what = [] if tree is None else self._trees[tree]
            self._open[key] = self._stack.enter_context(mounts.open_tree(self._context, what)).fd
        return self._open[key]


def apply(
    context: Context, fds: list[int], *, trees: Sequence[Any], actions: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Perform actions in order.

    Each action has `kind` (``copy``, ``mkfile``, ``mkdir``, ``symlink``, ``rm``), `target` (index into
    `trees`), for a copy `source` (index, ``{"directory": PATH}`` or None), and the fields of the action's
    class in `bknb.llb.ops`; owners are ``{"user": ..., "group": ...}``, each None, ``{"id": N}`` or
    ``{"name", "tree"}``. With ``"digests": True`` a copy tells the sha256 of each file.

    With ``"links": True`` a copy, which has to be the last action, may link to its source's files, whose owner is 0:0
    (`bknb.shim.grafting`).

    Returns:
        For each action ``files``, ``bytes``, ``digests``: pairs of path and hex, ``linked``, if folders
        were linked: how many.

    Raises:
        Failure: PathError.
    """
    done = []
    with ExitStack() as stack:
        opened = Trees(context, trees, stack)
        for action in actions:
            context.check()
            perform = _KINDS.get(action["kind"])
            if perform is None:
                raise Failure("UnsupportedError", f"no file action {action['kind']!r}")
            try:
                done.append(perform(context, opened, action))
            except FileNotFoundError as error:
                raise Failure("PathError", _not_found(action, error)) from None
    for graft in opened.grafts:
        graft.lay(context.check)
        if graft.linked:
            done[-1]["linked"] = graft.linked
    return done


def apply_each(context: Context, fds: list[int], *, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several small `apply` one after the other: a request each would cost more than the work.

    Each of `requests` has the arguments of `apply`.

    Returns:
        For each ``{"done": ...}``, or ``{"error": (kind, text)}``: one that fails does not touch the others.
    """
    answers: list[dict[str, Any]] = []
    for request in requests:
        context.check()
        try:
            answers.append({"done": apply(context, fds, **request)})
        except Failure as failure:
            answers.append({"error": (failure.kind, str(failure))})
        except OSError as error:
            kind = "StoreError" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "PathError"
            answers.append({"error": (kind, describe(error))})
    return answers


def _not_found(action: dict[str, Any], error: OSError) -> str:
    path = action.get("src") or action.get("path") or action.get("new_path") or error.filename or ""
    return f'"{clean(str(path))}": not found'


def clean(path: str) -> str:
    """An absolute path without ``.``, ``..`` and doubled slashes.

    >>> clean("a/../b//c/.")
    '/b/c'
    """
    return posixpath.normpath("/" + path.lstrip("/"))


def _result(files: int = 1, size: int = 0, digests: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    return {"files": files, "bytes": size, "digests": list(digests)}


def _time(action: dict[str, Any]) -> int | None:
    """The time to set, in nanoseconds; None leaves it as it is."""
    stamp = int(action["timestamp"])
    return None if stamp == -1 else stamp


def owner_of(trees: Trees, owner: dict[str, Any] | None) -> Owner:
    """Who is named: an id is the group too, an unknown name is root (llbsolver/ops/user_linux.go)."""
    if owner is None:
        return None
    uid = gid = 0
    if (user := owner.get("user")) is not None:
        if "name" in user:
            uid, gid = _named(trees, user, "user", users.named_user, (0, 0))
        else:
            uid = gid = int(user["id"])
    if (group := owner.get("group")) is not None:
        gid = _named(trees, group, "group", users.named_group, 0) if "name" in group else int(group["id"])
    return uid, gid


def _named(
    trees: Trees, what: dict[str, Any], kind: str, find: Callable[[int, str], Any], otherwise: Any
) -> Any:
    if what.get("tree") is None:
        raise Failure("PathError", f"invalid missing {kind} mount")
    found = find(trees.root(what["tree"]), what["name"])
    return otherwise if found is None else found


def _directory_of(root: int, path: str) -> tuple[int, str]:
    """The directory that holds a path, readable, and the name in it ("." for the root)."""
    directory, name = beneath.split(path)
    return beneath.open(root, directory, os.O_RDONLY | os.O_DIRECTORY), name or "."


def _finish(trees: Trees, fd: int, name: str, owner: Owner, mode: int, time: int | None) -> None:
    """Owner, mode (with type) and time of something new in an open directory."""
    if owner is not None:
        trees.owners.own(fd, name, *owner)
    if not modes.S_ISLNK(mode):
        trees.owners.set_mode(fd, name, modes.S_IMODE(mode))
    if time is not None:
        os.utime(name, ns=(time, time), dir_fd=fd, follow_symlinks=False)


def _make_parents(trees: Trees, root: int, path: str, mode: int, owner: Owner, time: int | None) -> list[str]:
    """Make a directory and what is missing above (fsutil MkdirAll); what was made, outermost first."""
    made: list[str] = []
    try:
        os.close(beneath.makedirs(root, path, 0o700, lambda _, each: made.append(each)))
    except NotADirectoryError:
        raise Failure("PathError", f"mkdir {path}: not a directory") from None
    for each in made:
        fd, name = _directory_of(root, each)
        try:
            _finish(trees, fd, name, owner, modes.S_IFDIR | mode & 0o777, time)
        finally:
            os.close(fd)
    return made


def _mkdir(context: Context, trees: Trees, action: dict[str, Any]) -> dict[str, Any]:
    root, path, mode = trees.root(action["target"]), clean(action["path"]), int(action["mode"]) & 0o777
    owner, time = owner_of(trees, action.get("owner")), _time(action)
    if action["make_parents"]:
        return _result(len(_make_parents(trees, root, path, mode, owner, time)))
    fd, name = _directory_of(root, beneath.resolve(root, path, strict=False))
    try:
        os.mkdir(name, 0o700, dir_fd=fd)
        _finish(trees, fd, name, owner, modes.S_IFDIR | mode, time)
    except FileExistsError:
        return _result(0)
    finally:
        os.close(fd)
    return _result()


def _mkfile(context: Context, trees: Trees, action: dict[str, Any]) -> dict[str, Any]:
    """Write a file; one that is there keeps its mode, as os.WriteFile does."""
    root, path = trees.root(action["target"]), clean(action["path"])
    data = action["data"]
    data = data if isinstance(data, bytes) else b64decode(data)
    fd, name = _directory_of(root, beneath.resolve(root, path, strict=False))
    try:
        try:
            there: os.stat_result | None = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
        if name == "." or (there is not None and modes.S_ISDIR(there.st_mode)):
            raise IsADirectoryError
        if there is not None and not modes.S_ISREG(
            there.st_mode
        ):  # writing to a device is not writing a file
            raise Failure("PathError", f"open {path}: not a regular file")
        file = beneath.child(fd, name, flags, 0o600)
        with os.fdopen(file, "wb", buffering=0) as out:
            view = memoryview(data)
            while view:
                view = view[out.write(view) or 0 :]
        mode = int(action["mode"]) & 0o777 if there is None else modes.S_IMODE(there.st_mode)
        _finish(trees, fd, name, owner_of(trees, action.get("owner")), modes.S_IFREG | mode, _time(action))
    except IsADirectoryError:
        raise Failure("PathError", f"open {path}: is a directory") from None
    finally:
        os.close(fd)
    return _result(1, len(data))


def _symlink(context: Context, trees: Trees, action: dict[str, Any]) -> dict[str, Any]:
    root, path = trees.root(action["target"]), clean(action["new_path"])
    fd, name = _directory_of(root, beneath.resolve(root, path, strict=False))
    try:
        os.symlink(action["old_path"], name, dir_fd=fd)
        _finish(trees, fd, name, owner_of(trees, action.get("owner")), modes.S_IFLNK | 0o777, _time(action))
    except FileExistsError:
        raise Failure("PathError", f"symlink {action['old_path']} {path}: file exists") from None
    finally:
        os.close(fd)
    return _result()


def _rm(context: Context, trees: Trees, action: dict[str, Any]) -> dict[str, Any]:
    """Remove paths; links on the way are followed, the last name is not."""
    root, path, lenient = trees.root(action["target"]), clean(action["path"]), bool(action["allow_not_found"])
    try:
        found = wildcards.resolve(root, path, follow=False) if action["allow_wildcard"] else [path]
    except FileNotFoundError:
        if not lenient:
            raise
        return _result(0)
    for each in found:
        if each == "/":
            raise Failure("PathError", "rm: invalid empty path")
        if not lenient:
            beneath.stat(root, each)
        try:
            beneath.remove(root, each)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return _result(len(found))


def _rules(trees: Trees, action: dict[str, Any]) -> Rules:
    """How an action copies."""
    mode: int | str | None = action.get("mode_str") or int(action["mode"])
    rules = Rules(owner_of(trees, action.get("owner")), None if mode == -1 else mode, _time(action))
    rules.replace = bool(action["always_replace_existing_dest_paths"])
    rules.digests = bool(action.get("digests"))
    if action["include_patterns"] or action["exclude_patterns"]:
        from bknb.patterns import PatternError, PatternMatcher

        try:
            if action["include_patterns"]:
                rules.include = PatternMatcher.parse(action["include_patterns"])
            if action["exclude_patterns"]:
                rules.exclude = PatternMatcher.parse(action["exclude_patterns"])
        except PatternError as error:
            raise Failure("PathError", f"invalid pattern: {error}") from None
    return rules


def _copy(context: Context, trees: Trees, action: dict[str, Any]) -> dict[str, Any]:
    """Copy what a path, or a path with wildcards, names (docopy)."""
    source, target = trees.root(action["source"]), trees.root(action["target"])
    src, follow = clean(action["src"]), bool(action["follow_symlink"])
    rules = _rules(trees, action)
    if not action["create_dest_path"]:
        above = clean(action["dest"]).rpartition("/")[0] or "/"
        if not beneath.exists(target, above, follow=True):
            raise Failure("PathError", f"failed to stat {action['dest']}: no such file or directory")
    found = [src]
    if action["allow_wildcard"]:
        found = wildcards.resolve(source, src, follow=follow)
        if not found:
            if action["allow_empty_wildcard"]:
                return _result(0)
            raise Failure("PathError", f'"{src}": not found')
    copier = Copier(context, rules, target)
    if action.get("links") and rules.plain and len(found) == 1:
        copier.graft = trees.graft(action["source"], action["target"])
    for path in found:
        if action["attempt_unpack"]:
            from bknb.shim import archives

            archive = archives.open_archive(source, path)
            if archive is not None:
                with archive:
                    _make_parents(trees, target, clean(action["dest"]), DEFAULT_MODE, rules.owner, rules.time)
                    archive.unpack(context, target, action["dest"], rules, copier)
                continue
        _copy_one(trees, copier, rules, source, path, target, action, follow)
    return _result(copier.files, copier.bytes, copier.found)


def _copy_one(
    trees: Trees,
    copier: Copier,
    rules: Rules,
    source: int,
    path: str,
    target: int,
    action: dict[str, Any],
    follow: bool,
) -> None:
    """One source (fsutil copy.Copy)."""
    dest = action["dest"]
    mode = rules.mode if isinstance(rules.mode, int) else DEFAULT_MODE
    whole = dest.endswith(("/", "/.")) or clean(dest) == "/"
    needed = clean(dest) if whole else clean(dest).rpartition("/")[0] or "/"
    made = _make_parents(trees, target, needed, mode, rules.owner, rules.time)
    base = beneath.resolve(target, clean(dest), strict=False)
    folder, name = beneath.split(path)  # a followed link gives its own name to what it leads to
    beside = "" if follow else f"{beneath.resolve(source, folder).rstrip('/')}/{name}"
    path = beside or beneath.resolve(source, path)
    is_directory = modes.S_ISDIR(beneath.stat(source, path, follow=False).st_mode)
    end, above = target_of(target, is_directory, name, base, contents=bool(action["dir_copy_contents"]))
    made += _make_parents(trees, target, above, mode, rules.owner, rules.time)
    copier.copy_into(source, path, end)
    if rules.time is not None:
        for each in reversed(made):
            fd = beneath.open(target, each, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(fd, ns=(rules.time, rules.time))
            finally:
                os.close(fd)


_KINDS: dict[str, Callable[[Context, Trees, dict[str, Any]], dict[str, Any]]] = {
    "copy": _copy,
    "mkfile": _mkfile,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "rm": _rm,
}
OPS: dict[str, Any] = {"apply": apply, "apply_each": apply_each}
