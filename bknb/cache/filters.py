"""The filters of ``du`` and ``prune``: conditions on records.

The form is containerd's (filters/filter.go): ``type==regular,inuse`` is two conditions that both have to hold;
of several filters one has to. ``==`` and ``!=`` compare, ``~=`` is a regular expression (Python's; Go's are nearly
the same) found anywhere in the value, a field alone asks whether it is there. Values may be quoted as in Go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bknb.errors import UsageError, did_you_mean

FIELDS: Final = (
    "id", "parents", "description", "inuse", "mutable", "immutable", "type", "shared", "private",
)  # fmt: skip
"""What a record can be asked for (cache/manager.go, adaptUsageInfo)."""
FLAGS: Final = frozenset(("inuse", "mutable", "immutable", "shared", "private"))
"""Those that are there or not, without a value."""

Fields = Mapping[str, str]
"""The fields that a record has."""
Filter = Callable[[Fields], bool]

_CONDITION: Final = re.compile(r'\s*([A-Za-z][\w.]*)\s*(?:(==|!=|~=)\s*("(?:[^"\\]|\\.)*"|[^",\s]*)\s*)?(,|$)')


@dataclass(frozen=True, slots=True)
class _Condition:
    field: str
    operator: str
    value: str
    pattern: re.Pattern[str] | None = None

    def holds(self, fields: Fields) -> bool:
        value = fields.get(self.field)
        match self.operator:
            case "==":
                return value == self.value
            case "!=":
                return (value or "") != self.value
            case "~=":
                return self.pattern is not None and self.pattern.search(value or "") is not None
        return value is not None


def parse_filters(texts: Sequence[str]) -> Filter:
    """What any of some filters lets through; without a filter, everything.

    Raises:
        UsageError: a filter is not understood.
    """
    every = [_parse(text) for text in texts]
    if not every:
        return lambda fields: True
    return lambda fields: any(all(one.holds(fields) for one in conditions) for conditions in every)


def _parse(text: str) -> list[_Condition]:
    found, at = [], 0
    while at < len(text):
        match = _CONDITION.match(text, at)
        if match is None:
            raise UsageError(
                f"filter {text!r} is not understood at {text[at:]!r}: write FIELD, FIELD==VALUE, FIELD!=VALUE or FIELD~=REGEX"
            )
        found.append(_condition(match[1], match[2] or "", _unquoted(match[3] or "")))
        at = match.end()
    return found


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        raise UsageError(f"filter: the quoted value {value} cannot be read") from None


def _condition(field: str, operator: str, value: str) -> _Condition:
    if field not in FIELDS:
        raise UsageError(
            f"filter: there is no field {field!r}{did_you_mean(field, FIELDS)}; there are {', '.join(FIELDS)} and until"
        )
    try:
        pattern = re.compile(value) if operator == "~=" else None
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"filter: the regular expression {value!r} cannot be used: {error}") from None
    return _Condition(field, operator, value, pattern)


def from_words(words: Sequence[str]) -> tuple[tuple[str, ...], float]:
    """The words of ``--filter``, all of which have to hold, as filters and the seconds of ``until``.

    As buildx understands them (commands/prune.go): ``id=`` is found anywhere in the id, the others are whole;
    ``inuse`` is the same as ``inuse=true``.

    Raises:
        UsageError: a word is not understood.
    """
    conditions, until = [], 0.0
    for word in words:
        field, operator, value = re.fullmatch(r"([^=!~]*)(=~|[=!~]=?|)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
        if field in ("until", "unused-for"):
            until = duration(value)
        elif field in FLAGS:
            conditions.append(_flag(word, field, value))
        elif not operator:
            conditions.append(field)
        else:
            operator = {"=": "~=" if field == "id" else "==", "=~": "~="}.get(operator, operator)
            conditions.append(f"{field}{operator}{json.dumps(value, ensure_ascii=False)}")
    joined = ",".join(conditions)
    parse_filters([joined])
    return ((joined,) if joined else ()), until


_OPPOSITE: Final = {
    "mutable": "immutable", "immutable": "mutable", "shared": "private", "private": "shared",
}  # fmt: skip


def _flag(word: str, field: str, value: str) -> str:
    if value.lower() in ("", "true", "1"):
        return field
    if value.lower() in ("false", "0"):
        if field in _OPPOSITE:
            return _OPPOSITE[field]
        return f'{field}!="true"'
    raise UsageError(f"--filter {word}: {field} is true or false")


_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of a duration as Go writes it (``1h30m``), or of a number of seconds.

    Raises:
        UsageError: it is neither.
    """
    if re.fullmatch(r"[0-9]{1,18}", text):
        return float(text)
    if text and re.fullmatch(r"(?:[0-9]{1,18}(?:\.[0-9]{0,18})?(?:ns|us|µs|ms|s|m|h))+", text):
        parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    raise UsageError(f"{text!r} is no duration: write 48h, 1h30m or a number of seconds")


_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)


def size(text: str) -> tuple[int, int]:
    """Bytes and percentage of an amount of disk; one of both is 0. Units are powers of 1024, as in BuildKit.

    Raises:
        UsageError: it is none.
    """
    if re.fullmatch(r"[0-9]{1,3}%", text):
        return 0, int(text[:-1])
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no amount of disk: write 512MB, 10GB, 20% or a number of bytes")
    return int(float(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " ")), 0
