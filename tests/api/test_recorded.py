"""Builds that are saved to a file, and machines that run no container."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from bknb.api import Client, OpenedBuild, Preferences
from bknb.api import open as open_build
from bknb.errors import BuildError, UsageError
from bknb.options import parse

DOCKERFILE = "FROM busybox\nRUN echo kept && echo 1 > /one\n"


def test_a_saved_build_answers_anywhere(client: Client, tmp_path: Path) -> None:
    """The file has the picture, the table, the logs and the graph, without a builder."""
    build = client.build(parse(["-"], cell=False), dockerfile=DOCKERFILE)
    build.save(tmp_path / "x.bknb")
    opened = open_build(tmp_path / "x.bknb")
    assert isinstance(opened, OpenedBuild)
    assert repr(opened) == repr(build)
    assert opened.log("echo kept") == "kept\n"
    assert list(opened.table["digest"]) == list(build.table["digest"])
    assert opened.definition.ops == build.definition.ops
    record = opened.saved.record
    assert record is not None and record.id == build.id
    assert record.runtime in ("crun", "runc", "bubblewrap") and record.driver and record.compressor
    assert opened._repr_mimebundle_()["text/html"] == build._repr_mimebundle_()["text/html"]


def test_a_file_that_is_no_build_is_one_line(tmp_path: Path) -> None:
    """Something else, or nothing, is told."""
    (tmp_path / "x.bknb").write_bytes(b"PK nonsense")
    for name in ("x.bknb", "missing.bknb"):
        with pytest.raises(UsageError, match=name):
            open_build(tmp_path / name)


def test_elsewhere_a_dockerfile_compiles_and_a_step_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system that is no Linux the graph is shown; a step that would run is one line."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    client = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    try:
        compiled = client.build(parse(["--llb", "-"], cell=True), dockerfile=DOCKERFILE)
        assert [step.command for step in compiled.steps] == ["FROM busybox", "RUN echo kept && echo 1 > /one"]
        assert len(compiled.definition.ops) == 3
        with pytest.raises(BuildError, match=r"steps run on Linux, and this is Darwin: compile with --llb"):
            client.build(parse(["-"], cell=False), dockerfile=DOCKERFILE)
    finally:
        client.close()
