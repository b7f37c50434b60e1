"""Amounts as people read them: seconds, bytes, digests, counts."""

from __future__ import annotations


def seconds(value: float | None) -> str:
    """A duration.

    >>> [seconds(v) for v in (None, 0.0004, 0.0312, 0.25, 2.71, 75.2, 4000)]
    ['', '<1 ms', '31 ms', '0.25 s', '2.7 s', '1 m 15 s', '1 h 06 m']
    """
    if value is None:
        return ""
    if value < 0.001:
        return "<1 ms"
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 0.995:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def size(value: int | None) -> str:
    """A number of bytes, in decimal units as registries count them.

    >>> [size(v) for v in (None, 0, 999, 18_300, 61_000_000, 1_234_000_000)]
    ['', '0 B', '999 B', '18.3 kB', '61 MB', '1.2 GB']
    """
    if value is None:
        return ""
    if value < 1000:
        return f"{value} B"
    amount, unit = value / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}" if amount < 99.95 and f"{amount:.1f}"[-1] != "0" else f"{amount:.0f} {unit}"


def short(digest: str, length: int = 8) -> str:
    """The beginning of a digest's hex.

    >>> short("sha256:e3b0c44298fc1c149afb")
    'e3b0c442'
    """
    return digest.rpartition(":")[2][:length]


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "step"), count(3, "step")
    ('1 step', '3 steps')
    """
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def cut(text: str, length: int) -> str:
    """A text in at most `length` characters, on one line, with an ellipsis where something is missing.

    >>> cut("RUN apt-get  update && true", 12)
    'RUN apt-get…'
    """
    flat = " ".join(text[: 4 * length + 200].split())
    return flat if len(flat) <= length else flat[: max(0, length - 1)].rstrip() + "…"
