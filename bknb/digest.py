"""Content digests.

A digest names bytes: everything that bknb stores or sends is looked up by one. The text form is
``algorithm:hex`` as in the OCI image specification (descriptor.md, "Digests").
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

_HEX_LENGTH: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
_PATTERN: Final = re.compile(r"([a-z0-9]+(?:[.+_-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)\Z")


class Digest(str):
    """An algorithm and the hex of a hash, kept as its text form.

    A digest is a ``str``: it goes into JSON, sqlite and protobuf as it is, and equal text is an equal
    digest. The constructor does not check; anything that comes from outside goes through `parse`.

    >>> d = Digest.of(b"")
    >>> d.algorithm, d.hex[:8], d.short
    ('sha256', 'e3b0c442', 'e3b0c44298fc')
    """

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """The sha256 digest of some bytes."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def of_text(cls, text: str) -> Digest:
        """The sha256 digest of a text's UTF-8 bytes."""
        return cls.of(text.encode())

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check a text from outside.

        Raises:
            ValueError: not ``algorithm:hex``, an unknown algorithm, or the wrong length for it.
        """
        found = _PATTERN.match(text)
        if found is None:
            raise ValueError(f"{text[:80]!r} is not a digest: it has the form sha256:<64 hex digits>")
        algorithm, encoded = found.groups()
        length = _HEX_LENGTH.get(algorithm)
        if length is None:
            raise ValueError(f"{text[:80]!r} has an unknown digest algorithm: use sha256, sha384 or sha512")
        if len(encoded) != length or not re.fullmatch("[0-9a-f]+", encoded):
            raise ValueError(
                f"{text[:80]!r} is not a {algorithm} digest: it needs {length} lower-case hex digits"
            )
        return cls(text)

    @property
    def algorithm(self) -> str:
        """The part before the colon, such as ``sha256`` (``random`` for keys that must never match)."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """Twelve hex digits, for people."""
        return self.hex[:12]
