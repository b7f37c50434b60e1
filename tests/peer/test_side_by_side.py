"""The same Dockerfile, the same folder: BuildKit's image and BuildKit's cache answers."""

from __future__ import annotations

import io
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

OTHER = """FROM {host}/library/busybox AS other
RUN mkdir /od && echo 1 > /od/1 && ln -s 1 /od/2 && echo o > /o && chown 3:4 /od/1
FROM {host}/library/busybox
"""
STEPS = {
    "wild": """
COPY *.txt /w/
COPY ?.txt /w2/
""",
    "dir": """
COPY d /dd
COPY d/ /dd2/
COPY d /dd/
""",
    "dirs2": """
COPY d empty /two/
""",
    "linkdir": """
COPY ld /x
COPY ld/ /y/
COPY ld/x.md /q
""",
    "chmod": """
COPY --chmod=u=rwx,go-w a.txt /a
COPY --chmod=g+s,o= d /d
""",
    "chown": """
RUN echo 'u:x:11:12::/:/bin/sh' >>/etc/passwd; echo 'g:x:13:' >> /etc/group
COPY --chown=u:g a.txt /a
COPY --chown=u d /d
COPY --chown=:g a.txt /b
""",
    "parents": """
COPY --parents d/e/y.go a.txt /par/
COPY --parents ./d/./e /par2/
""",
    "exclude": """
COPY --exclude=*.md --exclude=e d /ex
""",
    "add": """
ADD t.tar.gz /tar
ADD --unpack=false t.tar.gz /raw/
ADD --chown=3:4 t.tar.gz /t2/
""",
    "heredoc": """
COPY <<EOF <<-"TWO" /h/
hi $PATH
EOF
	there $X
	TWO
RUN <<EOF
echo one > /r1
echo two > /r2
EOF
RUN cat <<X > /r3
abc
X
""",
    "over": """
COPY a.txt /f
COPY b.txt /f
RUN mkdir /g && ln -s /g /s
COPY a.txt /s/
COPY d /s
""",
    "link": """
COPY --link a.txt /l/
COPY --link --chown=5:6 d /l/d
ADD --link t.tar.gz /l/t
""",
    "special": """
COPY ["sp ace", "/sp2/"]
COPY d/z /zz/
COPY d/hl a.txt /hl/
""",
    "workdir": """
WORKDIR a/b
COPY a.txt .
USER 9:9
WORKDIR c
COPY a.txt ./
RUN pwd > /tmp/x && id -u >> /tmp/x
""",
    "rm": """
RUN mkdir -p /k/l && touch /k/l/m /k/n
RUN rm -rf /k/l && rm /k/n
RUN mkdir /k/l && touch /k/l/o
""",
    "mv": """
RUN mkdir /dir && touch /dir/a
RUN mv /dir /dir2 && mkdir /dir
RUN rm -rf /bin/ls && cp /bin/busybox /bin/ls
""",
    "from": """
COPY --from=other /o /o
COPY --from=other /od /od
COPY --from=other /od/* /odw/
""",
    "mount": """
RUN --mount=type=bind,from=other,target=/mnt cp -a /mnt/od /copied
RUN --mount=type=cache,target=/c touch /c/x && ls /c > /cl
RUN --mount=type=tmpfs,target=/tm touch /tm/x
RUN --mount=target=/ctx,rw touch /ctx/new && ls /ctx > /cx
""",
    "mknod": """
RUN mkfifo /ff && mknod /nn c 1 3 && chmod 1777 /nn && ln /ff /ff2
""",
    "shell": """
SHELL ["/bin/sh", "-ec"]
RUN echo hi > /s
CMD x
ONBUILD RUN true
""",
}
"""Instructions on busybox whose layers and config have to be BuildKit's; `other` is a stage before them."""


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
            document = json.loads(
                read("blobs/sha256/" + document["manifests"][0]["digest"].partition(":")[2])
            )
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
    daemon.build(
        context, "--opt", "build-arg:SOURCE_DATE_EPOCH=1700000000", "--output", f"{output}{tmp_path}/theirs"
    )
    words = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-o", f"{output}{tmp_path}/ours", str(context)]
    ours.build(parse(words, cell=False))
    assert json.loads(config_of(tmp_path / "ours")) == json.loads(config_of(tmp_path / "theirs"))
    assert config_of(tmp_path / "ours") == config_of(tmp_path / "theirs")


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A context with files of every kind."""
    context = tmp_path / "context"
    (context / "d" / "e").mkdir(parents=True)
    (context / "empty").mkdir()
    for name, text in {"a.txt": "a\n", "b.txt": "b\n", "d/x.md": "x", "d/e/y.go": "y", "sp ace": "s"}.items():
        (context / name).write_text(text)
    (context / "d" / "z").symlink_to("e/y.go")
    (context / "ld").symlink_to("d")
    os.link(context / "a.txt", context / "d" / "hl")
    (context / "b.txt").chmod(0o4755)
    with tarfile.open(context / "t.tar.gz", "w:gz") as tar:
        for name, kind in (("p/", tarfile.DIRTYPE), ("p/q", tarfile.REGTYPE), ("p/l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.uid, info.gid, info.mode = kind, 1234567890, 7, 8, 0o751
            info.linkname = "q" if kind == tarfile.SYMTYPE else ""
            info.size = 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"hello"))
    return context


@pytest.mark.parametrize("name", STEPS)
def test_the_same_layers(
    mirror: Mirror, daemon: Peer, ours: Client, everything: Path, tmp_path: Path, name: str
) -> None:
    """Each way to change files makes the layers and the config that BuildKit makes, to the byte."""
    (everything / "Dockerfile").write_text(OTHER.format(host=mirror.host) + STEPS[name].strip() + "\n")
    output = "type=oci,rewrite-timestamp=true,dest="
    epoch = "SOURCE_DATE_EPOCH=1700000000"
    daemon.build(everything, "--opt", f"build-arg:{epoch}", "--output", f"{output}{tmp_path}/theirs")
    ours.build(parse(["--build-arg", epoch, "-o", f"{output}{tmp_path}/ours", str(everything)], cell=False))
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
        "a link for a file": lambda: (
            (context / "list.txt").unlink(),
            (context / "list.txt").symlink_to("src/a.txt"),
        ),
        "a command": lambda: (context / "Dockerfile").write_text(text.replace("wc -l", "wc  -l")),
        "a variable": lambda: (context / "Dockerfile").write_text(text.replace("WHO=me", "WHO=you")),
        "back again": lambda: (context / "Dockerfile").write_text(text),
    }
    (context / "Dockerfile").write_text(text)
    for name, edit in edits.items():
        edit()
        assert (name, ours_cached(ours, context)) == (name, theirs_cached(daemon, context))
