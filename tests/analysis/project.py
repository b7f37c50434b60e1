"""A project that a walk changes: a Dockerfile in pieces, and a frontend that may make other ops of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bknb.digest import Digest
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.llb.marshal import vertex as make
from bknb.llb.ops import ExecOp
from bknb.llb.vertex import Edge, Vertex
from bknb.protocols import FrontendRequest, FrontendResult
from tests.analysis.light import AMD64

REPOSITORY, FILE_ADDRESS = "git.example/lib.git", "https://files.example/data.bin"


@dataclass
class Project:
    """A Dockerfile in pieces that can be changed one by one."""

    base: str = "base"
    value: str = "0"
    """Default of ARG V; `given` is what --build-arg says."""
    given: str = ""
    env: int = 0
    workdir: str = "/app"
    user: str = "one"
    file: str = FILE_ADDRESS
    extra: list[str] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=lambda: {"configure": 0, "make": 0, "check": 0})
    opts: dict[str, str] = field(default_factory=dict)
    order: Sequence[int] = range(7)
    """How the steps of the first stage stand; the last stays the last, so that each of the others reaches it."""

    def run(self, name: str) -> str:
        """The instruction that runs a command."""
        flags = "--mount=type=bind,source=tools,target=/tools " if name == "make" else ""
        return f"RUN {flags}{name} {self.runs[name]}{' $V' if name == 'make' else ''}"

    def text(self) -> str:
        """The Dockerfile."""
        steps = [
            f"WORKDIR {self.workdir}", f"USER {self.user}", f"ADD https://{REPOSITORY}#main /lib",
            f"ADD {self.file} /data/", "COPY conf conf", "COPY src src", self.run("configure"),
        ]  # fmt: skip
        return "\n".join([
            f"FROM {self.base} AS build", f"ARG V={self.value}", f"ENV E={self.env}",
            *(steps[place] for place in self.order), *self.extra, self.run("make"),
            "FROM runtime AS final", "COPY --from=build /ran /ran", self.run("check"), "",
        ])  # fmt: skip

    def options(self) -> dict[str, str]:
        """What the frontend is told."""
        return self.opts | ({"build-arg:V": self.given} if self.given else {})


class Tweaked(DockerfileFrontend):
    """A frontend that makes other ops of the same text, as another version may: execs have a host name."""

    def __init__(self, hostname: str = "") -> None:
        super().__init__(host=AMD64)
        self.hostname = hostname

    async def solve(self, request: FrontendRequest, bridge: Any) -> FrontendResult:
        found = await super().solve(request, bridge)
        made: dict[Digest, Vertex] = {}
        results = tuple(
            replace(
                result, edge=result.edge and Edge(self._tweak(result.edge.vertex, made), result.edge.index)
            )
            for result in found.results
        )
        infos = {made[old].digest: info for old, info in found.vertices.items() if old in made}
        return replace(found, results=results, vertices=infos)

    def _tweak(self, old: Vertex, made: dict[Digest, Vertex]) -> Vertex:
        if old.digest not in made:
            inputs = [Edge(self._tweak(edge.vertex, made), edge.index) for edge in old.inputs]
            op = old.op
            if isinstance(op, ExecOp) and op.meta is not None and self.hostname:
                op = replace(op, meta=replace(op.meta, hostname=self.hostname))
            made[old.digest] = make(op, inputs, old.platform, old.constraints, old.meta, old.locations)
        return made[old.digest]
