"""Reads a tar stream: USTAR, PAX, GNU long names and large numbers. Anything odd is an error, never a guess.

Written for layers: one pass over a pipe, large files moved by the kernel (splice), memory bounded whatever
the headers say.
"""

from __future__ import annotations

import os

BLOCK = 512
MAX_EXTENDED = 1 << 20
"""Bytes of one PAX header or long name."""
_CHUNK = 1 << 18
_SPLICE = 1 << 20


class TarError(ValueError):
    """The stream is no tar archive, or one that is cut short."""


class Entry:
    """One header. `name` and `link` as they stand; `kind` is the type flag; `mtime_ns` may be negative."""

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime_ns", "name", "records", "size", "uid")

    def __init__(self, block: bytes) -> None:
        self.kind = block[156:157]
        self.name = _string(block[0:100])
        if block[257:263] == b"ustar\0" and (prefix := _string(block[345:500])):
            self.name = f"{prefix}/{self.name}"
        self.mode = _number(block[100:108]) & 0o7777
        self.uid = _number(block[108:116])
        self.gid = _number(block[116:124])
        self.size = _number(block[124:136])
        self.mtime_ns = _number(block[136:148]) * 1_000_000_000
        self.link = _string(block[157:257])
        self.device = 0
        if self.kind in b"34":
            self.device = os.makedev(_number(block[329:337]), _number(block[337:345]))
        self.records: dict[str, bytes] = {}

    def amend(self, records: dict[str, bytes]) -> None:
        """What PAX records say instead."""
        self.records = records
        try:
            for key, value in records.items():
                match key:
                    case "path":
                        self.name = os.fsdecode(value)
                    case "linkpath":
                        self.link = os.fsdecode(value)
                    case "size" | "uid" | "gid":
                        setattr(self, key, int(value))
                    case "mtime":
                        self.mtime_ns = _time(value)
        except ValueError:
            raise TarError(f"a record {key!r} of {self.name[:100]!r} makes no sense") from None
        if self.size < 0 or any(key.startswith("GNU.sparse") for key in records):
            raise TarError(f"{self.name[:100]!r} is a sparse file, which layers do not have")


def _string(field: bytes) -> str:
    return os.fsdecode(field.split(b"\0", 1)[0])


def _number(field: bytes) -> int:
    """An octal number, or GNU's base 256."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        return value
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise TarError("a number in a header is no octal number") from None


def _time(value: bytes) -> int:
    """Decimal seconds as nanoseconds."""
    whole, _, part = value.decode("ascii").partition(".")
    nanoseconds = int((part + "000000000")[:9]) if part else 0
    return int(whole) * 1_000_000_000 + (-nanoseconds if whole.startswith("-") else nanoseconds)


class Reader:
    """Entries of a stream, one after the other.

    After `next` has given an entry, its bytes may be taken with `copy_to`; what is not taken is skipped.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        self._at = 0
        self._left = 0  # bytes of the entry not taken yet
        self._fill = 0  # and what fills its last block
        self._global: dict[str, bytes] = {}
        self._splice = True

    def next(self) -> Entry | None:
        """The next entry, None at the end.

        Raises:
            TarError: see there.
        """
        self._skip(self._left + self._fill)
        self._left = self._fill = 0
        name = link = None
        records: dict[str, bytes] = {}
        while True:
            block = self._take(BLOCK, may_end=True)
            if not block or not block.strip(b"\0"):
                return None
            _check_sum(block)
            entry = Entry(block)
            if entry.kind in (b"x", b"g", b"L", b"K"):
                if not 0 <= entry.size <= MAX_EXTENDED:
                    raise TarError(f"an extended header of {entry.size} bytes")
                data = self._take(entry.size)
                self._skip(-entry.size % BLOCK)
                if entry.kind == b"x":
                    records = {**self._global, **_records(data)}
                elif entry.kind == b"g":
                    self._global = {**self._global, **_records(data)}
                elif entry.kind == b"L":
                    name = _string(data)
                else:
                    link = _string(data)
                continue
            entry.name = entry.name if name is None else name
            entry.link = entry.link if link is None else link
            entry.amend(records or self._global)
            if entry.size < 0:
                raise TarError(f"{entry.name[:100]!r} has a negative size")
            if entry.kind in (b"0", b"\0", b"7"):
                self._left, self._fill = entry.size, -entry.size % BLOCK
                if entry.kind == b"\0" and entry.name.endswith("/"):
                    entry.kind = b"5"
            elif entry.kind == b"S":
                raise TarError(f"{entry.name[:100]!r} is a sparse file, which layers do not have")
            elif entry.kind not in b"123456":  # of a kind unknown to us: it has data if it says so
                self._left, self._fill = entry.size, -entry.size % BLOCK
            return entry

    def copy_to(self, target: int) -> None:
        """Put the bytes of the entry into an open file."""
        while self._left:
            if self._at == len(self._buffer) and self._splice and self._left > _CHUNK:
                try:
                    moved = os.splice(self._fd, target, min(self._left, _SPLICE))
                except OSError:
                    self._splice = False  # no pipe, or a file system without it
                    continue
                if not moved:
                    raise TarError("the archive is cut short")
                self._left -= moved
                continue
            chunk = self._some(self._left)
            self._left -= len(chunk)
            while chunk:
                chunk = chunk[os.write(target, chunk) :]

    def drain(self) -> None:
        """Read on to the end of the stream."""
        self._buffer, self._at = b"", 0
        while os.read(self._fd, _CHUNK):
            pass

    def _some(self, most: int) -> memoryview:
        """Between one byte and `most`."""
        if self._at == len(self._buffer):
            self._buffer, self._at = os.read(self._fd, _CHUNK), 0
            if not self._buffer:
                raise TarError("the archive is cut short")
        chunk = memoryview(self._buffer)[self._at : self._at + most]
        self._at += len(chunk)
        return chunk

    def _take(self, size: int, *, may_end: bool = False) -> bytes:
        """Exactly so many bytes; none at all at the end of the stream if it may end here."""
        if self._at + size <= len(self._buffer):
            self._at += size
            return self._buffer[self._at - size : self._at]
        parts: list[bytes] = []
        left = size
        while left:
            try:
                part = bytes(self._some(left))
            except TarError:
                if may_end and not parts:
                    return b""
                raise
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))


def _check_sum(block: bytes) -> None:
    """Unsigned, or signed as some old programs have it."""
    said = _number(block[148:156])
    rest = block[:148] + b" " * 8 + block[156:]
    if said != sum(rest) and said != sum(byte - 256 if byte > 127 else byte for byte in rest):
        raise TarError("this is no tar archive, or it is damaged")


def _records(data: bytes) -> dict[str, bytes]:
    """PAX records: ``length key=value`` lines."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        try:
            end = at + int(data[at:space])
        except ValueError:
            raise TarError("a PAX header makes no sense") from None
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if space < 0 or end > len(data) or end <= space + 1 or not equals or data[end - 1 : end] != b"\n":
            raise TarError("a PAX header makes no sense")
        found[key.decode("utf-8", "surrogateescape")] = value
        at = end
    return found
