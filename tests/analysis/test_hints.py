"""What could be done so that a change does not make steps run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bknb.analysis import Cause, Explanation, Kind
from bknb.analysis.seen import NOTHING
from bknb.analysis.words import hint, with_hints
from tests.analysis.light import LightFile, World
from tests.analysis.machine import LightBuilder


async def hints(folder: Path, text: str, world: World | None = None, **opts: str) -> list[str]:
    """Build, give other arguments, build again: the hints."""
    async with LightBuilder(world or World(), folder) as builder:
        before = await builder.build(text)
        after = await builder.build(text, {f"build-arg:{name}": value for name, value in opts.items()})
        found = with_hints(builder.explain(before, after), after.seen)
    assert found.causes
    return [cause.hint for cause in found.causes if cause.hint]


async def test_an_argument_goes_below_what_does_not_name_it(tmp_path: Path) -> None:
    """The line is that of the stage's own ARG, and of the last step that could stay."""
    text = "ARG V=1\nFROM base\nARG V\nRUN one\nRUN two\nRUN three $V\nRUN four\n"
    assert await hints(tmp_path, text, V="2") == ["move ARG V (line 3) below line 5"]


@pytest.mark.parametrize(
    "text",
    [
        "FROM base\nARG V=1\nRUN one $V\nRUN two\n",
        "FROM base\nARG V=1\nRUN one\nRUN two\n",
        "FROM base\nARG V=1\nENV E=$V\nRUN one\nRUN two $V\n",
    ],
)
async def test_an_argument_stays_where_it_is_needed(tmp_path: Path, text: str) -> None:
    """The first step names it, or none does, or what stands between needs it."""
    assert await hints(tmp_path, text, V="2") == []


async def test_only_the_context_has_a_dockerignore(tmp_path: Path) -> None:
    """A file of another stage is named, and there is nothing to be done about it there."""
    text = "FROM base AS a\nADD https://files.example/x /node_modules/\nFROM base\nCOPY --from=a /node_modules /m\n"
    world = World(bodies={"https://files.example/x": b"1"}, context={"/node_modules/y": LightFile()})
    async with LightBuilder(world, tmp_path) as builder:
        for number, line in enumerate(("", "COPY node_modules /n\n")):
            before = await builder.build(text + line)
            world.bodies["https://files.example/x"] = b"%d" % (number + 2)
            world.context["/node_modules/y"] = LightFile(data=b"%d" % number)
            after = await builder.build(text + line)
            found = with_hints(builder.explain(before, after), after.seen)
            said = [cause.hint for cause in found.causes if "dockerignore" in cause.hint]
            assert said == (["put node_modules in .dockerignore"] if line else [])


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (Cause(Kind.FILE_CONTENT, "a/.git/index"), "put .git in .dockerignore"),
        (Cause(Kind.FILE_ADDED, "node_modules/x/y.js"), "put node_modules in .dockerignore"),
        (Cause(Kind.FILE_CONTENT, "src/git.py"), ""),
        (Cause(Kind.FILE_CONTENT, "Dockerfile"), "put Dockerfile in .dockerignore"),
        (Cause(Kind.FILE_ADDED, ".dockerignore"), "put .dockerignore in .dockerignore"),
        (Cause(Kind.FILE_CONTENT, "docs/Dockerfile"), ""),
        (Cause(Kind.IMAGE_MOVED, "a:1", "sha256:b", "sha256:c"), "FROM a:1@sha256:c stays what it is"),
        (Cause(Kind.GIT_COMMIT, "h/r.git#main", "0a", "1b"), "h/r.git#1b stays what it is"),
        (Cause(Kind.HTTP_BODY, "https://h/x", "sha256:b", "sha256:c"), "ADD --checksum=sha256:c says which bytes are meant"),
        (Cause(Kind.NEVER_EXPORTED, "r/cache", "", "mode=min"), "--cache-to ...,mode=max exports every step"),
        (Cause(Kind.NO_CACHE), ""),
    ],
)  # fmt: skip
def test_hints_are_made_from_the_kind(cause: Cause, said: str) -> None:
    """Some kinds have one, with the values of the cause in it."""
    assert hint(cause, Explanation("", ""), NOTHING) == said


async def test_an_argument_of_a_label_goes_below_every_step(tmp_path: Path) -> None:
    """What first names it does no work of its own: all steps above that may stay; those of other stages do not count."""
    text = "FROM base AS a\nARG SHA=1\nRUN one\nRUN two\nLABEL sha=$SHA\nFROM base\nCOPY --from=a /x /x\nRUN three $SHA\n"
    assert await hints(tmp_path, text, SHA="2") == ["move ARG SHA (line 2) below line 4"]
