"""Writes the tar of a layer, entry for entry and byte for byte as BuildKit does.

What BuildKit's overlay differ hands to containerd's ChangeWriter (util/overlay/overlay_linux.go; containerd
pkg/archive/tar.go) and Go's archive/tar makes of it: names in the order of a walk, ``.wh.`` files for
deletions, directories that are only on the way named before what is in them, unchanged ones left out, times
cut to seconds, no user names, USTAR headers wherever they suffice and PAX records where not. The files are
sent by the kernel from file to pipe.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Sequence

from bknb import beneath
from bknb.shim.marks import WHITEOUT_PREFIX, Marks
from bknb.shim.owners import Owners, State
from bknb.shim.same import same, xattr
from bknb.shim.stack import DIRECTORY, Found, Level

BLOCK = 512
_FLUSH = 1 << 16
_SEND = 1 << 20
_CAPABILITY = "security.capability"


class Writer:
    """Puts headers and files into a pipe; `epoch` is the latest time that is written, in seconds."""

    def __init__(self, out: int, epoch: int | None = None) -> None:
        self._out = out
        self._epoch = epoch
        self._buffer = bytearray()
        self._sendfile = True

    def add(
        self, name: str, mode: int, *, kind: bytes = b"0", size: int = 0, mtime_ns: int = 0, link: str = "",
        owner: tuple[int, int] = (0, 0), device: int = 0, records: dict[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        """A header. `mode` is without the type of the file; `kind` is tar's type flag."""
        seconds = mtime_ns // 1_000_000_000
        if self._epoch is not None:
            seconds = min(seconds, self._epoch)
        self._buffer += header(name, mode, kind, size, seconds, link, owner, device, records or {})
        self._drain()

    def add_bytes(self, fd: int, size: int) -> None:
        """The bytes of an open file, and what fills its last block.

        Raises:
            OSError: the file is shorter than it was.
        """
        if size > _FLUSH:
            self._drain(0)
            self._send(fd, size)
        else:
            left = size
            while left:
                chunk = os.read(fd, left)
                if not chunk:
                    raise OSError(errno.EIO, "a file became shorter while it was read")
                self._buffer += chunk
                left -= len(chunk)
        self._buffer += bytes(-size % BLOCK)
        self._drain()

    def _send(self, fd: int, size: int) -> None:
        left = size
        while left:
            if self._sendfile:
                try:
                    sent = os.sendfile(self._out, fd, None, min(left, 1 << 30))
                except OSError as error:
                    if error.errno not in (errno.EINVAL, errno.ENOSYS):
                        raise
                    self._sendfile = False
                    continue
            else:
                chunk = os.read(fd, min(left, _SEND))
                sent = len(chunk)
                _write(self._out, chunk)
            if sent == 0:
                raise OSError(errno.EIO, "a file became shorter while it was read")
            left -= sent

    def _drain(self, limit: int = _FLUSH) -> None:
        if len(self._buffer) > limit:
            _write(self._out, self._buffer)
            self._buffer.clear()

    def close(self) -> None:
        """The end of the archive: two empty blocks. The pipe stays open."""
        self._buffer += bytes(2 * BLOCK)
        self._drain(0)


def _write(fd: int, data: bytes | bytearray) -> None:
    done = 0
    while done < len(data):
        done += os.write(fd, bytes(data[done:]) if done else data)


def header(
    name: str, mode: int, kind: bytes, size: int, mtime: int, link: str, owner: tuple[int, int], device: int,
    records: dict[str, bytes],
) -> bytes:  # fmt: skip
    """One entry's header blocks, as Go's archive/tar writes them."""
    raw, target = os.fsencode(name), os.fsencode(link)
    pax = dict(records)
    prefix, short = b"", raw
    if not raw.isascii() or len(raw) > 100:
        split = _split(raw)
        if split is None:
            pax["path"] = raw
        else:
            prefix, short = split
    if not target.isascii() or len(target) > 100:
        pax["linkpath"] = target
    for word, number, limit in (("size", size, 8**11), ("uid", owner[0], 8**7), ("gid", owner[1], 8**7)):
        if number >= limit:
            pax[word] = b"%d" % number
    if not 0 <= mtime < 8**11:
        pax["mtime"] = b"%d" % mtime
    blocks = b""
    if pax:
        if prefix:  # one header or the other: with records, the whole name is in a record
            pax["path"], prefix, short = raw, b"", raw
        data = b"".join(_record(key, pax[key]) for key in sorted(pax))
        folder, _, last = raw.rpartition(b"/")
        label = (folder + b"/" if folder else b"") + b"PaxHeaders.0/" + last
        if not last:
            label = folder + b"/PaxHeaders.0"
        block = _block(_ascii(label)[:100].rstrip(b"/"), 0, b"x", len(data), 0, b"", (0, 0), None, b"")
        blocks = block + data + bytes(-len(data) % BLOCK)
        short, target = _cut(_ascii(raw)), _ascii(target)[:100]
        size = size if "size" not in pax else 0
        owner = (owner[0] if "uid" not in pax else 0, owner[1] if "gid" not in pax else 0)
        mtime = mtime if "mtime" not in pax else 0
    return blocks + _block(short, mode, kind, size, mtime, target, owner, device, prefix)


def _block(
    name: bytes, mode: int, kind: bytes, size: int, mtime: int, link: bytes, owner: tuple[int, int],
    device: int | None, prefix: bytes,
) -> bytes:  # fmt: skip
    numbers = bytes(16) if device is None else _octal(os.major(device), 8) + _octal(os.minor(device), 8)
    fields = (
        name.ljust(100, b"\0"), _octal(mode, 8), _octal(owner[0], 8), _octal(owner[1], 8), _octal(size, 12),
        _octal(mtime, 12), b" " * 8, kind, link.ljust(100, b"\0"), b"ustar\x0000", bytes(64),
        numbers, prefix.ljust(155, b"\0"), bytes(12),
    )  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def _ascii(text: bytes) -> bytes:
    """Without what is not ASCII, as Go does for readers that know no PAX."""
    return bytes(byte for byte in text if byte < 0x80)


def _cut(name: bytes) -> bytes:
    """A name's first 100 bytes, never looking like a directory's if the whole does not."""
    if len(name) > 100 and name[99:100] == b"/":
        return name[:99].rstrip(b"/")
    return name[:100]


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """A long name as USTAR's prefix and name, or None if it does not fit."""
    if len(name) <= 100 or not name.isascii():
        return None
    end = min(len(name), 156) if len(name) > 156 else len(name) - (name[-1:] == b"/")
    at = name.rfind(b"/", 0, end)
    rest = len(name) - at - 1
    return (name[:at], name[at + 1 :]) if 0 < at <= 155 and 0 < rest <= 100 else None


def _record(key: str, value: bytes) -> bytes:
    """``length key=value``, where the length counts itself."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    size = len(body) + len(str(len(body)))
    if len(str(size)) + len(body) != size:
        size = len(str(size)) + len(body)
    return str(size).encode() + body


class _Frame:
    """A directory that is being written: what is still to come, last first."""

    __slots__ = ("fd", "named", "path", "state", "todo")

    def __init__(self, path: str, fd: int, state: State, named: bool) -> None:
        self.path = path
        self.fd = fd
        self.state = state
        self.named = named
        self.todo: list[_Item] = []


class _Item:
    """One name of it. `state` None: deleted. `roots`: the directory of that name below."""

    __slots__ = ("name", "roots", "state", "unchanged")

    def __init__(self, name: str, state: os.stat_result | None, unchanged: bool, roots: list[int]) -> None:
        self.name = name
        self.state = state
        self.unchanged = unchanged
        self.roots = roots


class LayerTar:
    """The tar of one layer directory, written on the stack `lower` (topmost first)."""

    def __init__(
        self, writer: Writer, layer: int, lower: Sequence[int], marks: Marks, owners: Owners,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self._writer = writer
        self._layer = layer
        self._lower = list(lower)
        self._marks = marks
        self._owners = owners
        self._check = check
        self._links: dict[int, str] = {}
        self._frames: list[_Frame] = []

    def write(self) -> None:
        """All of it."""
        try:
            self._enter("", os.fstat(self._layer), self._lower, named=True)
            while self._frames:
                frame = self._frames[-1]
                if not frame.todo:
                    os.close(self._frames.pop().fd)
                    continue
                self._item(frame, frame.todo.pop())
        finally:
            while self._frames:
                os.close(self._frames.pop().fd)
        self._writer.close()

    def _enter(self, path: str, state: State, roots: list[int], *, named: bool) -> None:
        """Begin a directory: decide about each name, so that the lower ones need not stay open."""
        self._check()
        frame = _Frame(path, beneath.open(self._layer, path, DIRECTORY), state, named)
        self._frames.append(frame)
        listing = self._marks.listing(frame.fd)
        with Level(roots, path, self._marks) as level:
            below = level.visible()
            for name in sorted((*listing.entries, *listing.gone), key=os.fsencode, reverse=True):
                old = below.get(name)
                if name in listing.gone:
                    if old is not None:
                        frame.todo.append(_Item(name, None, False, []))
                    continue
                found = listing.entries[name].stat(follow_symlinks=False)
                is_dir = modes.S_ISDIR(found.st_mode)
                unchanged = old is not None and self._unchanged(old, frame.fd, name, found)
                under = old.roots if old is not None and is_dir else []
                frame.todo.append(_Item(name, found, unchanged, under))

    def _unchanged(self, old: Found, fd: int, name: str, found: os.stat_result) -> bool:
        before = os.stat(name, dir_fd=old.fd, follow_symlinks=False)
        return same(before, old.fd, found, fd, name)

    def _item(self, frame: _Frame, item: _Item) -> None:
        """Write one name, and begin it if it is a directory."""
        path = f"{frame.path}/{item.name}".lstrip("/")
        if item.state is None:
            self._parents()
            hidden = f"{frame.path}/{WHITEOUT_PREFIX}{item.name}".lstrip("/")
            self._writer.add(hidden, 0)
            return
        state = self._owners.state(frame.fd, item.name, item.state)
        if not item.unchanged and not modes.S_ISSOCK(state.st_mode):
            self._parents()
            self._header(frame.fd, item.name, path, state)
        if modes.S_ISDIR(item.state.st_mode):
            self._enter(path, state, item.roots, named=not item.unchanged)

    def _parents(self) -> None:
        """Name the directories on the way that were not named yet."""
        for above, frame in zip(self._frames, self._frames[1:], strict=False):
            if not frame.named:
                frame.named = True
                self._header(above.fd, frame.path.rpartition("/")[2], frame.path, frame.state)

    def _header(self, fd: int, name: str, path: str, state: State) -> None:
        """One entry, with its bytes."""
        kind, link, size = _KINDS[modes.S_IFMT(state.st_mode)], "", 0
        if kind == b"2":
            link = os.readlink(name, dir_fd=fd)
        if kind != b"5" and state.st_nlink > 1:
            first = self._links.setdefault(state.st_ino, path)
            if first != path:
                kind, link = b"1", first
        records: dict[str, bytes] = {}
        opened = -1
        try:
            if kind in b"015" and not (kind == b"1" and not modes.S_ISREG(state.st_mode)):
                opened = beneath.child(fd, name, os.O_RDONLY | os.O_NONBLOCK)
                if capability := xattr(opened, _CAPABILITY):
                    records[f"SCHILY.xattr.{_CAPABILITY}"] = capability
            if kind == b"0":
                size = state.st_size
            self._writer.add(
                path + "/" if kind == b"5" else path, modes.S_IMODE(state.st_mode), kind=kind, size=size,
                mtime_ns=state.st_mtime_ns, link=link, owner=(state.st_uid, state.st_gid),
                device=state.st_rdev if kind in b"34" else 0, records=records,
            )  # fmt: skip
            if size:
                self._writer.add_bytes(opened, size)
        finally:
            if opened >= 0:
                os.close(opened)


_KINDS = {
    modes.S_IFREG: b"0",
    modes.S_IFLNK: b"2",
    modes.S_IFCHR: b"3",
    modes.S_IFBLK: b"4",
    modes.S_IFDIR: b"5",
    modes.S_IFIFO: b"6",
}
