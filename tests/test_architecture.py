"""The floors that everything stands on: this table is their documentation, and these tests hold it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SIBLINGS, IN_ORDER = "siblings that never import each other", "each may import those before it"

# A module imports from lower rows, from its own package, and IN_ORDER also from what stands before it there.
FLOORS = (  # first the vocabulary, then the models, the mechanisms, the compositions, ..., the notebook
    (IN_ORDER, "errors digest gojson platforms reference flight garbage patterns tables owner beneath shim pb"),
    (IN_ORDER, "plain events options oci llb record settings keys protocols"),
    (SIBLINGS, "frontend solver content registry snapshot cache executor network session config display"),
    (IN_ORDER, "layers"),
    (SIBLINGS, "source worker exporter cacheio policy history"),
    (SIBLINGS, "builder remote analysis"),
    (IN_ORDER, "api doctor cli __main__"),
    (SIBLINGS, "kernel_ext"),
)
LIBRARIES = {0: {"google"}, 1: {"google", "msgspec"}}  # beside the standard library; higher rows are free
SHIM_IMPORTS = {"shim", "beneath", "errors", "patterns"}  # its process: these and the standard library
STANDARD = sys.stdlib_module_names | {"compression", "backports"}  # zstd: Python 3.14's, and its backport
NOTEBOOK = {"IPython", "ipywidgets", "anywidget", "traitlets", "ipykernel", "jupyter_client", "kernel_ext"}
SOURCES = sorted(path for top in ("bknb", "kernel_ext") for path in (ROOT / top).rglob("*.py"))


def place(name: str) -> tuple[int, int]:
    """The row of a part of bknb, and its position in that row."""
    for row, (_, names) in enumerate(FLOORS):
        if name in names.split():
            return row, names.split().index(name)
    raise AssertionError(f"{name} has no place in FLOORS")


def part_of(module: str) -> str:
    """The part that a dotted name belongs to: `bknb.llb.ops` is of `llb`."""
    return module.split(".")[1] if module.startswith("bknb.") else module.split(".")[0]


def imports(path: Path) -> Iterator[str]:
    """The dotted name of everything that a source file imports, inside functions too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "bknb")  # the light front door
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(word for word in (above, node.module) if word)
            if module == "bknb":  # each name may be a part; the version is the front door's own
                yield from (f"bknb.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    """Every import goes to a lower floor, the own package, or earlier in an ordered row."""
    inside = path.relative_to(ROOT)
    if inside == Path("bknb/__init__.py"):
        return
    own = part_of(".".join(inside.with_suffix("").parts))
    row, position = place(own)
    for module in imports(path):
        part, top = part_of(module), module.split(".")[0]
        if part == own or top in STANDARD:
            continue
        assert own not in SHIM_IMPORTS or part in SHIM_IMPORTS, f"{module} in the shim's process"
        if top in ("bknb", "kernel_ext"):
            other, before = place(part)
            assert other < row or (other == row and FLOORS[row][0] == IN_ORDER and before < position), module
        else:
            assert top in LIBRARIES.get(row, {top}), f"{module} on floor {row}"
            assert own == "kernel_ext" or top not in NOTEBOOK, f"{module} belongs to the notebook"


def test_import_bknb_is_light() -> None:
    """`import bknb` loads none of the heavy libraries, and nothing of its own but itself."""
    heavy = "pandas aiohttp grpclib IPython google.protobuf msgspec rich asyncio kernel_ext".split()
    code = f"import sys, bknb; print([m for m in sys.modules if m in {heavy} or m.startswith('bknb.')])"
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, start_new_session=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
