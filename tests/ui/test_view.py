"""The live view and the picture that stays, in JupyterLab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ui.conftest import Lab, Server, page_of

pytestmark = pytest.mark.browser

SETUP = """
import pathlib, time
from kernel_ext.live import LiveView
from tests.display import streams

def shift(events):  # a recorded stream, as if it began now
    import dataclasses
    by = time.time() - streams.T0 - {age}
    for event in events:
        moved = {{n: getattr(event, n) + by for n in ("time", "started", "completed") if getattr(event, n, None)}}
        yield dataclasses.replace(event, **moved)

def play(name, *, gate=None, cancelled=[]):
    view = LiveView("demo:latest", on_cancel=lambda: cancelled.append(1))
    events = list(shift(getattr(streams, name)()))
    for at in range(0, len(events), 7):
        view.feed(events[at:at + 7])
    while gate is not None and not pathlib.Path(gate).exists() and not cancelled:
        view.feed([])
        time.sleep(0.05)
    view.finish()
    return len(cancelled)
"""


def notebook(server: Server, name: str, *cells: str, age: float = 3.1) -> None:
    """A notebook whose first cell knows how to play streams."""
    server.write(name, [SETUP.format(age=age), *cells])


def images(lab: Lab, index: int) -> list[Any]:
    """The pictures in a cell's output."""
    return lab.cell(index).locator(".jp-OutputArea-output img").all()


def test_running_build(lab: Lab, server: Server, tmp_path: Path) -> None:
    """While it runs there are the graph, what runs, a pull's progress and a log; then the picture takes its place."""
    gate = tmp_path / "gate"
    notebook(server, "running.ipynb", f"play('running', gate={str(gate)!r})")
    lab.open("running.ipynb")
    lab.run(0)
    lab.run(1, wait=False)
    cell = lab.cell(1)
    cell.locator(".bknb-graph g[data-state='running']").wait_for()
    cell.locator(".bknb pre.log").get_by_text("Collecting package-3").wait_for()
    cell.locator(".bknb summary", has_text="Timeline").click()
    lab.shot("running", 1)
    cell.locator(".bknb-graph g[data-step]", has_text="python:3.12-slim").click()
    cell.locator(".bknb-step", has_text="FROM python:3.12-slim AS build").wait_for()
    lab.shot("running_step", 1)
    gate.touch()
    lab.done(1)
    cell.locator("img").first.wait_for()
    assert cell.locator(".bknb").count() == 0
    assert lab.foreign == []
    assert lab.complaints == []


@pytest.mark.parametrize("name", ["first", "edited", "failed", "cached", "forty", "large", "hostile", "llb"])
def test_finished_build(lab: Lab, server: Server, name: str) -> None:
    """Each kind of build ends as a picture whose images are drawn, without a request to anywhere else."""
    notebook(server, f"{name}.ipynb", f"play('{name}')")
    lab.open(f"{name}.ipynb")
    lab.run(0)
    lab.run(1)
    lab.cell(1).locator("img").first.wait_for()
    for image in images(lab, 1):
        assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
    lab.shot(f"finished_{name}", 1)
    assert lab.foreign == []
    assert lab.complaints == []


def test_dark(dark_lab: Lab, server: Server, tmp_path: Path) -> None:
    """The dark theme shows the same, running and finished."""
    gate = tmp_path / "gate"
    notebook(server, "dark.ipynb", f"play('running', gate={str(gate)!r})", "play('failed')")
    dark_lab.open("dark.ipynb")
    dark_lab.run(0)
    dark_lab.run(1, wait=False)
    dark_lab.cell(1).locator(".bknb-graph g[data-state='running']").wait_for()
    dark_lab.shot("dark_running", 1)
    gate.touch()
    dark_lab.done(1)
    dark_lab.run(2)
    dark_lab.cell(2).locator("img").first.wait_for()
    dark_lab.shot("dark_failed", 2)
    assert dark_lab.complaints == []


def test_narrow(chromium: Any, server: Server) -> None:
    """In a narrow window nothing is wider than the cell."""
    notebook(server, "narrow.ipynb", "play('first')")
    with page_of(chromium, server, width=640) as lab:
        lab.open("narrow.ipynb")
        lab.run(0)
        lab.run(1)
        lab.cell(1).locator("img").first.wait_for()
        lab.shot("narrow", 1)
        inside = lab.cell(1).locator(".jp-OutputArea-output").first.bounding_box()["width"]
        for image in images(lab, 1):
            assert image.bounding_box()["width"] <= inside
