"""Folders of the client as sources: narrowed to what is used, without what is ignored."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from typing import Final

from bknb import llb
from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import decode
from bknb.llb.graph import Constraints, Defaults, Edges, Output, Pending
from bknb.llb.vertex import Vertex
from bknb.patterns import PatternError, read_ignore_file

DOCKERIGNORE: Final = ".dockerignore"


class LateLocal(Pending):
    """A local source whose paths are known only when every stage has been lowered."""

    __slots__ = ("make_state", "output")

    def __init__(self, make_state: Callable[[], llb.State]) -> None:
        super().__init__(Constraints())
        self.make_state = make_state
        self.output = Output(self)

    def sources(self) -> Iterable[Output]:
        return ()

    def make(self, edges: Edges, defaults: Defaults) -> Vertex:
        output = self.make_state().output
        assert output is not None
        return output.pending.make(edges, defaults)


def follow_paths(paths: Iterable[str]) -> list[str]:
    """The paths that a local source is narrowed to; none where the whole is needed."""
    found = set(paths)
    if "/" in found:
        return []
    return sorted(
        (posixpath.normpath(path.lstrip("/") or ".") for path in found),
        key=lambda path: path.encode("utf-8", "surrogateescape"),
    )


def read_patterns(data: bytes, name: str) -> list[str]:
    """The patterns of an ignore file.

    Raises:
        DockerfileError: a line that cannot be read.
    """
    try:
        return read_ignore_file(decode(data))
    except PatternError as error:
        raise DockerfileError(f"failed parsing {name}: {error}") from None
