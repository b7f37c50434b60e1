"""Errors and where they belong (frontend/dockerfile/parser/errors.go)."""

from __future__ import annotations

from collections.abc import Sequence

from bknb.errors import BknbError, BuildCancelled, DockerfileError, Range


def located(error: BknbError, ranges: tuple[Range, ...]) -> DockerfileError:
    """An error with one more place; one of another kind becomes a Dockerfile's, with its words; not a stop."""
    if isinstance(error, BuildCancelled):
        raise error
    if isinstance(error, DockerfileError):
        found = error
    else:
        found = DockerfileError(error.message)
        found.__cause__ = error
    found.locations = (*found.locations, ranges)
    found.ranges = found.ranges or ranges
    return found


def relocated(error: DockerfileError, ranges: tuple[Range, ...]) -> DockerfileError:
    """An error with another place instead of its own."""
    error.locations = (ranges,)
    error.ranges = ranges
    return error


def wrapped(prefix: str, error: BknbError) -> DockerfileError:
    """An error with words before its own, its places kept; not a stop."""
    if isinstance(error, BuildCancelled):
        raise error
    found = DockerfileError(f"{prefix}: {error.message}")
    if isinstance(error, DockerfileError):
        found.locations, found.ranges, found.suggestion = error.locations, error.ranges, error.suggestion
    found.__cause__ = error
    return found


def excerpt(filename: str, text: str, ranges: Sequence[Range]) -> str:
    """The lines around some ranges, marked, as BuildKit prints them (solver/errdefs/source.go)."""
    lines = text.split("\n")
    if not ranges:
        return ""
    spans = [(part.start_line, max(part.start_line, part.end_line)) for part in ranges]
    start, end = min(first for first, _ in spans), max(last for _, last in spans)
    if not 1 <= start <= len(lines):
        return ""
    end = min(end, len(lines))
    wanted, added, shown = 4 if start == end else 2, 0, start
    while added < wanted:
        if start > 1:
            start, added = start - 1, added + 1
        if end != len(lines):
            end, added = end + 1, added + 1
        added += 1
    out = [f"{filename}:{shown}", "-" * 20]
    for number in range(start, end + 1):
        mark = ">>>" if any(first <= number <= last for first, last in spans) else "   "
        out.append(f" {number:3} | {mark} {lines[number - 1]}")
    return "\n".join([*out, "-" * 20]) + "\n"
