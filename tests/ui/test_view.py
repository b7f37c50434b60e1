"""The live view and the picture that stays, in JupyterLab."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter

from bknb.display import BuildView, fold_all, mimebundle
from tests.display import streams
from tests.ui.conftest import SHOTS, Lab, Server, page_of

pytestmark = pytest.mark.browser

SETUP = """
import pathlib, time
from kernel_ext.live import LiveView
from tests.display import streams

def shift(events):  # a recorded stream, as if it began now
    from msgspec.structs import replace
    by = time.time() - streams.T0 - {age}
    for event in events:
        moved = {{n: getattr(event, n) + by for n in ("time", "started", "completed") if getattr(event, n, None)}}
        yield replace(event, **moved)

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


NAMES = ["first", "edited", "failed", "cached", "forty", "large", "hostile", "llb"]


def test_finished_builds(lab: Lab, server: Server) -> None:
    """Each kind of build ends as a picture whose images are drawn, without a request to anywhere else."""
    notebook(server, "finished.ipynb", *(f"play('{name}')" for name in NAMES))
    lab.open("finished.ipynb")
    lab.run(0)
    for index, name in enumerate(NAMES, 1):
        lab.run(index)
        lab.cell(index).locator("img").first.wait_for()
        for image in images(lab, index):
            assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100, name
        lab.shot(f"finished_{name}", index)
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
    """In a narrow window pictures scroll in their own place; the page does not become wider."""
    notebook(server, "narrow.ipynb", "play('first')")
    with page_of(chromium, server, width=640) as lab:
        lab.open("narrow.ipynb")
        lab.run(0)
        lab.run(1)
        lab.cell(1).locator("img").first.wait_for()
        lab.shot("narrow", 1)
        output = lab.cell(1).locator(".jp-OutputArea-output").first
        assert output.evaluate("o => o.scrollWidth - o.clientWidth") <= 1
        for image in images(lab, 1):
            assert image.evaluate("i => i.clientWidth") >= 700


def test_many_steps_running(lab: Lab, server: Server, tmp_path: Path) -> None:
    """300 steps are tiles while they run, and choosing one shows it."""
    gate = tmp_path / "gate"
    notebook(server, "tiles.ipynb", f"play('fresh', gate={str(gate)!r})", age=2.0)
    lab.open("tiles.ipynb")
    lab.run(0)
    lab.run(1, wait=False)
    cell = lab.cell(1)
    cell.locator(".bknb-graph g[data-state='running']").first.wait_for()
    cell.locator(".bknb-graph g[data-step]").nth(4).click()
    cell.locator(".bknb-step", has_text="RUN step --number=5").wait_for()
    lab.shot("running_tiles", 1)
    gate.touch()
    lab.done(1)
    assert lab.complaints == []


def test_pull_in_progress(lab: Lab, server: Server, tmp_path: Path) -> None:
    """A pull shows a bar for each layer, with the bytes."""
    gate = tmp_path / "gate"
    notebook(server, "pull.ipynb", f"play('pulling', gate={str(gate)!r})", age=0.6)
    lab.open("pull.ipynb")
    lab.run(0)
    lab.run(1, wait=False)
    lab.cell(1).locator(".bknb-pull", has_text="of 24 MB").first.wait_for()
    lab.shot("running_pull", 1)
    gate.touch()
    lab.done(1)


def test_cancel_button(lab: Lab, server: Server, tmp_path: Path) -> None:
    """Cancel reaches a kernel that is busy with the cell (JupyterLab speaks to it in a subshell)."""
    if int(version("ipykernel").split(".")[0]) < 7:
        pytest.skip("needs ipykernel 7: before it no kernel hears anything while a cell runs")
    notebook(server, "cancel.ipynb", f"play('running', gate={str(tmp_path / 'never')!r})")
    lab.open("cancel.ipynb")
    lab.run(0)
    lab.run(1, wait=False)
    lab.cell(1).get_by_role("button", name="Cancel").click()
    lab.done(1)
    lab.cell(1).locator("pre", has_text="1").last.wait_for()


def test_page_loaded_anew(lab: Lab, server: Server, tmp_path: Path) -> None:
    """A page that is opened in the middle of a build asks for what was said before."""
    gate = tmp_path / "gate"
    notebook(server, "anew.ipynb", f"play('running', gate={str(gate)!r})")
    lab.open("anew.ipynb")
    lab.run(0)
    lab.run(1, wait=False)
    lab.cell(1).locator(".bknb-graph g[data-state='running']").wait_for()
    # A second view of the same widget is what a new page, or "Create New View for Output", makes.
    lab.cell(1).locator(".jp-OutputArea-output").first.click(button="right")
    lab.page.get_by_text("Create New View for Cell Output").click()
    second = lab.page.locator(".jp-LinkedOutputView .bknb")
    second.locator("pre.log").get_by_text("Collecting package-3").wait_for()
    second.locator("g[data-state='running']").wait_for()
    gate.touch()
    lab.done(1)


def test_untrusted(lab: Lab, server: Server) -> None:
    """A notebook that is not trusted shows the same picture: images, colours, folds, hovers."""
    bundle = mimebundle(fold_all(BuildView(), streams.failed()))
    output = nbformat.v4.new_output("display_data", data=bundle)
    server.write("untrusted.ipynb", ["1"], outputs={0: [output]})
    lab.open("untrusted.ipynb")
    cell = lab.cell(0)
    cell.locator("img").first.wait_for()
    assert cell.locator(".jp-mod-trusted").count() == 0
    for image in images(lab, 0):
        assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
    pill = cell.get_by_text("≈ cached by content")
    assert pill.evaluate("p => getComputedStyle(p).borderTopColor") == "rgb(106, 90, 205)"
    assert cell.locator("code[title^='sha256:']").count() >= 9
    assert cell.locator("details[open]").count() >= 3
    lab.shot("untrusted", 0)


def test_nbconvert(chromium: Any, tmp_path: Path) -> None:
    """A page made by nbconvert needs no network for it."""
    notebook = nbformat.v4.new_notebook()
    bundle = mimebundle(fold_all(BuildView(), streams.first()))
    output = nbformat.v4.new_output("display_data", data=bundle)
    notebook.cells.append(nbformat.v4.new_code_cell("1", outputs=[output]))
    page_text, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{page_text}")
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto(f"file://{path}")
    for image in page.locator("img").all():
        assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=str(SHOTS / "nbconvert.png"), full_page=True)
    context.close()
