"""JSON to the byte as Go's ``encoding/json`` writes it: BuildKit's digests are taken of such bytes.

The text is `bknb.gojson`'s. A dict here is written in its own order; `from_members` sorts, because BuildKit
patches configs as a map (exporter/containerimage/writer.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import DecodeError, Raw, ValidationError
from msgspec import json as fast

from bknb import gojson

_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)


def dumps(value: Any) -> bytes:
    r"""A value as Go's ``json.Marshal`` writes it, dicts in their own order.

    >>> dumps({"b": "a<b", "a": [1, None]})
    b'{"b":"a\\u003cb","a":[1,null]}'
    """
    return gojson.dumps(value).encode()


def dumps_indented(value: Any) -> bytes:
    """As ``json.MarshalIndent`` with two spaces: how BuildKit writes manifests and indexes."""
    return gojson.dumps(value, indent=2).encode()


def compact(raw: bytes) -> bytes:
    """A JSON text without its spaces, otherwise as it is: what Go makes of a ``json.RawMessage``.

    >>> compact(b'{ "n": 1.50e3, "s": "a b" }')
    b'{"n":1.50e3,"s":"a b"}'
    """
    return gojson.escape(_TOKENS.sub(lambda found: found[1] or "", raw.decode(errors="replace"))).encode()


def members(data: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value's own text; a key that is there twice counts the last time.

    Raises:
        ValueError: not a JSON object.
    """
    try:
        found = fast.decode(data, type=dict[str, Raw])
    except (DecodeError, ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from None
    return {key: bytes(raw) for key, raw in found.items()}


def from_members(values: Mapping[str, bytes]) -> bytes:
    """One object of members, keys sorted by their bytes: as Go writes a ``map[string]json.RawMessage``."""
    pairs = (dumps(key) + b":" + compact(values[key]) for key in sorted(values, key=str.encode))
    return b"{" + b",".join(pairs) + b"}"
