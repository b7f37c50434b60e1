"""Trees out of `Mount` data: the only place where anything is mounted.

A tree is wanted as a descriptor for file operations, and at a path for a container. For the first nothing is
attached anywhere: fsmount(2) gives a mount that ends with its descriptor, and a plain directory is just
opened. So an op that dies leaves no mount behind.

Overlays are configured through fsopen(2), one ``lowerdir+`` for each layer (Linux 6.8). Older kernels get
mount(2), whose options must fit into a page: there each layer is named by a short link in a directory of
our own tmpfs, and the calling thread stands in it (every thread of the shim has its own working directory).
The kernel takes at most 500 layers either way.
"""

from __future__ import annotations

import errno
import os
import stat

from bknb import beneath
from bknb.shim import calls
from bknb.shim.server import Context, Failure, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Mounts = Sequence[dict[str, Any]]
    """`Mount.to_json()` of each."""
else:
    Mounts = list

MAX_LAYERS = 500  # fs/overlayfs/params.h: OVL_MAX_STACK
FIXED = {"index": "off", "redirect_dir": "off", "metacopy": "off"}
"""What distributions switch on by default would put more into an upper directory than a layer can say."""
FIXED_USER = {"index": "off"}
"""With ``userxattr`` the others are off already, and may not be named."""


class Tree:
    """An open tree; a context manager.

    Attributes:
        fd: descriptor (O_PATH) of its root.
        source: the host's directory if it is a plain one, else "".
    """

    __slots__ = ("fd", "source")

    def __init__(self, fd: int, source: str = "") -> None:
        self.fd = fd
        self.source = source

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *error: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_tree(context: Context, mounts: Mounts) -> Tree:
    """The root of a tree, attached nowhere. No mounts at all is an empty, read-only tree.

    Raises:
        Failure: SnapshotError, it cannot be mounted; UnsupportedError, not without namespaces.
    """
    server = context.server
    if len(mounts) == 1 and mounts[0]["type"] == "bind":
        source = mounts[0]["source"]
        try:
            return Tree(beneath.open_root(source), source)
        except OSError as error:
            raise Failure("SnapshotError", f"{source}: {error.strerror}") from None
    if not mounts:
        empty = os.path.join(server.directory or server.state_dir, "empty")
        os.makedirs(empty, mode=0o555, exist_ok=True)
        return Tree(beneath.open_root(empty), empty)
    _need_mounts(server)
    if len(mounts) == 1 and server.overlay_style == "fsopen":
        return Tree(_detached(server, mounts[0]))
    target = mount_point(server)
    attach(context, mounts, target)
    try:
        return Tree(beneath.open_root(target))
    finally:
        for _ in mounts:
            calls.unmount(target)
        os.rmdir(target)


def mount_point(server: Server) -> str:
    """A new empty directory of our tmpfs."""
    path = os.path.join(server.directory, "m" + server.fresh_name())
    os.mkdir(path, 0o700)
    return path


def attach(context: Context, mounts: Mounts, target: str, *, readonly: bool = False) -> None:
    """Mount a tree on a directory of ours, for a runtime to use. Whoever asked calls `detach`."""
    server = context.server
    _need_mounts(server)
    done = 0
    try:
        for mount in mounts or ({"type": "tmpfs", "source": "", "options": ["ro"]},):
            _attach_one(server, mount, target, readonly or "ro" in mount["options"])
            done += 1
    except BaseException:
        for _ in range(done):
            calls.unmount(target)
        raise


def attach_path(tree: Tree, path: str, target: str, *, readonly: bool) -> None:
    """Bind a file or directory of a tree, found beneath its root, to a path of ours, made for it."""
    fd = beneath.open(tree.fd, path, os.O_PATH)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(target, 0o700)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        _bind(fd, target, readonly=readonly)
    finally:
        os.close(fd)


def detach(target: str, count: int = 1) -> None:
    """Undo `attach`; what was never mounted is no error."""
    for _ in range(max(count, 1)):
        try:
            calls.unmount(target)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            return


def _need_mounts(server: Server) -> None:
    if not server.isolated:
        raise Failure("UnsupportedError", "nothing can be mounted here: no namespaces")


def _attach_one(server: Server, mount: dict[str, Any], target: str, readonly: bool) -> None:
    """One mount on a directory."""
    kind = mount["type"]
    try:
        if kind == "bind":
            fd = os.open(mount["source"], os.O_PATH | os.O_CLOEXEC)
            try:
                _bind(fd, target, readonly=readonly)
            finally:
                os.close(fd)
        elif kind == "overlay" and server.overlay_style != "fsopen":
            _classic_overlay(server, mount["options"], target)
            if readonly:
                _remount_readonly(target)
        else:
            fd = _detached(server, mount, readonly=readonly)
            try:
                _move(fd, target)
            finally:
                os.close(fd)
    except OSError as error:
        raise Failure("SnapshotError", f"cannot mount {kind}: {error.strerror}") from None


def _move(fd: int, target: str) -> None:
    """Attach a detached mount at a path of ours."""
    at = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        calls.move_mount(fd, at)
    finally:
        os.close(at)


def _bind(fd: int, target: str, *, readonly: bool) -> None:
    """Bind what a descriptor names, with all that is mounted below it, onto a path of ours."""
    if readonly:
        try:
            copy = calls.open_tree(fd, recursive=True)
            try:
                calls.make_readonly(copy)
                _move(copy, target)
                return
            finally:
                os.close(copy)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EINVAL):
                raise
    calls.mount(f"/proc/self/fd/{fd}", target, None, calls.MS_BIND | calls.MS_REC)
    if readonly:
        _remount_readonly(target)


def _remount_readonly(target: str) -> None:
    """Make a mount read-only, keeping the flags that a user namespace may not clear."""
    flags = os.statvfs(target).f_flag
    kept = flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    calls.mount("none", target, None, calls.MS_BIND | calls.MS_REMOUNT | calls.MS_RDONLY | kept)


def _detached(server: Server, mount: dict[str, Any], *, readonly: bool = False) -> int:
    """An overlay or tmpfs as a descriptor, attached nowhere.

    Raises:
        Failure: SnapshotError, with the kernel's own words where it has any.
    """
    kind, options = mount["type"], mount["options"]
    attributes = calls.MOUNT_ATTR_RDONLY if readonly or "ro" in options else 0
    if kind not in ("overlay", "tmpfs"):
        raise Failure("UnsupportedError", f"no mount of type {kind!r}")
    fd = calls.fsopen(kind)
    try:
        if kind == "overlay":
            _configure_overlay(server, fd, options)
        else:
            calls.fsconfig(fd, "mode", next((o[5:] for o in options if o.startswith("mode=")), "0755"))
            for option in options:
                if option.startswith("size="):
                    calls.fsconfig(fd, "size", option[5:])
        return calls.fsmount(fd, attributes)
    except OSError as error:
        said = _messages(fd) or error.strerror
        raise Failure("SnapshotError", f"cannot mount {kind}: {said}") from error
    finally:
        os.close(fd)


def _messages(fd: int) -> str:
    """What the kernel says about a file system that it refused to make."""
    said = []
    try:
        while line := os.read(fd, 4096):
            said.append(line.decode(errors="replace").strip().removeprefix("e "))
    except OSError:
        pass
    return "; ".join(said)


def _layers(options: Sequence[str]) -> list[str]:
    lowers = [option[6:] for option in options if option.startswith("lower=")]
    if not lowers:
        raise Failure("SnapshotError", "an overlay needs a lower directory")
    if len(lowers) > MAX_LAYERS:
        raise Failure("SnapshotError", f"an overlay of {len(lowers)} layers; the kernel takes {MAX_LAYERS}")
    return lowers


def _value(options: Sequence[str], name: str) -> str:
    return next((option[len(name) + 1 :] for option in options if option.startswith(name + "=")), "")


def _configure_overlay(server: Server, fd: int, options: Sequence[str]) -> None:
    """Set an overlay's options, each path by a call of its own."""
    for lower in _layers(options):
        calls.fsconfig(fd, "lowerdir+", lower)
    if upper := _value(options, "upper"):
        calls.fsconfig(fd, "upperdir", upper)
        calls.fsconfig(fd, "workdir", _value(options, "work"))
    user = server.entered.tier == "user"
    for key, value in (FIXED_USER if user else FIXED).items():
        calls.fsconfig(fd, key, value)
    calls.fsconfig(fd, "uuid", "null")  # else each upper directory gets an attribute that no layer has
    if user:
        calls.fsconfig(fd, "userxattr")


def _classic_overlay(server: Server, options: Sequence[str], target: str) -> None:
    """Mount an overlay with mount(2), through short links that need no escaping."""
    links = os.path.join(server.directory, "l" + server.fresh_name())
    os.mkdir(links, 0o700)
    try:
        lowers = _layers(options)
        for index, lower in enumerate(lowers):
            os.symlink(lower, f"{links}/{index:x}")
        words = ["lowerdir=" + ":".join(f"{index:x}" for index in range(len(lowers)))]
        for name, link in (("upper", "u"), ("work", "w")):
            if path := _value(options, name):
                os.symlink(path, f"{links}/{link}")
                words.append(f"{name}dir={link}")
        user = server.entered.tier == "user"
        words += [f"{key}={value}" for key, value in (FIXED_USER if user else FIXED).items()]
        words += ["userxattr"] if user else []
        os.chdir(links)
        try:
            calls.mount("overlay", target, "overlay", 0, ",".join(words))
        finally:
            os.chdir("/")
    finally:
        remove(links)


def remove(path: str) -> None:
    """Remove a directory of ours."""
    directory, _, name = path.rpartition("/")
    fd = beneath.open_root(directory)
    try:
        beneath.remove_child(fd, name)
    except OSError:
        return  # what is left is found by whoever tidies the state folder
    finally:
        os.close(fd)


def probe(server: Server) -> bool:
    """Whether overlays can be mounted on the state folder, and how; sets `server.overlay_style`.

    Tried for real, with a whiteout: on some file systems (another overlay, NFS) only that fails.
    """
    if not server.isolated:
        return False
    place = os.path.join(server.state_dir, f"probe-{os.getpid()}-{server.fresh_name()}-{os.urandom(4).hex()}")
    mount = {
        "type": "overlay",
        "source": "",
        "options": [f"lower={place}/lower", f"upper={place}/upper", f"work={place}/work"],
    }
    target = mount_point(server)
    try:
        for name in ("lower", "upper", "work"):
            os.makedirs(f"{place}/{name}")
        os.mkdir(f"{place}/lower/gone")
        for style in ("fsopen", "mount"):
            server.overlay_style = style
            try:
                _attach_one(server, mount, target, False)
                break
            except Failure:
                continue
        else:
            return False
        try:
            os.rmdir(f"{target}/gone")
            found = os.lstat(f"{place}/upper/gone")
            return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
        except OSError:
            return False
        finally:
            calls.unmount(target)
    except OSError:
        return False
    finally:
        os.rmdir(target)
        remove(place)


OPS: dict[str, Any] = {}
