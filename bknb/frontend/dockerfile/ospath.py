"""Paths of the system that an image is for, Windows too: drive letters, backslashes (util/system/path.go)."""

from __future__ import annotations

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import quote
from bknb.llb.values import clean, join


def to_slash(path: str, system: str) -> str:
    r"""With forward slashes.

    >>> to_slash("a\\b", "windows"), to_slash("a\\b", "linux")
    ('a/b', 'a\\b')
    """
    return path.replace("\\", "/") if system == "windows" else path


def from_slash(path: str, system: str) -> str:
    """With the system's own separator."""
    return path.replace("/", "\\") if system == "windows" else path


def drop_drive(path: str, system: str, *, keep_slash: bool = False) -> str:
    """A path without its drive letter, which can only be C.

    Raises:
        DockerfileError: another drive, a network path, or nothing but a drive.
    """
    if system != "windows":
        return path
    if len(path) == 2 and path[1] == ":":
        raise DockerfileError(f"No relative path specified in {quote(path)}")
    if to_slash(path[:2], system) == "//":
        raise DockerfileError("UNC paths are not supported")
    drive, colon, rest = path.partition(":")
    if not colon:
        return _clean(path, system, keep_slash=keep_slash)
    if drive.lower() != "c":
        raise DockerfileError("The specified path is not on the system drive (C:)")
    return _clean(rest, system, keep_slash=keep_slash)


def _clean(path: str, system: str, *, keep_slash: bool) -> str:
    path = to_slash(path, system)
    cleaned = clean(path)
    return cleaned + "/" if keep_slash and len(cleaned) > 1 and path.endswith("/") else cleaned


def is_absolute(path: str, system: str) -> bool:
    """Whether a path, without its drive letter, begins at the root."""
    try:
        return to_slash(drop_drive(path, system), system).startswith("/")
    except DockerfileError:
        return False


def normalize(parent: str, path: str, system: str, *, keep_slash: bool = False) -> str:
    r"""An absolute path with forward slashes; a relative one is joined to `parent`.

    Raises:
        DockerfileError: see `drop_drive`.

    >>> normalize("/w", "a/", "linux", keep_slash=True), normalize("/", "C:\\\\x", "windows")
    ('/w/a/', '/x')
    """
    original = path = to_slash(path, system)
    try:
        parent = drop_drive(to_slash(parent, system) or "/", system, keep_slash=keep_slash)
        if not is_absolute(parent, system):
            parent = join("/", parent)
        path = drop_drive(path or parent, system, keep_slash=keep_slash)
    except DockerfileError as error:
        raise DockerfileError(f"removing drive letter: {error.message}") from None
    if not is_absolute(path, system):
        path = join(parent, path)
    if keep_slash:
        if original.endswith("/") and not path.endswith("/"):
            path += "/"
        elif original.endswith("/."):
            path += "." if path == "/" else "/."
    return to_slash(path, system)
