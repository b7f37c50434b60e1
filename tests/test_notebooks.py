"""The notebooks run from top to bottom as a newcomer runs them, their exercises' answers too, and are kept stripped."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from tests.conftest import need

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ANSWER = re.compile(r"<details><summary>Answer</summary>.*?</details>", re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

PROMISED = {
    "03_why_was_it_not_cached": {
        "cell-12": "README.md changed +2 −0: 3 steps ran",
        "cell-14": "because of COPY . .",
        "cell-25": "",
        "cell-30": "README.md: mode",
        "cell-37": "src/shop.txt changed +1 −1",
        "cell-45": "ARG VERSION 1 → 2",
        "cell-49": "its result was evicted on",
    }
}
"""What the answers of a notebook's cells say, as its text tells."""


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook, checked against the format's schema."""
    notebook: nbformat.NotebookNode = nbformat.reads(path.read_text(), as_version=4)
    nbformat.validate(notebook)
    return notebook


def answers(cell: nbformat.NotebookNode) -> list[str]:
    """The code of the folded answers in a cell of text."""
    return [code for answer in ANSWER.findall(cell.source) for code in CODE.findall(answer)]


def test_there_are_notebooks() -> None:
    """They are numbered, in the order in which they are read."""
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02}" for n in range(1, len(NOTEBOOKS) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped(path: Path) -> None:
    """No outputs, no counts, no widgets, no traces of who ran it; each cell has an id."""
    raw = json.loads(path.read_text())
    assert set(raw["metadata"]) == {"kernelspec", "language_info"}
    for cell in raw["cells"]:
        assert cell["id"] and cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    ids = [cell["id"] for cell in raw["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the folder, with nothing built before, and offline; no cell fails."""
    need("busybox")
    work = tmp_path / "notebooks"
    shutil.copytree(FOLDER, work, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    monkeypatch.setenv("BKNB_ROOT", str(tmp_path / "state"))
    notebook = read(work / path.name)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cells += [nbformat.v4.new_code_cell(code) for code in answers(cell)]
    notebook.cells = cells
    client = NotebookClient(
        notebook,
        timeout=180,
        store_widget_state=False,
        resources={"metadata": {"path": str(work)}},
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
    )

    def named(cell: nbformat.NotebookNode, **_: object) -> None:
        """Each cell is run under its id, as JupyterLab does it."""
        assert client.kc is not None
        client.kc.session.metadata = {"cellId": cell.id}

    client.on_cell_start = named
    client.execute()
    assert not any(o.output_type == "error" for c in cells if c.cell_type == "code" for o in c.outputs)
    for id, said in PROMISED.get(path.stem, {}).items():
        (cell,) = [cell for cell in cells if cell.id == id]
        answer = "".join(o.data["text/plain"] for o in cell.outputs if "data" in o)
        assert (said in answer) if said else not answer.strip(), (id, answer)


@pytest.mark.parametrize(("name", "least"), [("02_llb_by_hand", 4), ("03_why_was_it_not_cached", 3)])
def test_exercises_have_folded_answers(name: str, least: int) -> None:
    """Whoever is asked something finds the answer below it, folded, and it is code that runs (see above)."""
    cells = [cell for cell in read(FOLDER / f"{name}.ipynb").cells if cell.cell_type == "markdown"]
    asked = sum(cell.source.count("**Exercise ") for cell in cells)
    assert asked == sum(len(answers(cell)) for cell in cells) >= least
