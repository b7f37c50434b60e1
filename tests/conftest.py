"""What all tests share: tools by name, a real registry, and the rule that CI allows only listed skips."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SEARCH_PATH = os.pathsep.join(
    [str(HERE.parent / ".venv/bin"), os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]
)
# Programs whose Debian package has another name than they.
PACKAGES = {
    "busybox": "busybox-static",
    "bwrap": "bubblewrap",
    "containerd": "containerd",
    "dockerd": "docker.io",
    "dot": "graphviz",
    "ip": "iproute2",
    "newuidmap": "uidmap",
    "newgidmap": "uidmap",
    "unshare": "util-linux",
}
PEERS = ("buildctl", "buildkitd")


def need(tool: str) -> str:
    """Returns the path of a program, or skips the test with the name of the Debian package that has it."""
    found = shutil.which(tool, path=SEARCH_PATH)
    if found is None:
        if tool in PEERS:
            pytest.skip(f"needs BuildKit itself: {tool} not on PATH")
        pytest.skip(f"needs Debian package {PACKAGES.get(tool, tool)}")
    return found


@pytest.fixture(name="need")
def need_fixture() -> Callable[[str], str]:
    """The function `need`, for tests that would rather ask for it than import it."""
    return need


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what this machine cannot run, by marker."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    if item.get_closest_marker("browser"):
        need("chromium")
    if item.get_closest_marker("peer"):
        for tool in PEERS:
            need(tool)


@dataclass(frozen=True, slots=True)
class RealRegistry:
    """A registry written elsewhere, without TLS. `host` is `127.0.0.1:PORT`."""

    host: str
    root: Path


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    """Debian's docker-registry on a free loopback port, empty, for one test."""
    with real_registry(tmp_path / "docker-registry") as running:
        yield running


@contextlib.contextmanager
def real_registry(root: Path, settings: str = "") -> Iterator[RealRegistry]:
    """Debian's docker-registry in a folder of its own; `settings` are further lines of its configuration."""
    program = need("docker-registry")
    root.mkdir()
    config = root / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: info}\n"
        f"storage: {{filesystem: {{rootdirectory: {root / 'data'}}}, delete: {{enabled: true}}}}\n"
        'http: {addr: "127.0.0.1:0"}\n' + settings
    )
    server = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", program, "serve", str(config)],  # should the tests be killed
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )  # fmt: skip
    assert server.stderr is not None
    drain = threading.Thread(target=server.stderr.read, daemon=True)
    try:
        said = []
        for line in server.stderr:
            said.append(line)
            if listening := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
                drain.start()
                yield RealRegistry(listening[1], root / "data")
                break
        else:
            pytest.fail("docker-registry did not start:\n" + "".join(said))
    finally:
        server.kill()
        server.wait()
        if drain.is_alive():
            drain.join()
        server.stderr.close()


class SkipWatch:
    """In CI a skip that `skips.txt` does not list makes the run red."""

    def __init__(self, allowed: list[str]) -> None:
        self.allowed = allowed
        self.unlisted: list[str] = []

    def see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Notes a skip that is not allowed; an expected failure is none."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(fnmatch.fnmatchcase(reason, pattern) for pattern in self.allowed):
            self.unlisted.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test, or its set-up, ended."""
        self.see(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module was read."""
        self.see(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turns an otherwise green run red."""
        if self.unlisted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Names them before the closing line."""
        if self.unlisted:
            terminalreporter.section("skips that tests/skips.txt does not allow", red=True)
            for line in self.unlisted:
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Watches skips where CI says that it is CI."""
    if os.environ.get("CI") == "true":
        lines = (HERE / "skips.txt").read_text().splitlines()
        allowed = [line for line in lines if line and not line.startswith("#")]
        config.pluginmanager.register(SkipWatch(allowed), "bknb-skips")
