"""The same Dockerfile, the same folder: BuildKit's image and BuildKit's cache answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bknb.api import Client, Preferences
from bknb.options import parse
from tests.bench.peer import Peer, peer
from tests.bench.rows import Mirror
from tests.conftest import need

pytestmark = [pytest.mark.peer, pytest.mark.root]

EVERYTHING = """FROM {host}/library/busybox AS base
WORKDIR /app
ENV A=1 B="two words"
ARG V=3
LABEL x=y
COPY a.txt .
COPY --chown=5:6 --chmod=0711 src src
RUN mkdir -p d/e && echo $A $V > d/f && rm -rf src/sub && chmod 700 d/e && ln -s f d/g
RUN rm d/f && mkdir /new && touch /new/z
FROM base AS other
RUN echo other > /other
FROM base
COPY --from=other /other /o/
COPY --link a.txt /linked/
USER 1:2
EXPOSE 80
VOLUME /v
CMD ["x"]
ENTRYPOINT y z
HEALTHCHECK CMD true
STOPSIGNAL 9
"""
CACHED = """FROM {host}/library/busybox AS deps
WORKDIR /app
COPY list.txt .
RUN cp list.txt made.txt
FROM deps AS build
COPY src src
RUN cat src/* > all.txt
RUN wc -l < all.txt > count.txt
FROM {host}/library/busybox
ENV WHO=me
COPY --from=build /app/count.txt /count.txt
RUN cat /count.txt > /copy.txt
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """A registry for both."""
    need("busybox")
    found = Mirror(tmp_path_factory.mktemp("mirror"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def daemon(mirror: Mirror) -> Iterator[Peer]:
    """A fresh buildkitd."""
    with peer(mirror.host) as found:
        assert found is not None
        yield found


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Client]:
    """A fresh bknb."""
    client = Client(Preferences(root=str(tmp_path / "state")))
    yield client
    client.close()


def config_of(archive: Path) -> bytes:
    """The image config in an OCI archive, to the byte."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        document: dict[str, Any] = json.loads(read("index.json"))
        while "manifests" in document:
            document = json.loads(read("blobs/sha256/" + document["manifests"][0]["digest"].partition(":")[2]))
        return read("blobs/sha256/" + document["config"]["digest"].partition(":")[2])


def test_the_same_image(mirror: Mirror, daemon: Peer, ours: Client, tmp_path: Path) -> None:
    """The image config is BuildKit's to the byte: every layer's tar, the history, the whole of it."""
    context = tmp_path / "context"
    (context / "src" / "sub").mkdir(parents=True)
    (context / "a.txt").write_text("a\n")
    (context / "src" / "x.sh").write_text("#!/bin/sh\n")
    (context / "src" / "x.sh").chmod(0o750)
    (context / "src" / "sub" / "link").symlink_to("../x.sh")
    os.link(context / "a.txt", context / "src" / "hard")
    (context / "Dockerfile").write_text(EVERYTHING.format(host=mirror.host))
    output = "type=oci,rewrite-timestamp=true,dest="
    daemon.build(context, "--opt", "build-arg:SOURCE_DATE_EPOCH=1700000000", "--output", f"{output}{tmp_path}/theirs")
    words = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-o", f"{output}{tmp_path}/ours", str(context)]
    ours.build(parse(words, cell=False))
    assert json.loads(config_of(tmp_path / "ours")) == json.loads(config_of(tmp_path / "theirs"))
    assert config_of(tmp_path / "ours") == config_of(tmp_path / "theirs")


def theirs_cached(daemon: Peer, context: Path) -> dict[str, bool]:
    """What BuildKit had cached, by step."""
    words = ["buildctl", "--addr", daemon.address, "build", "--progress=rawjson", "--frontend", "dockerfile.v0",
             "--local", f"context={context}", "--local", f"dockerfile={context}"]  # fmt: skip
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, bool] = {}
    for line in done.stderr.splitlines():
        for vertex in json.loads(line).get("vertexes") or ():
            if step(vertex["name"]):
                found[vertex["name"]] = bool(vertex.get("cached"))
    return found


def ours_cached(client: Client, context: Path) -> dict[str, bool]:
    """What bknb had cached, by step."""
    build = client.build(parse([str(context)], cell=False))
    return {s.name: s.view.state.cached for s in build.steps if step(s.name)}


def step(name: str) -> bool:
    """Whether a vertex is a step other than a base image, which both may have pulled before."""
    return bool(re.match(r"\[\S* ?\d+/\d+\] (?!FROM)", name))


def test_the_same_cache_answers(mirror: Mirror, daemon: Peer, ours: Client, tmp_path: Path) -> None:
    """After each kind of edit the same steps are cached."""
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True)
    (context / "list.txt").write_text("one\n")
    (context / "src" / "a.txt").write_text("alpha\n")
    text = CACHED.format(host=mirror.host)
    edits = {
        "first": lambda: None,
        "nothing": lambda: None,
        "content": lambda: (context / "src" / "a.txt").write_text("gamma\n"),
        "another file": lambda: (context / "src" / "b.txt").write_text("beta\n"),
        "time only": lambda: os.utime(context / "src" / "a.txt", (1, 1)),
        "mode": lambda: (context / "src" / "a.txt").chmod(0o600),
        # Not here: the mode of a folder alone. BuildKit does not notice it (moby/buildkit#7176); bknb does.
        "a file that is not copied": lambda: (context / "other.txt").write_text("x"),
        "a removed file": lambda: (context / "src" / "b.txt").unlink(),
        "a link for a file": lambda: ((context / "list.txt").unlink(), (context / "list.txt").symlink_to("src/a.txt")),
        "a command": lambda: (context / "Dockerfile").write_text(text.replace("wc -l", "wc  -l")),
        "a variable": lambda: (context / "Dockerfile").write_text(text.replace("WHO=me", "WHO=you")),
        "back again": lambda: (context / "Dockerfile").write_text(text),
    }
    (context / "Dockerfile").write_text(text)
    for name, edit in edits.items():
        edit()
        assert (name, ours_cached(ours, context)) == (name, theirs_cached(daemon, context))
