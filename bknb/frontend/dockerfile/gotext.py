r"""Go's rules of text, where they show in what a Dockerfile means or in BuildKit's messages.

BuildKit is written in Go: which characters are white space, how a word is folded to lower case and how
`%q` quotes are part of the language that its users see. Python's own methods differ in corners
(`"\x1c".isspace()`, `"ß".upper()`, `repr`), so the rules stand here, once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bknb.patterns.ignore_file import SPACE as SPACE

SPACE_CLASS = re.escape(SPACE)

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def decode(data: bytes) -> str:
    """Bytes as text; bytes that are not UTF-8 become surrogate escapes."""
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of `decode`. Text with lone surrogates of its own is encoded as such."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def replace_invalid(text: str) -> str:
    """Every byte that is not UTF-8 as U+FFFD: what happens where Go walks a string rune by rune."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def trim_space(text: str) -> str:
    """strings.TrimSpace."""
    return text.strip(SPACE)


def lower(text: str) -> str:
    """strings.ToLower: rune by rune, one rune for each.

    >>> lower("RUN"), lower("ΑΣ"), len(lower("İ"))
    ('run', 'ασ', 1)
    """
    if text.isascii():
        return text.lower()
    return "".join(c.lower() if len(c.lower()) == 1 else c.lower()[0] for c in replace_invalid(text))


def upper(text: str) -> str:
    """strings.ToUpper: rune by rune; a letter without a single capital stays.

    >>> upper("run"), upper("ß")
    ('RUN', 'ß')
    """
    if text.isascii():
        return text.upper()
    return "".join(_upper_rune(c) for c in replace_invalid(text))


def _upper_rune(char: str) -> str:
    capital = char.upper()
    if len(capital) == 1:
        return capital
    title = char.title()
    return title if len(title) == 1 else char


def equal_fold(one: str, other: str) -> bool:
    """strings.EqualFold."""
    return one.casefold() == other.casefold()


def quote(text: str) -> str:
    r"""strconv.Quote, and `%q` of a string.

    >>> print(quote('a "b"\n\x00\udcff'))
    "a \"b\"\n\x00\xff"
    """
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quote_rune, text)) + '"'


def _quote_rune(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote_list(words: Iterable[str]) -> str:
    """`%q` of a []string.

    >>> print(quote_list(["a", "b c"]))
    ["a" "b c"]
    """
    return "[" + " ".join(map(quote, words)) + "]"


def parse_bool(text: str) -> bool | None:
    """strconv.ParseBool; None where it fails."""
    return True if text in _TRUE else False if text in _FALSE else None


def parse_uint(text: str, base: int, bits: int) -> int | None:
    """strconv.ParseUint of base 8 or 10; None where it fails: signs, underscores, too large.

    >>> parse_uint("0755", 8, 32), parse_uint("+1", 10, 32), parse_uint("4294967296", 10, 32)
    (493, None, None)
    """
    digits = "01234567" if base == 8 else "0123456789"
    if not text or text.strip(digits):
        return None
    significant = text.lstrip("0")
    if len(significant) > 24:
        return None
    value = int(significant or "0", base)
    return value if value < 1 << bits else None
