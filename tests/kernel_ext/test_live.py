"""The surfaces of a running build that need no browser."""

from __future__ import annotations

import io
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from bknb.display import render_text
from kernel_ext.live import LiveView, choose
from tests.display import streams


def test_plain_is_buildkits(capsys: pytest.CaptureFixture[str]) -> None:
    """The plain surface prints plain progress, into the stream that it is given."""
    stream = io.StringIO()
    live = LiveView("x", mode="plain", stream=stream)
    for event in streams.failed():
        live.feed([event])
    live.finish()
    assert "#1 [internal] load build context\n" in stream.getvalue()
    assert ">>> RUN python -m build" in stream.getvalue()
    assert not live.keeps
    assert capsys.readouterr().out == ""


def test_rich_in_a_terminal() -> None:
    """The live display leaves the finished steps, the failure and the sentence; markup in names is text."""
    stream = io.StringIO()
    live = LiveView("x", mode="tty", stream=stream)
    for event in streams.failed():
        live.feed([event])
    live.finish()
    text = stream.getvalue()
    assert "= [build] FROM python:3.12-slim  cached" in text
    assert "ModuleNotFoundError: No module named 'versioning'" in text
    assert "✗ demo:latest failed after 1.9 s · at RUN python -m build" in text
    hostile = io.StringIO()
    live = LiveView("[bold]x", mode="rich", stream=hostile)
    live.feed(streams.hostile())
    live.finish()
    assert "<script>" in hostile.getvalue()


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet prints nothing, and the view is there all the same."""
    live = LiveView("x", mode="quiet")
    live.feed(streams.first())
    live.finish()
    assert capsys.readouterr() == ("", "")
    assert live.view.finished


def outputs(mode: str, *, result: Any = None) -> list[Any]:
    """What a cell with this surface leaves."""
    InteractiveShell.instance()
    with capture_output() as captured:
        live = LiveView("x", mode=mode)
        live.feed(streams.running())
        live.settle()
        live.feed([])
        live.feed(streams.first())
        live.finish(result)
    return list(captured.outputs)


@pytest.mark.parametrize("mode", ["widget", "html"])
def test_the_picture_takes_the_views_place(mode: str) -> None:
    """At the end there is the static bundle, in the display of the live view."""
    last = outputs(mode)[-1]
    assert set(last.data) == {"text/plain", "text/html"}
    assert last.data["text/plain"].startswith("✓ demo:latest built in 6.9 s")


def test_a_result_shows_itself() -> None:
    """A result object is shown by its own means, at the same place."""

    class Result:
        def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
            return {"text/plain": "mine"}

    assert outputs("widget", result=Result())[-1].data["text/plain"] == "mine"


def test_a_build_that_says_nothing() -> None:
    """A view that is finished before its build has ended does not say that it runs, or that it was built."""
    live = LiveView("x", mode="quiet")
    live.feed(streams.running())
    live.finish()
    assert render_text(live.view).startswith("✗ demo:latest failed after")


def test_modes() -> None:
    """An unknown mode is an error that names the known ones; `auto` without a kernel is plain."""
    with pytest.raises(ValueError, match="one of auto, widget"):
        LiveView("x", mode="fancy")
    assert choose("plain") == "plain"
    assert choose("auto") in ("plain", "rich", "widget")
    assert render_text(LiveView("x", mode="quiet").view).startswith("▸ x is being built")
