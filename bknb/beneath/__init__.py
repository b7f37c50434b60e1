"""The only way in which a path inside of a root is opened.

A root is the tree of a snapshot, context, archive or container, and what is in it was written by others:
every symlink may point at ``/etc/shadow`` of the host. So a path is never joined to the root's own path; it
is resolved by the kernel, beneath an open descriptor of the root, where ``/`` and ``..`` mean the root
(``openat2`` with ``RESOLVE_IN_ROOT``, Linux 5.6). Where that call does not exist, or a sandbox forbids it,
the same walk is made here, one component at a time, with ``O_NOFOLLOW``.

Whoever walks a whole tree opens each directory from its parent's descriptor with `child`: one name, never
followed. All functions take descriptors and raise OSError; standard library only, for the shim imports this.
"""

from bknb.beneath.changing import chown, link, makedirs, mknod, remove, remove_child, rmdir
from bknb.beneath.looking import exists, read, readlink, resolve, stat, walk
from bknb.beneath.opening import child, open, open_file, open_root, parent, split

__all__ = [
    "child",
    "chown",
    "exists",
    "link",
    "makedirs",
    "mknod",
    "open",
    "open_file",
    "open_root",
    "parent",
    "read",
    "readlink",
    "remove",
    "remove_child",
    "resolve",
    "rmdir",
    "split",
    "stat",
    "walk",
]
