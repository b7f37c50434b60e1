"""Whole builds, judged by tools that were written elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bknb.api import Build, Client, Preferences
from bknb.options import parse
from tests.conftest import RealRegistry, need
from tests.tools import Accepts, DockerEngine

APP = """
FROM busybox AS build
WORKDIR /src
COPY . .
RUN cat a.txt b.txt > /message && ln /message /same && chmod 4755 /message && mkdir /gone && touch /gone/file

FROM busybox
RUN mkdir /old && touch /old/file /etc/keep && echo app:x:1234:1234::/:/bin/sh >> /etc/passwd
COPY --from=build --chown=1234:0 /message /app/
RUN rm -r /old && ln -s message /app/link && echo said > /app/said
ENV WHO=world
USER app
WORKDIR /app
CMD ["sh", "-c", "cat link; echo hello $WHO; id -u; stat -c %u:%g:%a /app/message; ls -d /old /etc/keep 2>/dev/null; true"]
"""
SAYS = "alpha\nbeta\nhello world\n1234\n1234:0:4755\n/etc/keep\n"

Open = Callable[[str], Client]


@pytest.fixture
def open_client(tmp_path: Path) -> Iterator[Open]:
    """Builders with state folders of their own, by name; none reaches a registry but on loopback."""
    need("busybox")
    clients: dict[str, Client] = {}

    def opened(name: str) -> Client:
        if name not in clients:
            clients[name] = Client(Preferences(root=str(tmp_path / "state" / name), offline=True))
        return clients[name]

    yield opened
    for client in clients.values():
        client.close()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The context of APP."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha\n")
    (folder / "b.txt").write_text("beta\n")
    return folder


def build(client: Client, dockerfile: str, context: Path | str, *words: str) -> Build:
    """Build a text with the command line's words."""
    asked: Sequence[str] = [*words, str(context)]
    return client.build(parse(asked, cell=False), dockerfile=dockerfile)


@pytest.mark.root
def test_umoci_and_runc(open_client: Open, sources: Path, accepts: Accepts, tmp_path: Path) -> None:
    """umoci unpacks what was built, and runc runs its command: owners, modes, links and deletions are right."""
    file = tmp_path / "app.tar"
    build(open_client("one"), APP, sources, "-t", "app:v1", "-o", f"type=oci,dest={file}")
    assert accepts.everything(file, "v1") == SAYS


@pytest.mark.root
@pytest.mark.parametrize(
    "more", ["", ",oci-mediatypes=false", ",compression=uncompressed,force-compression=true"]
)
def test_docker(open_client: Open, sources: Path, engine: DockerEngine, tmp_path: Path, more: str) -> None:
    """A Docker Engine loads and runs it, whatever the media types and the compression."""
    file = tmp_path / "app.tar"
    build(open_client("one"), APP, sources, "-t", f"app:v{len(more)}", "-o", f"type=docker,dest={file}{more}")
    engine.load(file)
    assert engine.run(f"app:v{len(more)}") == SAYS


@pytest.mark.root
def test_pushed_and_built_upon(
    open_client: Open, sources: Path, registry: RealRegistry, accepts: Accepts
) -> None:
    """What was pushed to Debian's registry is pulled by another builder, built upon, and runs."""
    name = f"{registry.host}/team/app"
    first = build(open_client("one"), APP, sources, "-t", f"{name}:v1", "--push")
    assert accepts.skopeo(f"docker://{name}:v1")["Digest"] == first.metadata["containerimage.digest"]
    text = f'FROM {name}:v1\nRUN echo more >> /app/said\nCMD ["cat", "/app/said"]\n'
    build(open_client("two"), text.replace("RUN", "USER 0\nRUN"), "-", "-t", f"{name}:v2", "--push")
    assert accepts.umoci_runc(accepts.skopeo_copy(f"docker://{name}:v2")) == "said\nmore\n"


def test_same_bytes_elsewhere(open_client: Open, sources: Path, accepts: Accepts, tmp_path: Path) -> None:
    """With SOURCE_DATE_EPOCH and rewrite-timestamp two builders make one digest."""
    digests = set()
    for name in ("one", "two"):
        file = tmp_path / f"{name}.tar"
        words = (
            "--build-arg",
            "SOURCE_DATE_EPOCH=1500000000",
            "-o",
            f"type=oci,dest={file},rewrite-timestamp=true",
        )
        digests.add(build(open_client(name), APP, sources, *words).metadata["containerimage.digest"])
        config = accepts.skopeo_config(f"oci-archive:{file}")
        assert config["created"] == "2017-07-14T02:40:00Z"
        assert all(line["created"] <= "2017-07-14T02:40:00Z" for line in config["history"])
    assert len(digests) == 1


def test_exported_again(open_client: Open, sources: Path, tmp_path: Path) -> None:
    """A cached build is exported to the same digest, in the same kernel and in the next one."""
    client = open_client("one")
    first = build(client, APP, sources, "-t", "app").metadata["containerimage.digest"]
    assert build(client, APP, sources, "-t", "app").metadata["containerimage.digest"] == first
    client.close()
    again = Client(Preferences(root=str(tmp_path / "state" / "one"), offline=True))
    try:
        done = build(again, APP, sources, "-t", "app", "-o", f"type=local,dest={tmp_path / 'out'}")
        assert done.metadata["containerimage.digest"] == first
    finally:
        again.close()
    assert (tmp_path / "out/app/link").read_text() == "alpha\nbeta\n"
    assert (
        json.dumps(sorted(path.name for path in (tmp_path / "out/app").iterdir()))
        == '["link", "message", "said"]'
    )
