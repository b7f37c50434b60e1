"""The group `contenthash`: a tree, streamed and on disk, and the checksums of queries to it.

On disk, owners and devices are kept as the shim keeps them for whoever runs this: on the disk itself only for root.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bknb.cache.contenthash import Entry, Tree
from bknb.cache.entries import clean
from bknb.digest import Digest
from bknb.errors import PathError
from bknb.keys import ContentSelector
from bknb.shim.owners import OWN, Beside, OnDisk

KINDS = {
    "file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "hardlink": stat.S_IFREG,
    "char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK,
}  # fmt: skip


def contenthash(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    entries = request["entries"]
    queries = [_query(query) for query in request["queries"]]
    digests: dict[str, str] = {}
    answer: dict[str, Any] = {"entry_digests": digests}
    if not entries:
        answer["stream"] = ["error: no filesystem in stream mode"] * len(queries)
    else:
        tree = _stream(entries, digests)
        answer["stream"] = [_ask(tree, query) for query in queries]
    if not request.get("no_scan"):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            _lay_out(entries, folder)
            answer["scan"] = [_ask(_scan(folder), query, folder) for query in queries]
    return answer


def _query(query: dict[str, Any]) -> ContentSelector:
    return ContentSelector(
        query["path"], query.get("follow_links", False), query.get("wildcard", False),
        tuple(query.get("include", ())), tuple(query.get("exclude", ())), tuple(query.get("required", ())),
    )  # fmt: skip


def _ask(tree: Tree, query: ContentSelector, folder: str = "") -> str:
    try:
        wanted = tree.missing([query])
        found = {}
        for path, head in wanted.items():
            data = Path(folder + path).read_bytes()
            found[path] = "sha256:" + hashlib.sha256(head + data).hexdigest()
        tree.learn(found)
        return str(tree.checksum(query))
    except PathError as error:
        return f"error: {error}"


def _content(entry: dict[str, Any]) -> bytes:
    if "content_b64" in entry:
        return base64.b64decode(entry["content_b64"])
    return str(entry.get("content", "")).encode()


def _mode(entry: dict[str, Any]) -> int:
    default = "755" if entry["type"] == "dir" else "777" if entry["type"] == "symlink" else "644"
    return KINDS[entry["type"]] | int(entry.get("mode", default), 8)


def _xattrs(entry: dict[str, Any]) -> dict[str, bytes]:
    return {name: value.encode() for name, value in entry.get("xattrs", {}).items()}


def _stream(entries: list[dict[str, Any]], digests: dict[str, str]) -> Tree:
    tree = Tree()
    for entry in entries:
        if entry.get("delete"):
            tree.paths.remove(entry["path"])
            continue
        data = _content(entry)
        made = Entry(
            _mode(entry), entry.get("uid", 0), entry.get("gid", 0), len(data), entry.get("linkname", ""),
            (entry.get("devmajor", 0), entry.get("devminor", 0)), _xattrs(entry),
        )  # fmt: skip
        digest = digests[entry["path"]] = Digest.of(made.header + data)
        tree.paths.add(
            entry["path"],
            Entry(made.mode, made.uid, made.gid, made.size, made.linkname, made.device, made.xattrs, digest),
        )
    return tree


def _owners() -> OnDisk | Beside:
    return OnDisk() if os.geteuid() == 0 else Beside(os.geteuid(), os.getegid())


def _lay_out(entries: list[dict[str, Any]], folder: str) -> None:
    owners = _owners()
    for entry in entries:
        path = folder + clean(entry["path"])
        if entry.get("delete"):
            _delete(path)
            continue
        kind, mode = entry["type"], _mode(entry)
        if kind == "dir":
            os.makedirs(path, exist_ok=True)
        elif kind == "symlink":
            os.symlink(entry["linkname"], path)
        elif kind == "hardlink":
            os.link(folder + clean(entry["linkname"]), path)
        elif kind == "file":
            Path(path).write_bytes(_content(entry))
        if kind == "hardlink":
            continue
        with _parent(path) as (directory, name):
            if kind not in ("dir", "symlink", "file"):
                device = os.makedev(entry.get("devmajor", 0), entry.get("devminor", 0))
                owners.make_device(directory, name, mode, device)
            owners.own(directory, name, entry.get("uid", 0), entry.get("gid", 0))
            if kind != "symlink":
                owners.set_mode(directory, name, stat.S_IMODE(mode))
        for name, value in _xattrs(entry).items():
            os.setxattr(path, name, value, follow_symlinks=False)


@contextlib.contextmanager
def _parent(path: str) -> Iterator[tuple[int, str]]:
    above, name = os.path.split(path)
    directory = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory, name
    finally:
        os.close(directory)


def _delete(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            _delete(f"{path}/{name}")
        os.rmdir(path)
    else:
        os.unlink(path)


def _scan(folder: str) -> Tree:
    def paths(path: str) -> list[str]:
        if not os.path.isdir(path) or os.path.islink(path):
            return [path]
        return [path, *(below for name in os.listdir(path) for below in paths(f"{path}/{name}"))]

    owners = _owners()
    entries = []
    for path in paths(folder):
        with _parent(path) as (directory, name):
            info = owners.state(directory, name, os.lstat(path))
        link = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if name not in OWN
        }
        entries.append(
            (
                path[len(folder) :] or "/",
                Entry(info.st_mode, info.st_uid, info.st_gid, info.st_size, link, xattrs=xattrs),
            )
        )
    return Tree.of(entries)
