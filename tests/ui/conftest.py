"""A real JupyterLab in a real browser: one server for all tests of this folder, a Chromium for each file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import need

ROOT = Path(__file__).parents[2]
SHOTS = Path(__file__).parent / "screenshots"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
QUIET = {"@jupyterlab/apputils-extension:notification":
         {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}  # fmt: skip
DARK = {"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"}}


@dataclass
class Server:
    """JupyterLab on a loopback port; notebooks lie in `root`."""

    port: int
    root: Path
    settings: Path

    def write(self, name: str, cells: list[str], *, outputs: dict[int, list[Any]] | None = None) -> None:
        """A notebook with these code cells; `outputs` are saved ones, by cell."""
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
        for at, source in enumerate(cells):
            cell = nbformat.v4.new_code_cell(source, outputs=(outputs or {}).get(at, []))
            notebook.cells.append(cell)
        (self.root / name).write_text(nbformat.writes(notebook))

    def shut_kernels(self) -> None:
        """Ends what the last notebook left running: two cores are soon full of idle kernels."""
        base = f"http://127.0.0.1:{self.port}/api/kernels"
        for kernel in json.load(urllib.request.urlopen(base)):
            urllib.request.urlopen(urllib.request.Request(f"{base}/{kernel['id']}", method="DELETE")).close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own settings, without news, with the extension of this checkout."""
    home = tmp_path_factory.mktemp("jupyter")
    root = home / "notebooks"
    root.mkdir()
    settings = home / "settings"
    extensions = home / "labextensions"
    extensions.mkdir()
    (extensions / "bknb-lab").symlink_to(ROOT / "kernel_ext" / "labextension")
    (settings / "@jupyterlab" / "apputils-extension").mkdir(parents=True)
    plain = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    plain.write_text(json.dumps(QUIET["@jupyterlab/apputils-extension:notification"]))
    port = _free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={root}",
        f"--LabApp.user_settings_dir={settings}", f"--LabServerApp.extra_labextensions_path={extensions}",
        f"--LabApp.extra_labextensions_path={extensions}", f"--LabApp.workspaces_dir={home / 'workspaces'}",
    ]  # fmt: skip
    env = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(ROOT),
    }
    with open(home / "server.log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (home / "server.log").read_text()
                time.sleep(0.1)  # there is no event to wait for: the server opens its port when it is ready
        yield Server(port, root, settings)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser. Not for the whole session: while it lives, Playwright keeps an event loop, and no other starts."""
    path = need("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Lab:
    """One notebook in a page."""

    def __init__(self, page: Any, server: Server) -> None:
        self.page = page
        self.server = server
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(
            (f"http://127.0.0.1:{self.server.port}/", "data:", "blob:", "ws://127.0.0.1")
        ):
            self.foreign.append(request.url)

    def open(self, name: str) -> None:
        """Opens a notebook, waits for its kernel (else the first key races it), and puts the side bar away."""
        self.page.goto(f"http://127.0.0.1:{self.server.port}/lab/tree/{name}?reset")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        if self.page.locator("#jp-left-stack").is_visible():
            self.page.keyboard.press("Control+B")

    def cell(self, index: int) -> Any:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def run(self, index: int, *, wait: bool = True) -> None:
        """Runs a cell; waits for its number unless told not to."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        if wait:
            self.done(index)

    def done(self, index: int) -> None:
        """Waits until a cell has its number."""
        self.page.wait_for_function(
            "i=>/\\[\\d+\\]/.test(document.querySelectorAll('.jp-Notebook .jp-CodeCell')[i]"
            ".querySelector('.jp-InputPrompt').textContent)",
            arg=index,
            timeout=60_000,
        )

    def shot(self, name: str, index: int | None = None) -> None:
        """A picture for people: of a cell's output, or of the page."""
        SHOTS.mkdir(exist_ok=True)
        if index is None:
            self.page.screenshot(path=str(SHOTS / f"{name}.png"))
            return
        output = self.cell(index).locator(".jp-OutputArea-output").first
        width = self.page.viewport_size["width"]
        # What is scrolled out of sight is not drawn: the window becomes as high as the output.
        self.page.set_viewport_size({"width": width, "height": int(output.bounding_box()["height"]) + 400})
        output.scroll_into_view_if_needed()
        output.screenshot(path=str(SHOTS / f"{name}.png"))


@contextmanager
def page_of(
    chromium: Any, server: Server, *, width: int = 1180, height: int = 1100, scheme: str = "light"
) -> Iterator[Lab]:
    """A fresh page, light or dark as the OS would say."""
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(30_000)
    try:
        yield Lab(page, server)
    finally:
        context.close()
        server.shut_kernels()


@pytest.fixture
def lab(chromium: Any, server: Server) -> Iterator[Lab]:
    """JupyterLab in the light theme."""
    with page_of(chromium, server) as found:
        yield found


@pytest.fixture
def dark_lab(chromium: Any, server: Server) -> Iterator[Lab]:
    """JupyterLab in its dark theme."""
    path = server.settings / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    path.write_text(json.dumps(DARK["@jupyterlab/apputils-extension:themes"]))
    try:
        with page_of(chromium, server, scheme="dark") as found:
            yield found
    finally:
        path.unlink()
