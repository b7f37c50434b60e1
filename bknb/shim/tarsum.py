"""What the content hash of a file begins with: its header in the form of Docker's old tarsum, version 1.

The digest of a file is the sha256 of this header followed by its bytes (cache/contenthash/tarsum.go,
filehash.go), so whoever reads the bytes has to begin with it. The name is not in it, nor the time. Extended
attributes of ``system.*`` and ``security.*`` do not count, save the capabilities of a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

_TYPES = {
    stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6", stat.S_IFSOCK: b"0",
}  # fmt: skip


def counts(xattr: str) -> bool:
    """Whether an extended attribute is part of a file's content hash.

    >>> counts("user.x"), counts("security.selinux"), counts("security.capability")
    (True, False, True)
    """
    return xattr == "security.capability" or not xattr.startswith(("security.", "system."))


def header(
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    linkname: str = "",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[str, bytes] | None = None,
) -> bytes:
    """The bytes that a file's content follows.

    Args:
        mode: st_mode, with the type.
        uid: owner.
        gid: group.
        size: of a regular file in bytes; not looked at for others.
        linkname: where a symlink points.
        device: major and minor number, as the tree's form says: a tree on disk is hashed with 0, 0
            (BuildKit's test for device nodes never holds), one that is streamed with the real ones.
        xattrs: by name; those that do not count are left out.

    >>> header(0o100644, size=5)
    b'namemode420uid0gid0size5typeflag0linknameunamegnamedevmajor0devminor0'
    """
    kind = stat.S_IFMT(mode)
    link = kind == stat.S_IFLNK
    parts = [
        b"namemode%duid%dgid%d" % (0o777 if link else stat.S_IMODE(mode), uid, gid),
        b"size%d" % (size if kind in (stat.S_IFREG, stat.S_IFSOCK) else 0),
        b"typeflag" + _TYPES.get(kind, b"0"),
        b"linkname" + (os.fsencode(linkname) if link else b""),
        b"unamegnamedevmajor%ddevminor%d" % device,
    ]
    if xattrs:
        named = sorted((os.fsencode(name), value) for name, value in xattrs.items() if counts(name))
        parts += [name + value for name, value in named]
    return b"".join(parts)


def regular(mode: int, size: int, xattrs: Mapping[str, bytes]) -> bytes:
    """`header` of a regular file of 0:0, which contexts hold many of.

    >>> regular(0o100755, 7, {}) == header(0o100755, size=7)
    True
    """
    if xattrs:
        return header(mode, size=size, xattrs=xattrs)
    return b"namemode%duid0gid0size%dtypeflag0linknameunamegnamedevmajor0devminor0" % (mode & 0o7777, size)
