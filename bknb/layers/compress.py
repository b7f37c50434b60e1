"""Codecs of layer blobs, by name and by their first bytes.

gzip is written by isal where it is installed (ten times the speed of zlib, blobs some per cent larger) unless a
level is asked for that it does not have; what made a blob is kept with it, because the bytes depend on it. No
codec writes a name or a time, so equal tars become equal blobs.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from bknb.errors import ContentError, UnsupportedError
from bknb.protocols import Compression

MEDIA_TYPES: Final = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "uncompressed": "application/vnd.oci.image.layer.v1.tar",
}
_GZIP_WINDOW: Final = 31  # a 32 KiB window with gzip's header
_ISAL_LEVEL: Final = 2
_OUTPUT: Final = 1 << 20
"""Bytes that one step of decompression gives at most, whatever a blob would swell to."""


class Compressor(Protocol):
    """Compresses a stream; `name` says what makes the bytes."""

    name: str

    def add(self, data: bytes | memoryview) -> bytes: ...

    def finish(self) -> bytes: ...


class Stored:
    """No compression."""

    name = ""

    def add(self, data: bytes | memoryview) -> bytes:
        return bytes(data)

    def finish(self) -> bytes:
        return b""


class Gzip:
    """gzip by isal, or by zlib."""

    def __init__(self, level: int | None) -> None:
        isal = _isal()
        if isal is not None and (level is None or 0 <= level <= 3):
            chosen = _ISAL_LEVEL if level is None else level
            self._stream: Any = isal.isal_zlib.compressobj(chosen, zlib.DEFLATED, _GZIP_WINDOW)
            self.name = f"isal {isal.__version__} level {chosen}"
        else:
            chosen = 6 if level is None else min(max(level, 0), 9)
            self._stream = zlib.compressobj(chosen, zlib.DEFLATED, _GZIP_WINDOW)
            self.name = f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {chosen}"

    def add(self, data: bytes | memoryview) -> bytes:
        return bytes(self._stream.compress(data))

    def finish(self) -> bytes:
        return bytes(self._stream.flush())


class Zstd:
    """zstd by the standard library, or by its backport."""

    def __init__(self, level: int | None) -> None:
        library = _zstd()
        chosen = 3 if level is None else min(max(level, 1), 22)
        self._stream = library.ZstdCompressor(level=chosen)
        self.name = f"zstd {library.zstd_version} level {chosen}"

    def add(self, data: bytes | memoryview) -> bytes:
        return bytes(self._stream.compress(data))

    def finish(self) -> bytes:
        return bytes(self._stream.flush())


def _isal() -> Any:
    """The package isal, or None where there is no wheel for this machine."""
    try:
        import isal.isal_zlib
    except ImportError:
        return None
    return isal


def _zstd() -> Any:
    """The zstd module of this Python."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise UnsupportedError("zstd layers need the Python package backports.zstd") from None
    return zstd


def compressor(compression: Compression) -> Compressor:
    """The codec of a setting.

    Raises:
        UnsupportedError: a kind of compression that is not there.
    """
    match compression.type:
        case "gzip":
            return Gzip(compression.level)
        case "zstd":
            return Zstd(compression.level)
        case "uncompressed":
            return Stored()
        case _:
            known = ", ".join(MEDIA_TYPES)
            raise UnsupportedError(f"layers are not written as {compression.type!r}; choose {known}")


def kind_of(start: bytes) -> str:
    """The compression of a blob, by its first four bytes.

    >>> kind_of(bytes.fromhex("1f8b0800")), kind_of(bytes.fromhex("28b52ffd")), kind_of(b"bin/")
    ('gzip', 'zstd', 'uncompressed')
    """
    if start[:3] == b"\x1f\x8b\x08":
        return "gzip"
    # A skippable frame, 0x184D2A50 to 5F, may come before the first real one.
    skippable = start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5
    if start[:4] == b"\x28\xb5\x2f\xfd" or skippable:
        return "zstd"
    return "uncompressed"


def decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a blob without its compression, in pieces of at most a mebibyte or what came in.

    Several members or frames in a row are one stream, as the formats say.

    Raises:
        ContentError: the blob is damaged or cut short.
    """
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= 4:
            break
    kind = kind_of(start)
    if kind == "uncompressed":
        if start:
            yield start
        yield from chunks
        return
    fresh, errors = _decoder(kind)
    try:
        yield from _members(fresh, start, chunks)
    except errors as error:
        raise ContentError(f"a layer cannot be decompressed: {error}") from error


def _members(fresh: Any, start: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder, data = fresh(), start
    while True:
        out = decoder.decompress(data, _OUTPUT)
        if out:
            yield out
        if decoder.eof:
            data = decoder.unused_data or next(chunks, b"")
            if not data.strip(b"\0"):
                return  # some tools fill the last block with zeros
            decoder = fresh()
            continue
        data = getattr(decoder, "unconsumed_tail", b"")
        if not data and (getattr(decoder, "needs_input", True) or not out):
            data = next(chunks, b"")
            if not data and not out:
                raise ContentError("a layer is cut short")


def _decoder(kind: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """What makes a decoder of a kind, and the errors that it raises."""
    if kind == "zstd":
        zstd = _zstd()
        return zstd.ZstdDecompressor, (zstd.ZstdError, EOFError)
    isal = _isal()
    library: Any = zlib if isal is None else isal.isal_zlib
    return lambda: library.decompressobj(_GZIP_WINDOW), (library.error, zlib.error, EOFError)
