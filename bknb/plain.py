"""Values that are written down as JSON and read again: events, records.

They are structs of msgspec, which makes, compares and writes them several times as fast as dataclasses: of a
build of ten thousand steps there are sixty thousand.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec

from bknb.digest import Digest

T = TypeVar("T")


class Plain(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A value made of texts, numbers, tuples and mappings; in JSON, fields that have their default are left out."""

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_text)
        return values

    def to_bytes(self) -> bytes:
        """As JSON on one line."""
        try:
            return _ENCODER.encode(self)
        except UnicodeEncodeError:  # a name that is no UTF-8
            return json.dumps(self.to_json(), separators=(",", ":")).encode()


def of_json(values: Any, kind: type[T]) -> T:
    """The value of this kind that `to_json` wrote; unknown fields of a newer version are passed over.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.convert(values, kind, dec_hook=_of_text)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _text(value: object) -> str:
    """Digests, which are a str of their own."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} cannot be written as JSON")
    return str(value)


def _of_text(kind: type[Any], value: Any) -> Any:
    if kind is not Digest or not isinstance(value, str):
        raise ValueError(f"{value!r} is no digest")
    return Digest(value)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_text)
