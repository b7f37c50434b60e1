"""Times as Go reads and writes them in JSON: RFC 3339 with up to nine digits, trailing zeros gone."""

from __future__ import annotations

import re
from calendar import timegm
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))\Z", re.ASCII
)
NANO = 10**9


def parse(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time.

    >>> parse("1970-01-01T00:00:01.5Z")
    1500000000

    Raises:
        ValueError: not such a time.
    """
    found = _TIME.match(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 time")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    datetime(year, month, day, hour, minute, second)
    offset = 0
    if found[8]:
        offset = (int(found[9]) * 60 + int(found[10])) * (60 if found[8] == "+" else -60)
    seconds = timegm((year, month, day, hour, minute, second)) - offset
    return seconds * NANO + int((found[7] or "0")[:9].ljust(9, "0"))


def normalize(text: str) -> str:
    """The same time as Go writes it after reading it: the offset stays, ``+00:00`` is ``Z``.

    >>> normalize("2020-01-01T00:00:00.120000+00:00")
    '2020-01-01T00:00:00.12Z'

    Raises:
        ValueError: not a time.
    """
    parse(text)
    found = _TIME.match(text)
    assert found is not None
    fraction = (found[7] or "")[:9].rstrip("0")
    zone = f"{found[8]}{found[9]}:{found[10]}" if found[8] and found[9] + found[10] != "0000" else "Z"
    return text[:19] + (f".{fraction}" if fraction else "") + zone


def render(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as text, in UTC.

    >>> render(1500000000)
    '1970-01-01T00:00:01.5Z'
    """
    seconds, rest = divmod(nanoseconds, NANO)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    fraction = f"{rest:09d}".rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + (f".{fraction}" if fraction else "") + "Z"


def from_seconds(seconds: float) -> str:
    """Unix seconds, of the clock, as text in UTC."""
    return render(round(seconds * 10**6) * 1000)
