"""JSON to the byte as Go's ``encoding/json`` writes it: BuildKit's digests are taken of such bytes.

Three habits of Go matter: no spaces between tokens, ``<``, ``>``, ``&``, U+2028 and U+2029 written as
escapes, and the keys of a map sorted while those of a struct keep the order of its fields. A dict here is
written in its own order; `members` sorts, because BuildKit patches configs as a map
(exporter/containerimage/writer.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import DecodeError, Raw, ValidationError
from msgspec import json as fast

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_SPECIAL = re.compile("[<>&\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], _SURROGATE.sub("\ufffd", text))


def dumps(value: Any) -> bytes:
    r"""A value as Go's ``json.Marshal`` writes it, dicts in their own order.

    >>> dumps({"b": "a<b", "a": [1, None]})
    b'{"b":"a\\u003cb","a":[1,null]}'
    """
    return _escape(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


def dumps_indented(value: Any) -> bytes:
    """As ``json.MarshalIndent`` with two spaces: how BuildKit writes manifests and indexes."""
    return _escape(json.dumps(value, ensure_ascii=False, indent=2)).encode()


def compact(raw: bytes) -> bytes:
    """A JSON text without its spaces, otherwise as it is: what Go makes of a ``json.RawMessage``.

    >>> compact(b'{ "n": 1.50e3, "s": "a b" }')
    b'{"n":1.50e3,"s":"a b"}'
    """
    return _escape(_TOKENS.sub(lambda found: found[1] or "", raw.decode(errors="replace"))).encode()


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
