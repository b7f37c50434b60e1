"""Real builds in a real JupyterLab: run, fail, stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.ui.conftest import Lab, Server

pytestmark = pytest.mark.browser

LOAD = "%load_ext bknb\n%config Bknb.offline = True\n%config Bknb.root = {root!r}"
APP = """%%dockerfile -t hello hello
FROM busybox AS deps
WORKDIR /app
COPY requirements.txt .
RUN while read name; do echo "fetching $name"; sleep 0.3; echo "$name" > "$name.dep"; done < requirements.txt

FROM busybox AS docs
COPY docs /docs
RUN cp -r /docs /site

FROM deps AS build
COPY src src
RUN sh src/build.sh

FROM busybox
COPY --from=build /app/app.txt /app.txt
CMD ["cat", "/app.txt"]"""
EDIT = "from pathlib import Path\nPath('hello/src/greeting.txt').write_text('hello again\\n');"
LONG = "%%dockerfile\nFROM busybox\nRUN echo first > /a\nRUN echo sta''rted && sleep 600"


@pytest.fixture
def sources(server: Server, tmp_path: Path) -> Iterator[str]:
    """The first cell of a notebook, and the files that APP is made of."""
    need("busybox")
    for name, text in {
        "requirements.txt": "left-pad\nright-pad\n",
        "src/greeting.txt": "hello\n",
        "src/build.sh": "for pad in *.dep; do echo linking $pad; done\ncat src/greeting.txt > app.txt\n",
        "docs/index.md": "# hello\n",
    }.items():
        path = server.root / "hello" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield LOAD.format(root=str(tmp_path / "state"))


def words(lab: Lab, index: int) -> str:
    """All text of a cell's output."""
    return str(lab.cell(index).locator(".jp-OutputArea").inner_text())


def test_first_build_rebuild_and_failure(lab: Lab, server: Server, sources: str) -> None:
    """A cell builds, an edit runs what stands on it, a failing step is shown open; nothing is asked of the network."""
    failing = "%%dockerfile hello\nFROM busybox\nCOPY src /src\nRUN cat /src/greeting.txt && echo oh no && exit 3"
    server.write("build.ipynb", [sources, APP, EDIT, APP, failing])
    lab.open("build.ipynb")
    for index in range(4):
        lab.run(index)
    assert "hello" in words(lab, 1) and "skipped" in words(lab, 1)
    assert "cached" in words(lab, 3)
    assert 'echo "$name" > "$name.dep"' in words(lab, 1) or 'echo "fetching $na' in words(lab, 1), "no mathematics"
    assert not lab.cell(1).locator("mjx-container").count()
    lab.shot("build_first", 1)
    lab.shot("build_rebuilt", 3)
    lab.run(4)
    assert "exit code: 3" in words(lab, 4) and "oh no" in words(lab, 4)
    lab.shot("build_failed", 4)
    assert not lab.foreign and not lab.complaints


def test_the_stop_button(lab: Lab, server: Server, sources: str) -> None:
    """Pressed in the tool bar it ends the build with one line; the picture says that it was stopped."""
    server.write("stop.ipynb", [sources, LONG, "1 + 1"])
    lab.open("stop.ipynb")
    lab.run(0)
    lab.run(1, wait=False)
    lab.cell(1).get_by_text("started", exact=True).first.wait_for()
    lab.shot("build_running", 1)
    lab.page.locator("[data-command='notebook:interrupt-kernel'], .jp-ToolbarButton [title^='Interrupt']").first.click()
    lab.done(1)
    lab.cell(1).get_by_text("was cancelled").first.wait_for()
    assert "Build cancelled." in words(lab, 1)
    lab.shot("build_stopped", 1)
    lab.run(2)
    assert "2" in words(lab, 2)


def test_a_new_cell_is_told_what_changed(lab: Lab, server: Server, sources: str) -> None:
    """Each cell has an id of its own here: a plan, the picture and why compare with the same build all the same."""
    missing = "FROM busybox\nCOPY nope.txt /x"
    cells = [
        sources, APP, EDIT.replace("again", "once more"), APP.replace("-t hello", "--plan -t hello"), APP, "%bknb why",
        "%bknb prune --all", APP, "%bknb why", f"%%dockerfile hello\n{missing}", f"%%dockerfile --plan hello\n{missing}",
    ]  # fmt: skip
    server.write("new_cells.ipynb", cells)
    lab.open("new_cells.ipynb")
    said = []
    for at in range(len(cells)):
        lab.run(at)
        said.append(words(lab, at))
        if at in (3, 5, 8, 10):
            lab.shot(f"new-cell-{at}", at)
    assert "Because: src/greeting.txt changed" in said[3]
    assert "One cause: src/greeting.txt changed +1 −1" in said[4]
    assert "src/greeting.txt changed +1 −1" in said[5] and "hello once more" in said[5]
    assert said[8].count("evicted") == 1
    assert '"/nope.txt": not found' in said[10] and "would fail" in said[10]
    assert "had not finished" not in said[10] and "✗ failed" not in said[10]
