"""Go's durations, as HEALTHCHECK takes them and as history prints them (package time)."""

from __future__ import annotations

import re
from typing import Final

from bknb.frontend.dockerfile.gotext import encode

#: Nanoseconds of each unit.
UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # micro sign
    "μs": 10**3,  # Greek letter mu
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}

_MAX = 1 << 63
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


class DurationError(ValueError):
    """A text that is no duration."""


def parse_duration(text: str) -> int:
    """Nanoseconds of a text such as `1h2m3.5s`.

    Raises:
        DurationError: in the words of Go's time.ParseDuration.

    >>> parse_duration("1m0.5s"), parse_duration("0")
    (60500000000, 0)
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    invalid = DurationError(f"time: invalid duration {_quote(text)}")
    if not rest:
        raise invalid
    total = place = 0
    while place < len(rest):
        part = _PART.match(rest, place)
        if part is None or not (part[1] or part[2]):
            raise invalid
        place = part.end()
        if not part[3]:
            raise DurationError(f"time: missing unit in duration {_quote(text)}")
        if part[3] not in UNITS:
            raise DurationError(f"time: unknown unit {_quote(part[3])} in duration {_quote(text)}")
        unit = UNITS[part[3]]
        digits = part[1].lstrip("0")
        whole = int(digits or "0") if len(digits) < 20 else _MAX
        total += whole * unit + _fraction(part[2] or "", unit)
        if whole > _MAX // unit or total > _MAX:
            raise invalid
    if text[0] == "-":
        return -total
    if total > _MAX - 1:
        raise invalid
    return total


def _fraction(digits: str, unit: int) -> int:
    """Nanoseconds behind the point, with the rounding of Go's floating point."""
    value, scale = 0, 1.0
    for digit in digits:
        following = value * 10 + int(digit)
        if value > (_MAX - 1) // 10 or following > _MAX:
            break
        value, scale = following, scale * 10
    return int(value * (unit / scale))


def format_duration(nanoseconds: int) -> str:
    """A duration as Go prints it.

    >>> format_duration(5 * 60 * 10**9), format_duration(1_500_000), format_duration(0)
    ('5m0s', '1.5ms', '0s')
    """
    if not nanoseconds:
        return "0s"
    sign, value = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if value < 10**9:
        unit = "ns" if value < 10**3 else "µs" if value < 10**6 else "ms"
        return f"{sign}{_decimal(value, UNITS[unit])}{unit}"
    hours, value = divmod(value, UNITS["h"])
    minutes, value = divmod(value, UNITS["m"])
    seconds = f"{_decimal(value, UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}." + str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")


def _quote(text: str) -> str:
    r"""The quoting of Go's package time: bytes outside of printable ASCII as \\x escapes."""
    out = []
    for byte in encode(text):
        char = chr(byte)
        if byte >= 0x80 or byte < 0x20:
            out.append(f"\\x{byte:02x}")
        else:
            out.append("\\" + char if char in '"\\' else char)
    return '"' + "".join(out) + '"'
