"""Definitions in a notebook: compiled only, and shown beside their source."""

from __future__ import annotations

from tests.kernel_ext.kernel import Kernel


def test_compile_only_shows_the_definition_beside_its_source(shared: Kernel) -> None:
    """``--llb`` runs nothing: the picture has every step as compiled, and below are source and steps."""
    reply = shared.run("%%dockerfile --llb --out made\nFROM busybox\nRUN exit 9")
    assert reply.status == "ok", reply.error
    picture, page = reply.displays
    assert "compiled in" in picture["text/html"] and "nothing was run" in picture["text/html"]
    assert '<code title="2 [2/2] RUN exit 9"' in page["text/html"]
    assert shared.run("print({s.outcome for s in made.steps})").stdout == "{'compiled'}\n"


def test_definition_and_state_show_themselves(shared: Kernel) -> None:
    """As the last line of a cell, and with text for where there is no HTML."""
    shared.run("%%dockerfile --llb --out made\nFROM busybox\nRUN true")
    shown = shared.run("made.definition").result
    assert shown is not None
    assert "Dockerfile:2" in shown["text/html"] and "RUN true" in shown["text/plain"]
    state = shared.run("from bknb import llb\nllb.image('alpine').run('make')").result
    assert state is not None
    assert "data:image/svg+xml" in state["text/html"] and "make" in state["text/plain"]
