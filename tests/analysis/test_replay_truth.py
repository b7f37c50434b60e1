"""A prediction over a history, held against one that is told what each step writes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from bknb.analysis.predict import Foreseen, predict
from bknb.analysis.replay.compile import Compiler, Images
from bknb.analysis.shadow import ShadowStore
from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.keys import ContentSelector, cache_map
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.platforms import Platform
from bknb.protocols import CacheMap, ImageConfigAnswer, Job
from bknb.session import LocalSession

PLATFORM = Platform("linux", "amd64")


def no_image(reference: str, platform: Platform | None, mode: str) -> ImageConfigAnswer:
    """These Dockerfiles stand on nothing."""
    raise SourceError(reference)


LINES = (
    ("FROM scratch AS build",), ("COPY src /src", "COPY src /src\nCOPY docs /docs"), ("RUN make", "RUN make -j"), ("FROM scratch",),
    ("RUN base", ""), ("COPY --from=build /out /out",), ("RUN x", "RUN x2", "COPY docs /docs\nRUN x"), ("COPY docs /docs", ""),
    ("RUN y", "RUN y2"),
    ("", "FROM scratch\nCOPY --from=1 /out /all\nRUN fin", "FROM scratch\nCOPY --from=1 /out /all\nCOPY docs /docs\nRUN fin"),
)  # fmt: skip


class Told:
    """Facts at one commit: files by name; with `truth` also what steps write, of which there are two kinds only."""

    def __init__(self, number: int, files: Mapping[str, int], *, truth: bool) -> None:
        self.number, self.files, self.truth = number, dict(files), truth

    async def keys(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        yield CacheMap(Digest(f"random:{self.number}-{vertex.digest}"))

    def _files(self, selectors: Sequence[ContentSelector]) -> Digest:
        return Digest.of_text(repr([(one.path, self.files[one.path.strip("/")]) for one in selectors]))

    def _written(self, vertex: Vertex) -> int:
        spec = cache_map(vertex, PLATFORM)
        parts = [str(spec.digest)]
        for given, dep in zip(vertex.inputs, spec.deps, strict=True):
            local = isinstance(given.vertex.op, SourceOp)
            parts.append(str(self._files(dep.content or ()) if local else self._written(given.vertex)))
        return int(Digest.of_text("|".join(parts)).hex[:8], 16) % 2

    async def content(
        self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
    ) -> Digest | None:
        if isinstance(vertex.op, SourceOp):
            return self._files(selectors)
        return Digest.of_text(str(self._written(vertex))) if self.truth else None

    def missing(self, results: Collection[str]) -> Collection[str]:
        return ()


async def compare(seed: int) -> tuple[int, int]:
    """Foretell a history with and without knowing what steps write; the counts of certain and of open answers."""
    chance = random.Random(seed)
    compiler = Compiler(Images(no_image), PLATFORM, "Dockerfile")
    choice, files = [0] * len(LINES), {"src": 0, "docs": 0}
    blind, seeing = ShadowStore(), ShadowStore()
    certain = open_ = 0
    for number in range(12):
        match chance.choices(["src", "docs", "line"], [4, 3, 3])[0]:
            case "line":
                at = chance.randrange(len(LINES))
                choice[at] = chance.randrange(len(LINES[at]))
            case name:
                files[name] = chance.randrange(3)
        text = "\n".join(line[chosen] for line, chosen in zip(LINES, choice, strict=True) if line[chosen])
        compiled = await compiler.compile(text.encode(), {}, {})
        assert compiled.edge is not None
        session = LocalSession({}, {}, {}, {}, id="x")
        guessed, truth = [
            await predict(
                [compiled.edge], store, Told(number, files, truth=known), platform=PLATFORM, session=session
            )
            for store, known in ((blind, False), (seeing, True))
        ]
        for step in compiled.steps:
            for digest in step.vertices:
                foreseen = guessed.verdicts[digest].outcome
                if foreseen is Foreseen.UNKNOWN:
                    open_ += 1
                else:
                    certain += 1
                    assert foreseen is truth.verdicts[digest].outcome, (seed, number, step.command)
    return certain, open_


def test_what_is_said_for_certain_is_true() -> None:
    """Whatever the steps wrote: over 30 histories each certain answer is that of one who knows it."""

    async def run() -> list[tuple[int, int]]:
        return [await compare(seed) for seed in range(30)]

    found = asyncio.run(run())
    certain, open_ = (sum(counts) for counts in zip(*found, strict=True))
    assert certain > 4 * open_ > 800
