"""Runs notebooks/01_first_build.ipynb in a real kernel and prints, as text, what each cell showed.

It works in a copy of notebooks/ and on a state folder of the demo's own, empty at the start: the first build
runs every step however often the demo is run, and neither the checkout nor the user's builds are touched.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks" / "01_first_build.ipynb"
PLACE = ROOT / "build" / "demo"
CELL_SECONDS = 150
CELL_LINES = 40
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def remove(folder: Path) -> None:
    """Removes a state folder, with the folders in it that their owner may not enter as they are."""

    def enter(retry: Callable[[str], Any], path: str, _: Any) -> None:
        """Gives the owner access to what could not be removed, and to the folder it is in."""
        for each in (os.path.dirname(path), path):
            if not os.path.islink(each):
                os.chmod(each, stat.S_IRWXU)
        retry(path)

    if folder.exists():
        shutil.rmtree(folder, onerror=enter)


def text_of(output: dict[str, Any]) -> str:
    """What one output says in a terminal."""
    if output["output_type"] == "stream":
        return str(output["text"])
    if output["output_type"] == "error":
        return ANSI.sub("", "\n".join(output["traceback"])) + "\n"
    return str(output["data"].get("text/plain", "")) + "\n"


def show(notebook: nbformat.NotebookNode) -> None:
    """Prints each cell's first lines and all that it put out."""
    for cell in notebook.cells:
        if cell.cell_type != "code" or cell.execution_count is None:
            continue
        lines = cell.source.splitlines() or [""]
        shown = lines if len(lines) <= CELL_LINES else [*lines[: CELL_LINES - 1], "..."]
        print(f"\nIn [{cell.execution_count}]: " + "\n        ".join(shown))
        for output in cell.outputs:
            print(text_of(output), end="")


def main() -> int:
    """Executes the notebook, prints it, and says where the executed one lies."""
    remove(PLACE)
    work = PLACE / "notebooks"
    shutil.copytree(SOURCE.parent, work, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    os.environ["BKNB_ROOT"] = str(PLACE / "state")
    notebook: nbformat.NotebookNode = nbformat.reads(SOURCE.read_text(), as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(work)}},
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
    )
    began = time.monotonic()
    failure = ""
    try:
        client.execute()
    except CellExecutionError:
        failure = "a cell failed; its error is above"
    except (DeadKernelError, TimeoutError) as error:
        failure = f"the kernel did not finish: {error}"
    executed = work / SOURCE.name
    executed.write_text(nbformat.writes(notebook))
    show(notebook)
    remove(PLACE / "state")
    print(f"\nran {SOURCE.relative_to(ROOT)} in {time.monotonic() - began:.1f} s; executed: {executed}")
    if failure:
        print(f"demo: {failure}", file=sys.stderr)
    return bool(failure)


if __name__ == "__main__":
    sys.exit(main())
