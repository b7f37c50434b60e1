"""Rewrites the times of a tar stream: ``rewrite-timestamp`` with SOURCE_DATE_EPOCH.

Only headers change; what is later than the epoch becomes the epoch, as in BuildKit (util/converter). Times live
in the header's field, and in PAX records where they have fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from bknb.errors import ContentError

BLOCK: Final = 512
_MAX_RECORDS: Final = 1 << 20
_TIMES: Final = (b"mtime", b"atime", b"ctime")


def clamp_times(chunks: Iterable[bytes], epoch: int) -> Iterator[bytes]:
    """The same archive with no time after `epoch`, in unix seconds.

    Raises:
        ContentError: the stream is no tar archive.
    """
    stream = _Stream(iter(chunks))
    said: int | None = None  # size of the next entry, where a record says it
    while True:
        block = stream.take(BLOCK)
        if not block.strip(b"\0"):
            yield block
            yield from stream.rest()
            return
        size = _number(block[124:136])
        if block[156:157] in (b"x", b"g"):
            if size > _MAX_RECORDS:
                raise ContentError(f"a layer has an extended header of {size} bytes")
            records = stream.take(size + -size % BLOCK)[:size]
            changed, said = _clamp_records(records, epoch)
            yield _with(block, 124, b"%011o\0" % len(changed))
            yield changed + bytes(-len(changed) % BLOCK)
            continue
        if _number(block[136:148]) > epoch:
            block = _with(block, 136, b"%011o\0" % epoch)
        yield block
        size, said = said if said is not None else size, None
        left = size + -size % BLOCK if block[156:157] not in b"123456" else 0
        while left:
            chunk = stream.some(left)
            left -= len(chunk)
            yield chunk


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256; negative where the next bit is set
        return -1 if field[0] & 0x40 else int.from_bytes(field[1:], "big")
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise ContentError("a layer is no tar archive, or it is damaged") from None


def _with(block: bytes, at: int, field: bytes) -> bytes:
    """A header block with one field replaced, and its sum made right."""
    changed = block[:at] + field + block[at + len(field) :]
    changed = changed[:148] + b" " * 8 + changed[156:]
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


def _clamp_records(data: bytes, epoch: int) -> tuple[bytes, int | None]:
    """PAX records with their times changed, and the size of the file if they tell it."""
    out, at, size = [], 0, None
    while at < len(data):
        space = data.find(b" ", at)
        try:
            end = at + int(data[at:space])
        except ValueError:
            raise ContentError("a layer's extended header makes no sense") from None
        key, _, value = data[space + 1 : end - 1].partition(b"=")
        if end <= at or end > len(data):
            raise ContentError("a layer's extended header makes no sense")
        if key in _TIMES and _later(value, epoch):
            out.append(_record(key, b"%d" % epoch))
        else:
            out.append(data[at:end])
            size = int(value) if key == b"size" and value.isdigit() else size
        at = end
    return b"".join(out), size


def _later(value: bytes, epoch: int) -> bool:
    try:
        return float(value) > epoch
    except ValueError:
        raise ContentError("a time in a layer makes no sense") from None


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body) + len(str(len(body)))
    size += len(str(size)) + len(body) - size
    return b"%d" % size + body


class _Stream:
    """Takes exact numbers of bytes from chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data = b""
        self._at = 0

    def some(self, most: int) -> bytes:
        if self._at == len(self._data):
            self._data, self._at = next(self._chunks, b""), 0
            if not self._data:
                raise ContentError("a layer is cut short")
        chunk = self._data[self._at : self._at + most]
        self._at += len(chunk)
        return chunk

    def take(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.some(size)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def rest(self) -> Iterator[bytes]:
        if self._at < len(self._data):
            yield self._data[self._at :]
        yield from self._chunks
