"""Which vertices ignore the cache: of a whole stage, of one step, and nothing else about the graph."""

from __future__ import annotations

import pytest

from bknb.llb.marshal import walk
from bknb.llb.vertex import Vertex
from tests.frontend.dockerfile.test_frontend import solve

TEXT = """FROM alpine AS base
RUN one \\
  more
WORKDIR /w
FROM base AS Build
COPY a /a
RUN <<EOF
two
EOF
FROM base
RUN last
COPY --from=build /a /b
"""


def vertices(**opts: str) -> list[Vertex]:
    """The graph, inputs first."""
    edge = solve(TEXT, **opts).results[0].edge
    assert edge is not None
    return list(walk(edge.vertex))


def ignored(**opts: str) -> list[str]:
    """The steps that ignore the cache, without the names of their stages."""
    return [v.meta.name.partition("] ")[2] for v in vertices(**opts) if v.meta.ignore_cache]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("base:2", ["RUN one   more"]),
        ("base:3", ["RUN one   more"]),
        ("BASE:2", ["RUN one   more"]),
        ("build:6", ["COPY a /a"]),
        ("build:8", ["RUN <<EOF (two)"]),
        ("stage-2:11", ["RUN last"]),
        ("build:6,stage-2:12", ["COPY a /a", "COPY --from=build /a /b"]),
        ("build", ["COPY a /a", "RUN <<EOF (two)"]),
        ("base:2,build", ["RUN one   more", "COPY a /a", "RUN <<EOF (two)"]),
        ("base:6", []),
        ("base:4", []),
        ("base:99999999999999999999", []),
        ("base:x", []),
        ("nosuch:2", []),
        (":2", []),
    ],
)
def test_the_filter(words: str, steps: list[str]) -> None:
    """Any line of an instruction means it; what means nothing is passed over, as BuildKit does."""
    found = ignored(**{"no-cache": words, "target": "" if "stage-2" in words else "build"})
    assert sorted(found) == sorted(steps)


def test_only_the_metadata_differs() -> None:
    """The ops are the same to the byte, so digests and keys are."""
    plain, filtered = vertices(), vertices(**{"no-cache": "build:6"})
    assert [v.digest for v in plain] == [v.digest for v in filtered]
    assert [v.data for v in plain] == [v.data for v in filtered]


def test_a_trigger_has_no_line() -> None:
    """What an image's ONBUILD brings stands in no line of this file."""
    text = "FROM alpine AS base\nONBUILD RUN trigger\nFROM base AS top\nRUN own\n"
    edge = solve(text, **{"no-cache": "top:2,top:3,base:2"}).results[0].edge
    assert edge is not None
    assert not [v for v in walk(edge.vertex) if v.meta.ignore_cache]
