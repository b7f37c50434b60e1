"""JSON as Go's encoding/json writes it, because digests are taken of that text.

No spaces; ``<``, ``>``, ``&`` and the two Unicode line separators escaped; everything else that is not
ASCII as it is; fields in the order of the struct, those with ``omitempty`` left out when they are zero. Go
sorts the keys of maps; a caller that has a map sorts it.
"""

from __future__ import annotations

import json
from typing import Any

_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def dumps(value: Any) -> str:
    r"""Go's text of a value made of dicts, lists, strings, numbers, booleans and None.

    >>> dumps({"a": "x & y"})
    '{"a":"x \\u0026 y"}'
    """
    return _encode(value).translate(_ESCAPES)


def compact(**fields: Any) -> dict[str, Any]:
    """The fields that ``omitempty`` keeps, in order; dicts are kept as pointers are, also when empty.

    >>> compact(a=0, b="", c={}, d=None, e=-1)
    {'c': {}, 'e': -1}
    """
    return {name: value for name, value in fields.items() if value or isinstance(value, dict)}
