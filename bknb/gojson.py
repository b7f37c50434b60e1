"""JSON to the byte as Go's ``encoding/json`` writes it: BuildKit's digests are taken of such text.

No spaces between tokens; ``<``, ``>``, ``&``, U+2028 and U+2029 as escapes, what else is not ASCII as it is, and
the escape of U+FFFD for what is not UTF-8. Fields stand in the order of the struct, those with ``omitempty`` left out when they
are zero; Go sorts the keys of maps, so a caller that has a map sorts it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_ESCAPES: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_TABLE: Final = str.maketrans({**_ESCAPES, **dict.fromkeys(map(chr, range(0xD800, 0xE000)), "\\ufffd")})
_SPECIAL: Final = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def dumps(value: Any, *, indent: int | None = None) -> str:
    r"""Go's text of a value made of dicts, lists, strings, numbers, booleans and None.

    Args:
        value: dicts are written in their own order.
        indent: spaces, as ``json.MarshalIndent`` takes them; None for no spaces at all.

    >>> dumps({"b": "a<b", "a": [1, None]})
    '{"b":"a\\u003cb","a":[1,null]}'
    """
    text = _encode(value) if indent is None else json.dumps(value, ensure_ascii=False, indent=indent)
    return escape(text)


def escape(text: str) -> str:
    """JSON text with Go's escapes."""
    return text.translate(_TABLE) if _SPECIAL.search(text) else text


def present(**fields: Any) -> dict[str, Any]:
    """The fields that ``omitempty`` keeps, in order; dicts are kept as pointers are, also when empty.

    >>> present(a=0, b="", c={}, d=None, e=-1)
    {'c': {}, 'e': -1}
    """
    return {name: value for name, value in fields.items() if value or isinstance(value, dict)}
