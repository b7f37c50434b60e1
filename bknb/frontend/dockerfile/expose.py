"""EXPOSE's ports (dockerfile2llb/convert_expose.go)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import lower, quote

_PROTOCOLS: Final = ("tcp", "udp", "sctp")
# Every port of every protocol; BuildKit has no limit, and a line of ranges can ask for millions.
_MAX_PORTS: Final = 3 * 65_536
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")

Report = Callable[[str, str], None]


def parse_ports(words: Iterable[str], report: Report) -> list[str]:
    """``port/protocol`` of each port; ranges are written out.

    Args:
        words: ``[[ip:]port:]port[-port][/protocol]``.
        report: given a build check's rule and the word it is about.

    Raises:
        DockerfileError: not a port.

    >>> parse_ports(["80", "90-91/udp"], print)
    ['80/tcp', '90/udp', '91/udp']
    """
    ports: list[str] = []
    for word in words:
        ports += _parse(word, report)
        if len(ports) > _MAX_PORTS:
            raise DockerfileError(f"one instruction exposes more than {_MAX_PORTS} ports")
    return ports


def _parse(word: str, report: Report) -> list[str]:
    parts = word.split(":")
    container = parts[-1]
    host = parts[-2] if len(parts) > 1 else ""
    ip = ":".join(parts[:-2])
    port, _, protocol = container.partition("/")
    if not port:
        raise DockerfileError(f"invalid port: {quote(word)}: no port specified")
    protocol = protocol or "tcp"
    if lower(protocol) not in _PROTOCOLS:
        raise DockerfileError(f"invalid port: {quote(word)}: invalid proto: {protocol}")
    if protocol != lower(protocol):
        report("ExposeProtoCasing", word)
    if ip or host:
        report("ExposeInvalidFormat", word)
    _check_ip(ip)
    first, last = _range(port, "containerPort")
    if host:
        host_first, host_last = _range(host, "hostPort")
        if last - first != host_last - host_first and last != first:
            raise DockerfileError(f"invalid ranges specified for container and host Ports: {port} and {host}")
    return [f"{number}/{lower(protocol)}" for number in range(first, last + 1)]


def _check_ip(ip: str) -> None:
    bare = ip
    if ip.startswith("["):
        if not ip.endswith("]"):
            raise DockerfileError(f"invalid IP address {ip}: address {ip}:: missing ']' in address")
        bare = ip[1:-1]
    if not bare:
        return
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        raise DockerfileError(f"invalid IP address: {bare}") from None


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [_number(part) for part in ((first, last) if dash else (first,))]
    start, end = numbers[0], numbers[-1]
    if start is None or end is None or end < start:
        raise DockerfileError(f"invalid {what}: {text}")
    return start, end


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text) or len(text) > 20:
        return None
    number = int(text)
    return number if 0 <= number <= 65535 else None
