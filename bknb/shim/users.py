"""Users and groups by name, looked up in the files of a container's own root.

The rules are those of executor/oci/user.go and of moby/sys/user, which it uses: a number is always an id; a
name must be in the file; the groups that list the user come along unless a group is named.
"""

from __future__ import annotations

import errno
import os

from bknb import beneath
from bknb.shim.server import Failure

MAX_FILE = 10 << 20  # bytes; executor/oci/user.go
MAX_ID = (1 << 31) - 1  # moby/sys/user: ids outside of it are refused


def _number(text: str) -> int | None:
    """A decimal id, or None for a name."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def entries(root: int, path: str, fields: int) -> list[list[str]]:
    """The lines of a passwd or group file, each as `fields` words; a missing file is an empty one.

    Raises:
        Failure: PathError, it is larger than 10 MiB.
    """
    try:
        data = beneath.read(root, path, MAX_FILE)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Failure("PathError", f"{path} exceeds {MAX_FILE} bytes") from None
        return []
    found = []
    for line in data.decode(errors="replace").splitlines():
        words = line.strip().split(":")
        if words[0] and not words[0].startswith("#"):
            found.append((words + [""] * fields)[:fields])
    return found


def lookup(root: int, spec: str) -> tuple[int, int, list[int]]:
    """``USER``'s argument as (uid, gid, supplementary gids).

    Raises:
        Failure: ExecutorError, a name that is not there or an id out of range.
    """
    user, colon, group = (spec or "0").partition(":")
    ids = (0 if user == "root" else _number(user), 0 if group == "root" else _number(group))
    if colon and ids[0] is not None and ids[1] is not None and max(ids[0], ids[1]) < 1 << 32:
        return ids[0], ids[1], []
    uid, gid, name = _user(root, user)
    if uid is None:
        raise Failure("ExecutorError", f"unable to find user {user}: no matching entries in passwd file")
    if group:
        return uid, _group(root, group), []
    groups = []
    if name:
        for words in entries(root, "/etc/group", 4):
            member = _number(words[2])
            if member is not None and name in words[3].split(","):
                groups.append(member)
    return uid, gid, groups


def _user(root: int, user: str) -> tuple[int | None, int, str]:
    """(uid, gid, name) of a user; uid None if there is no such name."""
    number = _number(user)
    for words in entries(root, "/etc/passwd", 7):
        uid, gid = _number(words[2]), _number(words[3])
        if uid is not None and (uid == number if number is not None else words[0] == user):
            return uid, gid or 0, words[0]
    if number is None:
        return (0, 0, "") if user in ("", "root") else (None, 0, "")
    if number > MAX_ID:
        raise Failure("ExecutorError", f"user id {number} is out of range (0 to {MAX_ID})")
    return number, 0, ""


def _group(root: int, group: str) -> int:
    number = _number(group)
    for words in entries(root, "/etc/group", 4):
        gid = _number(words[2])
        if gid is not None and (gid == number if number is not None else words[0] == group):
            return gid
    if number is None:
        raise Failure("ExecutorError", f"unable to find group {group}: no matching entries in group file")
    if number > MAX_ID:
        raise Failure("ExecutorError", f"group id {number} is out of range (0 to {MAX_ID})")
    return number


def named_user(root: int, name: str) -> tuple[int, int] | None:
    """The (uid, gid) of a name for a chown; None if it is not there."""
    for words in entries(root, "/etc/passwd", 7):
        uid, gid = _number(words[2]), _number(words[3])
        if words[0] == name and uid is not None:
            return uid, gid or 0
    return None


def named_group(root: int, name: str) -> int | None:
    """The gid of a name for a chown; None if it is not there."""
    for words in entries(root, "/etc/group", 4):
        gid = _number(words[2])
        if words[0] == name and gid is not None:
            return gid
    return None


def working_directory(root: int, path: str, uid: int, gid: int) -> None:
    """Make a missing working directory, owned by the container's user (runcexecutor/executor.go)."""
    os.close(beneath.makedirs(root, path, 0o755, lambda fd, _: beneath.chown(fd, uid, gid)))
