"""A layer whose files are no younger than SOURCE_DATE_EPOCH (``rewrite-timestamp``).

The tar is edited where it is: headers keep their bytes but for the time and the checksum, and PAX records of
times are set to the epoch (util/converter, which clamps the same three times).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from bknb.digest import Digest
from bknb.errors import ContentError, UnsupportedError
from bknb.oci.types import OCI_LAYER, Descriptor, compression_of
from bknb.protocols import BlobWriter, Compression, ContentStore, LayerBlob

_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_TIMES: Final = (b"mtime", b"atime", b"ctime")
_MAX_PAX: Final = 1 << 20


def rewrite_layer(content: ContentStore, blob: LayerBlob, epoch: int, compression: Compression) -> LayerBlob:
    """A blob of the same files with times no later than `epoch`; the same blob where nothing changes.

    Blocks; meant for a thread.

    Raises:
        ContentError: the layer is no tar.
        UnsupportedError: a compression that cannot be read or written here.
    """
    kind = compression_of(blob.descriptor.media_type)
    with open(content.open(blob.descriptor.digest), "rb") as raw, content.write() as writer:
        hasher = hashlib.sha256()
        with _packing(writer, kind, compression) as write:

            def out(data: bytes) -> None:
                hasher.update(data)
                write(data)

            for part in clamped(_unpacking(raw, kind), epoch):
                out(part)
        diff_id = Digest("sha256:" + hasher.hexdigest())
        if diff_id == blob.diff_id:
            return blob
        size = writer.offset
        digest = writer.commit()
    suffix = "" if kind == "uncompressed" else f"+{kind}"
    described = Descriptor(OCI_LAYER + suffix, digest, size)
    return LayerBlob(described, diff_id, blob.compressor, blob.created, blob.description)


def clamped(tar: IO[bytes], epoch: int) -> Iterator[bytes]:
    """The bytes of a tar, its times no later than `epoch`.

    Raises:
        ContentError: not a tar.
    """
    while header := tar.read(_BLOCK):
        if len(header) < _BLOCK:
            raise ContentError("a layer that ends within a header")
        if not header.strip(b"\0"):
            yield header
            while rest := tar.read(_CHUNK):
                yield rest
            return
        size, kind = _number(header[124:136]), header[156:157]
        plain = header[:148] + b" " * 8 + header[156:]
        if size < 0 or _number(header[148:156]) != sum(plain):
            raise ContentError("a layer that is no tar")
        if kind in (b"x", b"g"):
            if size > _MAX_PAX:
                raise ContentError(f"a layer with a PAX header of {size} bytes")
            records = _pax(_exactly(tar, size + -size % _BLOCK)[:size], epoch)
            yield _with(header, 124, b"%011o\0" % len(records), epoch)
            yield records + bytes(-len(records) % _BLOCK)
            continue
        yield _with(header, 0, b"", epoch)
        left = size + -size % _BLOCK
        while left:
            data = _exactly(tar, min(left, _CHUNK))
            left -= len(data)
            yield data


def _with(header: bytes, place: int, value: bytes, epoch: int) -> bytes:
    """A header with another field, its time clamped, its checksum right."""
    changed = bytearray(header)
    changed[place : place + len(value)] = value
    if _number(header[136:148]) > epoch:
        changed[136:148] = b"%011o\0" % max(epoch, 0)
    if bytes(changed) == header:
        return header
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def _pax(records: bytes, epoch: int) -> bytes:
    changed = []
    while records:
        length, space, _ = records[:24].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(records):
            raise ContentError("a layer with a PAX header that cannot be read")
        record, records = records[: int(length)], records[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if equals and key in _TIMES and _later(value, epoch):
            record = _record(key, b"%d" % max(epoch, 0))
        changed.append(record)
    return b"".join(changed)


def _later(value: bytes, epoch: int) -> bool:
    with contextlib.suppress(ValueError):
        whole, _, fraction = value.decode("ascii", "replace").partition(".")
        return (int(whole), fraction.strip("0") != "") > (epoch, False)
    return False


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def _number(text: bytes) -> int:
    """A number of a tar header: octal, or base 256 with the highest bit set."""
    if text[0] & 0x80:
        value = int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
        return value - (1 << (8 * len(text) - 1)) if text[0] & 0x40 else value
    digits = text.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise ContentError("a layer that is no tar") from None


def _exactly(tar: IO[bytes], size: int) -> bytes:
    parts, left = [], size
    while left:
        data = tar.read(left)
        if not data:
            raise ContentError("a layer that ends within a file")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _unpacking(raw: IO[bytes], kind: str) -> IO[bytes]:
    if kind == "gzip":
        import gzip

        return io.BufferedReader(_Checked(gzip.GzipFile(fileobj=raw)), _CHUNK)
    if kind == "zstd":
        return io.BufferedReader(_Checked(_zstd().ZstdFile(raw)), _CHUNK)
    if kind == "uncompressed":
        return raw
    raise UnsupportedError("rewrite-timestamp reads gzip, zstd and uncompressed layers only")


class _Checked(io.RawIOBase):
    """A decompressor whose errors are ours."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ContentError(f"a layer that cannot be unpacked: {error}") from None
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _packing(writer: BlobWriter, kind: str, compression: Compression) -> Iterator[Callable[[bytes], object]]:
    level = compression.level
    if kind == "uncompressed":
        yield writer.write
        return
    if kind == "gzip":
        packer: Any = zlib.compressobj(6 if level is None else level, zlib.DEFLATED, 31)
    else:
        packer = _zstd().ZstdCompressor(level=3 if level is None else level)
    yield lambda data: writer.write(packer.compress(data))
    writer.write(packer.flush())


def _zstd() -> Any:
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return importlib.import_module("backports.zstd")
