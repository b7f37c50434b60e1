"""Choosing the state folder.

It is the platform's user data folder. sqlite's WAL mode needs shared memory between the processes that use a
database, which network file systems do not give (sqlite.org/wal.html), and overlayfs cannot have its upper
layer there: so on such a file system a local folder is taken instead, and that is said.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from bknb.errors import StoreError

_NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph glusterfs lustre beegfs gpfs fuse.sshfs fuse.glusterfs fuse.s3fs fuse.gcsfuse "
    "virtiofs ncpfs orangefs".split()
)


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The folder, and what a person should know about the choice ("" where there is nothing to say)."""

    path: str
    note: str = ""


def state_folder(wanted: str = "", *, mountinfo: str = "/proc/self/mountinfo") -> StateFolder:
    """Choose and make the state folder.

    Args:
        wanted: what the user asked for; "" for the platform's.
        mountinfo: the kernel's list of mounts.

    Raises:
        StoreError: it cannot be made or written.
    """
    path = os.path.abspath(os.path.expanduser(wanted or os.environ.get("BKNB_ROOT", "") or _usual()))
    note = ""
    kind = file_system(path, mountinfo)
    if kind in _NETWORK:
        local = f"/var/tmp/bknb-{os.getuid()}"
        note = f"{path} is on a network file system ({kind}): the state is kept in {local}; set %config Bknb.root to choose another place."
        path = local
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        info = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise StoreError(
            f"the state folder {path} cannot be made ({error.strerror}): set %config Bknb.root or BKNB_ROOT to a folder of yours"
        ) from None
    if note and (not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid()):
        raise StoreError(
            f"{path} belongs to somebody else: set %config Bknb.root or BKNB_ROOT to a folder of yours"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise StoreError(
            f"the state folder {path} is not writable: set %config Bknb.root or BKNB_ROOT to a folder of yours"
        )
    return StateFolder(path, note)


def _usual() -> str:
    """The platform's folder for data of this user."""
    import platformdirs

    return platformdirs.user_data_dir("bknb", appauthor=False)


def file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that a path is on or would be on; "" where nobody knows."""
    try:
        lines = Path(mountinfo).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = (
            fields[4]
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
        )
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
