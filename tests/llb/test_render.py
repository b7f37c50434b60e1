"""Definitions to look at."""

from __future__ import annotations

import json
import subprocess

from bknb import llb
from bknb.llb import render
from tests.conftest import need


def state() -> llb.State:
    """A small graph with a mount, a name that needs quoting, and every file action."""
    actions = llb.copy(llb.local("context"), "a<b", "/x", owner="0:app").mkdir("/d").mkfile("/d/f", b"\0")
    run = llb.image("alpine").run("make", mounts=[llb.BindMount("/src", llb.scratch().file(actions))])
    return llb.merge([run.file(llb.rm("/d").symlink("/a", "/b"), name='say "hi"'), llb.image("b")])


def test_dot_names_every_vertex_and_mount() -> None:
    """Labels are quoted, edges carry the place that they are mounted at."""
    text = render.dot(state())
    assert 'label="say \\"hi\\""' in text
    assert '[label="/src"]' in text
    assert text.count("->") == 6


def test_svg_is_drawn_by_graphviz() -> None:
    """Graphviz takes what `dot` writes."""
    need("dot")
    assert "<svg" in render.svg(state())


def test_mermaid_escapes_its_labels() -> None:
    """Quotes and angle brackets are entities."""
    text = render.mermaid(state())
    assert "say &quot;hi&quot;" in text
    assert "a&lt;b" in text


def test_frame_has_one_row_for_each_vertex() -> None:
    """A DataFrame tells kind, name and inputs."""
    frame = render.frame(state())
    assert list(frame["op"]) == ["source", "source", "file", "exec", "file", "source", "merge"]


def test_json_lines_are_those_of_buildctl() -> None:
    """buildctl debug dump-llb prints the same bytes."""
    definition = llb.image("alpine").run("make", mounts=[llb.CacheMount("/c", "i")], name="<n>").marshal()
    wanted = subprocess.run(
        [need("buildctl"), "debug", "dump-llb"],
        input=definition.to_bytes(),
        capture_output=True,
        check=True,
        start_new_session=True,
    )
    assert render.json_lines(definition) == wanted.stdout.decode()


def test_json_lines_have_the_shape_of_buildctl_s() -> None:
    """One object a line: Op, Digest, OpMetadata; the last op has no kind."""
    lines = [json.loads(line) for line in render.json_lines(state()).splitlines()]
    assert all(list(line) == ["Op", "Digest", "OpMetadata"] for line in lines)
    assert lines[-1]["Op"]["Op"] == {}
    copy = next(line for line in lines if "file" in line["Op"]["Op"])["Op"]["Op"]["file"]["actions"][0]
    assert copy["Action"]["copy"]["owner"] == {
        "user": {"User": {}},
        "group": {"User": {"byName": {"name": "app", "input": -1}}},
    }
