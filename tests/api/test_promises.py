"""What a build promises beside its result: laziness, sharing, full disks, unreadable files."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bknb.api import Build, Client, Preferences
from bknb.api import open as open_build
from bknb.errors import BuildError
from bknb.events import LogEvent
from bknb.executor.shim import ShimProcess
from bknb.options import parse
from tests.conftest import need


def build(client: Client, dockerfile: str, context: Path | str = "-", *words: str) -> Build:
    """Build a text."""
    return client.build(parse([*words, str(context)], cell=False), dockerfile=dockerfile)


def test_a_step_without_context_starts_before_the_context_is_looked_at(
    client: Client, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk of the context waits until a RUN of another stage has spoken: it would never end otherwise."""
    (context / "a").write_text("a")
    spoken = threading.Event()

    call = ShimProcess.call

    async def wait_then_look(shim: ShimProcess, op: str, **arguments: Any) -> Any:
        if op == "contexts.look":
            assert await asyncio.to_thread(spoken.wait, 60), "no step ran before the context was walked"
        return await call(shim, op, **arguments)

    monkeypatch.setattr(ShimProcess, "call", wait_then_look)
    dockerfile = "FROM busybox AS early\nRUN echo spoken\nFROM busybox\nCOPY a /a\nCOPY --from=early /etc/passwd /p\n"
    running = client.start(parse([str(context)], cell=False), dockerfile=dockerfile)

    def look() -> None:
        if any(isinstance(event, LogEvent) and b"spoken" in event.data for event in running.new_events()):
            spoken.set()

    assert running.wait(look).files.text("/a") == "a"


def test_a_build_without_context_never_looks_at_it(
    client: Client, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No COPY, no walk."""
    call = ShimProcess.call

    async def refuse(shim: ShimProcess, op: str, **arguments: Any) -> Any:
        assert not op.startswith("contexts."), "the context was walked"
        return await call(shim, op, **arguments)

    monkeypatch.setattr(ShimProcess, "call", refuse)
    build(client, "FROM busybox\nRUN true\n", context)


def test_two_builders_share_a_folder(client: Client, tmp_path: Path, context: Path) -> None:
    """Two kernels build at the same time on one state folder; each finds what the other did."""
    other = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    (context / "a").write_text("a")
    dockerfile = "FROM busybox\nCOPY a /a\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(6))
    try:
        options = parse([str(context)], cell=False)
        both = [each.start(options, dockerfile=dockerfile) for each in (client, other)]
        assert [running.wait().files.text("/5") for running in both] == ["5\n", "5\n"]
        for each in (client, other):
            again = each.build(options, dockerfile=dockerfile)
            assert {s.outcome for s in again.steps if s.command.startswith("RUN")} == {"definition"}
    finally:
        other.close()


def test_an_edit_during_the_copy_is_never_taken_for_what_was_copied(client: Client, context: Path) -> None:
    """A file that changes while builds run: what is in each image is what its key stands for."""
    path = context / "a"
    stop = threading.Event()

    def scribble() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path.write_text(f"{number}\n" * 200)

    path.write_text("0\n")
    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for _ in range(15):
            build(client, "FROM scratch\nCOPY a /a\n", context)
    finally:
        stop.set()
        writer.join()
    for text in ("x\n", "y\n", "x\n"):
        path.write_text(text)
        assert build(client, "FROM scratch\nCOPY a /a\n", context).files.text("/a") == text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_full_disk_is_one_line(small_disk: Path, context: Path) -> None:
    """The error says that the disk is full; what fits is built afterwards."""
    client = Client(Preferences(root=str(small_disk / "state"), offline=True))
    (context / "large").write_bytes(b"x" * (24 << 20))
    (context / "small").write_text("s")
    try:
        with pytest.raises(BuildError, match=r"(?i)no space left|disk is full") as caught:
            build(client, "FROM scratch\nCOPY large /\n", context)
        assert "\n" not in str(caught.value)
        assert build(client, "FROM scratch\nCOPY small /\n", context).files.text("/small") == "s"
    finally:
        client.close()


def test_a_pattern_that_is_none_is_one_line(client: Client, context: Path) -> None:
    """A broken .dockerignore is told."""
    (context / "a").write_text("a")
    (context / ".dockerignore").write_text("[\n")
    with pytest.raises(BuildError) as caught:
        build(client, "FROM scratch\nCOPY a /a\n", context)
    assert "\n" not in str(caught.value)


@pytest.mark.root
@pytest.mark.parametrize(("runtime", "snapshotter"), [("runc", "auto"), ("bubblewrap", "native"), ("crun", "overlayfs")])
def test_the_runtime_and_the_snapshotter_that_are_asked_for(tmp_path: Path, runtime: str, snapshotter: str) -> None:
    """What is set is what is used, and the record says so; the files come out the same."""
    need(runtime) if runtime != "bubblewrap" else None
    client = Client(Preferences(str(tmp_path / "state"), offline=True, runtime=runtime, snapshotter=snapshotter))
    try:
        done = build(client, "FROM busybox\nRUN echo made > /made && rm /bin/ls\nRUN cat /made /made > /twice\n")
        assert done.files.text("/twice") == "made\nmade\n" and not done.files.exists("/bin/ls")
        done.save(tmp_path / "x.bknb")
    finally:
        client.close()
    record = open_build(tmp_path / "x.bknb").saved.record
    assert record is not None and record.runtime == runtime
    assert snapshotter == "auto" or record.driver == snapshotter


def test_a_runtime_that_cannot_run_is_one_line(tmp_path: Path) -> None:
    """proot is for machines without namespaces: asked for elsewhere, the step says so."""
    client = Client(Preferences(str(tmp_path / "state"), offline=True, runtime="proot"))
    try:
        with pytest.raises(BuildError, match="proot was asked for and cannot run steps here"):
            build(client, "FROM busybox\nRUN true\n")
    finally:
        client.close()
