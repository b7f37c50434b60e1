"""The frontend as a whole: what it asks, what it gives, and what it leaves alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bknb.errors import DockerfileError, RegistryError
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.llb import Definition, Edge, SourceOp, State, mkfile, scratch
from bknb.llb.marshal import walk
from bknb.platforms import Platform
from bknb.protocols import FrontendRequest, FrontendResult, ImageConfigAnswer, SourceMetaAnswer

CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}'


class Client:
    """A client with folders of files, and a registry where every image exists but `missing`."""

    emit = staticmethod(lambda event: None)
    session_id = "session"
    platforms = (Platform("linux", "amd64"),)

    def __init__(self, dockerfile: str, **files: str) -> None:
        self.files = {"Dockerfile": dockerfile, **files}
        self.loaded: list[str] = []
        self.looked_up: list[str] = []
        self.released = 0
        self.together = self.most = 0

    async def resolve_image_config(self, reference: str, **_: Any) -> ImageConfigAnswer:
        """Any image; counts how many are asked for at once."""
        self.looked_up.append(reference)
        self.together += 1
        self.most = max(self.most, self.together)
        for _ in range(3):
            await asyncio.sleep(0)
        self.together -= 1
        if "missing" in reference:
            raise RegistryError(f"{reference}: not found")
        return ImageConfigAnswer(reference, None, CONFIG)

    async def resolve_source_meta(
        self, identifier: str, attrs: Mapping[str, str], *, log_name: str
    ) -> SourceMetaAnswer:
        """A file that was changed in 2001."""
        return SourceMetaAnswer(identifier, http_last_modified=1_000_000_000)

    async def solve(self, edge: Edge) -> Client:
        """Remembers what was loaded, by its shown name."""
        self.loaded.append(edge.vertex.meta.name)
        return self

    async def read_file(self, ref: Client, path: str, *, limit: int = 0) -> bytes | None:
        """A file of any folder."""
        return self.files[path].encode() if path in self.files else None

    async def stat_file(self, ref: Client, path: str) -> None:
        """Nothing asks for it."""

    async def release(self) -> None:
        """The Ref of `solve`."""
        self.released += 1


def solve(dockerfile: str, /, client: Client | None = None, **opts: str) -> FrontendResult:
    """Compile a Dockerfile."""
    client = client or Client(dockerfile)
    return asyncio.run(DockerfileFrontend().solve(FrontendRequest(opts), client))


def sources(edge: Edge | None) -> list[SourceOp]:
    """The sources of a graph."""
    assert edge is not None
    return [found.op for found in walk(edge.vertex) if isinstance(found.op, SourceOp)]


def test_a_file_that_needs_no_context_looks_at_none() -> None:
    """The ignore file is asked for only when something is copied or mounted from the context."""
    client = Client("FROM alpine AS a\nRUN --mount=type=tmpfs,target=/t x\nFROM alpine\nCOPY . .\n")
    solve("", client, target="a")
    assert client.loaded == ["[internal] load build definition from Dockerfile"]
    assert client.released == 1


@pytest.mark.parametrize("step", ["COPY a /a", "ADD a /a", "RUN --mount=target=/x ls", "ONBUILD COPY . ."])
def test_a_file_that_uses_the_context_reads_its_ignore_file(step: str) -> None:
    """Once, however often it is used; the patterns become the context's."""
    client = Client(f"FROM alpine AS b\n{step}\nFROM b\n{step}\n", **{".dockerignore": "*.log\n"})
    found = [op for op in sources(solve("", client).results[0].edge) if op.identifier == "local://context"]
    assert [op.attrs["local.excludepatterns"] for op in found] == ['["*.log"]']
    assert client.loaded.count("[internal] load .dockerignore") == 1
    assert client.released == len(client.loaded)


def test_base_images_are_looked_up_side_by_side_and_once() -> None:
    """Each image of a reached stage once, all together; others never."""
    client = Client(
        "FROM a AS a\nFROM b AS b\nFROM a AS c\nFROM unused AS u\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\nCOPY --from=c / /\nCOPY --from=img / /\n"
    )
    solve("", client)
    wanted = {f"docker.io/library/{name}:latest" for name in ("a", "b", "img")}
    assert (set(client.looked_up), len(client.looked_up)) == (wanted, 3)
    assert client.most == 3


def test_skipped_stages_are_told_with_their_instructions() -> None:
    """A display can show what the target does not need."""
    result = solve("FROM a AS base\nFROM b AS unused\nRUN x \\\n  y\nFROM base\nRUN z\n")
    assert [stage.name for stage in result.skipped] == ["unused"]
    assert [(text, r.start_line, r.end_line) for text, r in result.skipped[0].instructions] == [
        ("FROM b AS unused", 2, 2),
        ("RUN x   y", 3, 4),
    ]


def test_every_vertex_knows_its_stage_and_instruction() -> None:
    """Steps by stage; what the frontend added itself has none."""
    result = solve("FROM a AS base\nRUN one\nFROM base\nCOPY --link f /f\nWORKDIR /w\n")
    found = sorted((info.stage, info.command) for info in result.vertices.values())
    assert found == [
        ("", ""),
        ("base", "FROM a AS base"),
        ("base", "RUN one"),
        ("stage-1", "COPY --link f /f"),
        ("stage-1", "COPY --link f /f"),
        ("stage-1", "WORKDIR /w"),
    ]
    assert set(result.vertices) == {
        vertex.digest for one in result.results if one.edge for vertex in walk(one.edge.vertex)
    }


@pytest.mark.parametrize(
    "image", ["docker/dockerfile:1", "docker/dockerfile:1.26", "docker/dockerfile-upstream:master"]
)
def test_buildkit_s_own_frontends_run_built_in(image: str) -> None:
    """A syntax line that names them changes nothing."""
    assert solve(f"# syntax={image}\nFROM scratch\n").forward is None


@pytest.mark.parametrize(
    "image", ["docker/dockerfile:1.27", "example.com/own/frontend:1", "docker/dockerfile"]
)
def test_other_frontends_are_named(image: str) -> None:
    """The caller is told which image and which options it would get; latest is ours."""
    forward = solve(f"# syntax={image} arg\nFROM scratch AS t\n", target="t").forward
    if image == "docker/dockerfile":
        assert forward is None
        return
    assert forward is not None
    assert (forward.source, forward.opts["cmdline"], forward.opts["target"]) == (image, f"{image} arg", "t")


def test_several_platforms_are_several_results() -> None:
    """Named by platform; warnings are told once."""
    result = solve("from alpine\nRUN x\n", platform="linux/arm64,linux/amd64")
    assert [one.id for one in result.results] == ["linux/arm64", "linux/amd64"]
    rules = [warning.rule.name for warning in result.warnings]
    assert sorted(rules) == ["ConsistentInstructionCasing", "InvalidBaseImagePlatform"]


def test_an_error_carries_place_warnings_and_hint() -> None:
    """What a display needs to show it."""
    with pytest.raises(DockerfileError) as caught:
        solve("FROM alpine\nMAINTAINER me\nRUN --mount=type=bnd,target=/x y\n")
    error = caught.value
    assert error.message == 'unsupported mount type "bnd" (did you mean bind?)'
    assert [r.start_line for r in error.ranges] == [3]
    assert error.filename == "Dockerfile"
    assert [warning.rule.name for warning in error.warnings] == ["MaintainerDeprecated"]


def test_a_missing_image_is_an_error_at_its_from() -> None:
    """With the nearest stage or well-known image."""
    with pytest.raises(DockerfileError) as caught:
        solve("FROM alpine AS missing-1\nFROM missing-2\n")
    assert caught.value.message.endswith("(did you mean missing-1?)")
    assert [r.start_line for r in caught.value.ranges] == [2]


def test_a_missing_dockerfile_is_one_line() -> None:
    """Named as it was asked for."""
    client = Client("")
    del client.files["Dockerfile"]
    with pytest.raises(DockerfileError, match=r"failed to read dockerfile: open Dockerfile: no such file"):
        solve("", client)


def test_a_dockerfile_in_lower_case_is_found() -> None:
    """As docker build has it."""
    client = Client("")
    client.files = {"dockerfile": "FROM scratch\n"}
    assert solve("", client).results[0].edge is None


def test_inputs_take_the_place_of_contexts() -> None:
    """A definition given by the caller is a named context."""
    given = State().file(mkfile("/f", b"x")).edge()
    assert given is not None
    client = Client("FROM scratch\nCOPY --from=in /f /f\n")
    request = FrontendRequest({"context:in": "input:in"}, {"in": given})
    result = asyncio.run(DockerfileFrontend().solve(request, client))
    assert result.results[0].edge is not None
    digests = {found.digest for found in walk(result.results[0].edge.vertex)}
    assert given.vertex.digest in digests


def test_the_epoch_may_be_that_of_a_source() -> None:
    """A stage that ADDs one remote file gives its time."""
    result = solve(
        "FROM scratch AS src\nADD https://example.com/x /\nFROM scratch\nWORKDIR /w\n",
        **{"build-arg:SOURCE_DATE_EPOCH": "src"},
    )
    assert result.results[0].epoch == 1_000_000_000
    assert '"created":"2001-09-09T01:46:40Z"' in result.results[0].image_config


def test_triggers_that_never_end_are_an_error() -> None:
    """An image whose ONBUILD names itself."""

    class Endless(Client):
        async def resolve_image_config(self, reference: str, **_: Any) -> ImageConfigAnswer:
            config = b'{"os":"linux","config":{"OnBuild":["COPY --from=self /a /b"]}}'
            return ImageConfigAnswer(reference, None, config)

    with pytest.raises(DockerfileError, match="triggers never end"):
        solve("", Endless("FROM self\nFROM self\n"))


@pytest.mark.parametrize(
    "config",
    [b"", b"[]", b'{"config":[]}', b'{"config":{"Env":{}}}', b'{"history":[1]}', b'{"created":"x"}', b"\xff" * 9,
     b'{"rootfs":{"diff_ids":7}}', b"[" * 100_000],
)  # fmt: skip
def test_a_hostile_image_config_is_one_error(config: bytes) -> None:
    """What a registry sends may be anything."""

    class Hostile(Client):
        async def resolve_image_config(self, reference: str, **_: Any) -> ImageConfigAnswer:
            return ImageConfigAnswer(reference, None, config)

    with pytest.raises(DockerfileError, match="failed to parse image config"):
        solve("", Hostile("FROM x\n"))


def family(name: str, size: int) -> str:
    """Files that grow where a careless frontend takes time by the square."""
    lines = {
        "run": "RUN echo {}",
        "env": "ENV K{0}=v{0}",
        "reference": "ENV K{0}=$K0",
        "unset": "ENV Kxyz{0}=$Mabc{0}",
        "arg": "ARG K{0}=v{0}",
        "copy": "COPY a{0} /b{0}",
        "link": "COPY --link a{0} /b{0}",
        "stage": "FROM alpine AS s{0}",
        "chain": "FROM last AS last\nRUN x",
        "label": "LABEL k{0}=v",
        "heredoc": "COPY <<E /x{0}\nhello\nE",
        "expose": "EXPOSE {0}",
    }
    return (
        "FROM alpine AS last\n" + "".join(lines[name].format(n + 1) + "\n" for n in range(size)) + "RUN x\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "env",
        "reference",
        "unset",
        "arg",
        "copy",
        "link",
        "stage",
        "chain",
        "label",
        "heredoc",
        "expose",
    ],
)
def test_two_thousand_instructions_take_seconds(name: str) -> None:
    """No family of files takes time by the square of its length."""
    start = time.process_time()
    result = solve(family(name, 2_000))
    Definition.from_edge(result.results[0].edge)
    assert time.process_time() - start < 15


@pytest.mark.parametrize(
    "text",
    [
        "FROM alpine\nENV a=0123456789abcdef\n" + "ENV a=$a$a$a$a$a$a$a$a\n" * 6 + "LABEL l$a=$a\n" * 500,
        "FROM alpine\nENV a=0123456789abcdef\n" + "ENV a=$a$a$a$a$a$a$a$a\n" * 5 + "RUN $a\n" * 2_000,
        "FROM alpine\nEXPOSE" + " 1-65535" * 2_000 + "\n",
        "FROM alpine\nCOPY" + " a" * 30_000 + " /b\n",
        "FROM alpine\nRUN" + " --mount=target=/a" * 3_600 + " \\\n" + " --mount=target=/b" * 3_600 + " x\n",
        "ARG a=0123456789abcdef\n" + "ARG a=$a$a$a$a$a$a$a$a\n" * 6 + "ARG b=$a\n" * 500 + "FROM alpine\n",
    ],
)
def test_a_few_lines_cannot_ask_for_terabytes(text: str) -> None:
    """What variables expand to is bounded for a whole file, and so is the graph."""
    with pytest.raises(DockerfileError, match=r"MiB|longer than|more than|too many"):
        solve(text)


def test_scratch_gives_no_edge() -> None:
    """Nothing on nothing."""
    result = solve("FROM scratch\nENV A=1\n")
    assert result.results[0].edge is None
    assert '"Env":["PATH=' in result.results[0].image_config
    assert scratch().edge() is None


PIECES = (
    "FROM alpine", "FROM scratch AS s", "FROM s", "RUN x", "RUN --mount=type=cache,target=/c x", "COPY a b",
    "COPY --from=s --link a $A", "ADD https://e.com/x.git?tag=1 /", "ENV A=${B:-1}", "ARG A=$A", "WORKDIR $A",
    "EXPOSE $A", "LABEL a=$A", "ONBUILD RUN x", "HEALTHCHECK CMD x", "COPY <<E /f\n$A\nE", "USER $A", "\n",
    "SHELL [\"a\"]", "CMD [\"\\ud800\"]", "\\", "`", "#", "=", "$", "${", "}", "\"", "'", ",", "\x00", "\udcff",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14), st.booleans())
def test_any_text_is_compiled_or_refused(pieces: list[str], lines: bool) -> None:
    """No Dockerfile gives another exception than its own, and what is compiled can be marshalled."""
    client = Client("")
    text = ("\n" if lines else "").join(("FROM alpine\n", *pieces))
    client.files["Dockerfile"] = text
    client.read_file = read_bytes(text.encode("utf-8", "surrogateescape"))  # type: ignore[method-assign]
    try:
        result = asyncio.run(DockerfileFrontend().solve(FrontendRequest(), client))
    except DockerfileError:
        return
    for one in result.results:
        assert Definition.from_bytes(Definition.from_edge(one.edge).to_bytes()).to_edge() == one.edge


def read_bytes(data: bytes) -> Any:
    """A client whose only file is a Dockerfile of these bytes."""

    async def read_file(ref: Any, path: str, *, limit: int = 0) -> bytes | None:
        return data if path == "Dockerfile" else None

    return read_file
