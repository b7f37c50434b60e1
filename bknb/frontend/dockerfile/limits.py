"""What a request limits its steps to: ulimits, memory, processors (frontend/dockerui/attr.go)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.commas import fields_of
from bknb.frontend.dockerfile.gotext import quote, trim_space
from bknb.llb.ops import Ulimit
from bknb.llb.vertex import LinuxResources

_SIGNED: Final = re.compile(r"[+-]?[0-9]+")
_UNSIGNED: Final = re.compile(r"[0-9]+")
_MOST_PROCESSORS: Final = 8192
_ULIMITS: Final = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def integer(text: str, *, signed: bool = True) -> int:
    """A number of 64 bits, as strconv.ParseInt and ParseUint read it.

    Raises:
        DockerfileError: in strconv's words.

    >>> integer("-1"), integer("+07")
    (-1, 7)
    """
    if not (_SIGNED if signed else _UNSIGNED).fullmatch(text):
        reason = "invalid syntax"
    else:
        digits = text.lstrip("+-").lstrip("0") or "0"
        number = int(digits[:24]) * (-1 if text[0] == "-" else 1)
        if -(1 << 63) <= number < 1 << 63 or (not signed and number < 1 << 64):
            return number
        reason = "value out of range"
    name = "ParseInt" if signed else "ParseUint"
    raise DockerfileError(f"strconv.{name}: parsing {quote(text)}: {reason}")


def ulimits_of(text: str) -> tuple[Ulimit, ...]:
    """Read the option `ulimit`: comma-separated.

    Raises:
        DockerfileError: it is wrong.
    """
    return tuple(map(parse_ulimit, fields_of(text))) if text else ()


def parse_ulimit(text: str) -> Ulimit:
    """Read ``name=soft[:hard]`` (docker/go-units).

    Raises:
        DockerfileError: in the words of BuildKit.

    >>> parse_ulimit("nofile=1024:2048")
    Ulimit(name='nofile', soft=1024, hard=2048)
    """
    name, sign, limits = text.partition("=")
    if not sign:
        raise DockerfileError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise DockerfileError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise DockerfileError(
            f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        )
    hard = integer(parts[-1])
    soft = integer(parts[0])
    wrong = "ulimit soft limit must be less than or equal to hard limit"
    if hard != -1 and soft == -1:
        raise DockerfileError(f"{wrong}: soft: -1 (unlimited), hard: {hard}")
    if hard != -1 and soft > hard:
        raise DockerfileError(f"{wrong}: {soft} > {hard}")
    return Ulimit(name, soft, hard)


def resources_of(opts: Mapping[str, str]) -> LinuxResources | None:
    """Read the options for memory and processors; None if none is given.

    Raises:
        DockerfileError: one of them has a wrong value.
    """
    found = LinuxResources(
        memory=_amount(opts, "memory"),
        memory_swap=_amount(opts, "memswap", or_unlimited=True),
        cpu_shares=_amount(opts, "cpushares", signed=False),
        cpu_period=_amount(opts, "cpuperiod", signed=False),
        cpu_quota=_amount(opts, "cpuquota"),
        cpuset_cpus=_cpuset(opts, "cpusetcpus"),
        cpuset_mems=_cpuset(opts, "cpusetmems"),
    )
    return found if found != LinuxResources() else None


def _amount(opts: Mapping[str, str], key: str, *, signed: bool = True, or_unlimited: bool = False) -> int:
    text = opts.get(key, "")
    if not text:
        return 0
    try:
        number = integer(text, signed=signed)
    except DockerfileError as error:
        raise DockerfileError(f"invalid {key} value: {text}: {error.message}") from None
    if number <= 0 and not (or_unlimited and number == -1):
        wanted = "must be -1 (unlimited) or > 0" if or_unlimited else "must be > 0"
        raise DockerfileError(f"invalid {key} value: {text}: {wanted}")
    return number


def _cpuset(opts: Mapping[str, str], key: str) -> str:
    """A list of numbers and ranges, as it was written (util/cpuset/cpuset.go)."""
    text = opts.get(key, "")
    for part in map(trim_space, text.split(",")):
        if part and (problem := _wrong_processors(part)):
            raise DockerfileError(f"invalid {key} value: {text}: {problem}")
    return text


def _wrong_processors(part: str) -> str:
    first, dash, last = map(trim_space, part.partition("-"))
    kind = "range" if dash else "element"
    try:
        low = integer(first)
        high = integer(last) if dash else low
    except DockerfileError:
        return f"invalid cpuset {kind} {quote(part)}"
    if low < 0 or high < low:
        return f"invalid cpuset {kind} {quote(part)}"
    if high > _MOST_PROCESSORS:
        return f"cpuset {kind} {quote(part)} exceeds maximum {_MOST_PROCESSORS}"
    return ""
