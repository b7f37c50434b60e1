"""What bytes from outside meet first, and what may come of it: an answer, or the one error that is meant for it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bknb.errors import DefinitionError, DockerfileError
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.llb import Definition, render
from bknb.platforms import Platform
from bknb.protocols import FrontendRequest
from tests.conformance.groups.llb import MeasuredBridge, MeasuredRef

CASES = Path(__file__).parent.parent / "conformance" / "cases"
OPTIONS: tuple[Mapping[str, str], ...] = (
    {},
    {"requestid": "frontend.lint"},
    {"requestid": "frontend.outline"},
    {"requestid": "frontend.targets"},
    {"platform": "linux/arm64,windows/amd64", "build-arg:A": "x y"},
    {"target": "b", "no-cache": "", "build-arg:SOURCE_DATE_EPOCH": "1"},
    {"context:a": "target:b", "context:b": "docker-image://busybox"},
)
WORDS = (
    "FROM ADD COPY RUN ENV ARG LABEL EXPOSE VOLUME USER WORKDIR CMD ENTRYPOINT SHELL HEALTHCHECK STOPSIGNAL ONBUILD MAINTAINER "
    "AS --from= --chmod= --chown= --link --parents --exclude= --mount=type=cache,target= --mount=type=secret,id= --mount=type=ssh "
    "--network=none --security=insecure --platform=$BUILDPLATFORM --checksum=sha256: --unpack --keep-git-dir --interval=1s NONE "
    "scratch ${ ${a:-b} ${a:+b} ${a:?b} ${a#b} ${a%%b} ${a/b/c} $TARGETARCH #syntax= #escape=` #check=error=true;skip=all // <<E <<-'E' \\\n "
    '["a","b"] https://a/b.git#c:d git@h:r.git @sha256: "\' 0755 u+rwX,go=r /../ ** C:\\ '
).split(" ")


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with: those of the measured cases."""
    for path in sorted(CASES.glob("llb_*.jsonl")):
        for line in path.read_text().splitlines():
            case = json.loads(line)
            if target == "dockerfile":
                request = case["request"]
                coded = request.get("dockerfile_b64")
                yield base64.b64decode(coded) if coded else request.get("dockerfile", "").encode()
            else:
                for result in case["expected"].get("results", ()):
                    ops = tuple(base64.b64decode(op["bytes"]) for op in result["definition"]["ops"])
                    yield Definition(ops).to_bytes()


class _Bridge(MeasuredBridge):
    """Gives these bytes as the Dockerfile."""

    def __init__(self, data: bytes) -> None:
        super().__init__({})
        self._data = data

    async def read_file(self, ref: MeasuredRef, path: str, *, limit: int = 0) -> bytes | None:
        return None if path.endswith(".dockerignore") else self._data


_LOOP = asyncio.new_event_loop()


def dockerfile(data: bytes) -> None:
    """A Dockerfile compiles, or is a `DockerfileError`; what comes out holds together."""
    opts = OPTIONS[len(data) % len(OPTIONS)]
    frontend = DockerfileFrontend(built_in=lambda image: False, host=Platform("linux", "amd64"))
    try:
        result = _LOOP.run_until_complete(frontend.solve(FrontendRequest(opts), _Bridge(data)))
    except DockerfileError as error:
        str(error)
        return
    for one in result.results:
        made = Definition.from_edge(one.edge)
        assert Definition.from_bytes(made.to_bytes()).to_edge() == one.edge


def definition(data: bytes) -> None:
    """A definition reads, or is a `DefinitionError`; what was read is drawn and written again."""
    try:
        found = Definition.from_bytes(data)
        edge = found.to_edge()
    except DefinitionError as error:
        str(error)
        return
    again = Definition.from_edge(edge)
    assert again.to_edge() == edge
    for draw in (render.dot, render.mermaid, render.json_lines, render.rows):
        draw(again)


TARGETS: Mapping[str, Callable[[bytes], Any]] = {"dockerfile": dockerfile, "definition": definition}
