"""Errors and where they belong (frontend/dockerfile/parser/errors.go)."""

from __future__ import annotations

from bknb.errors import BknbError, DockerfileError, Range


def located(error: BknbError, ranges: tuple[Range, ...]) -> DockerfileError:
    """An error with one more place; one of another kind becomes a Dockerfile's, with its words."""
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
    """An error with words before its own, its places kept."""
    found = DockerfileError(f"{prefix}: {error.message}")
    if isinstance(error, DockerfileError):
        found.locations, found.ranges, found.suggestion = error.locations, error.ranges, error.suggestion
    found.__cause__ = error
    return found
