"""The house's own papers agree: locks with pyproject.toml, the top level with what may lie there."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import need

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", ".ci/dev.lock")
TOP_LEVEL = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", ".gitignore", "requirements.lock",
    ".ci", "bknb", "kernel_ext", "notebooks", "tests",
}  # fmt: skip


def plain(name: str) -> str:
    """A distribution's name in the form that locks use."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Name -> version of what a lock pins."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def wanted(*extras: str) -> dict[str, str]:
    """Name -> minimum of what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    asked = "\n".join([*project["dependencies"], *(each for extra in extras for each in optional[extra])])
    found = re.findall(r"^([\w.-]+)>=([\w.]+)", asked, re.MULTILINE)
    return {plain(name): minimum for name, minimum in found}


def numbers(version: str) -> tuple[int, ...]:
    """A version's leading numbers, for comparing."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


@pytest.mark.parametrize(("lock", "extras"), [(LOCKS[0], ()), (LOCKS[1], ("test", "dev"))])
def test_lock_covers_pyproject(lock: str, extras: tuple[str, ...]) -> None:
    """Whatever pyproject.toml asks for is pinned, at its minimum or newer."""
    pinned = pins(lock)
    for name, minimum in wanted(*extras).items():
        assert numbers(pinned[name]) >= numbers(minimum), name


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_by_hash_and_names_no_host(lock: str) -> None:
    """Every pin has a hash, and where packages come from is the machine's own setting."""
    text = (ROOT / lock).read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block


def test_both_locks_pin_the_same() -> None:
    """What the demo runs on is what the tests ran on."""
    runtime, all_of_it = pins(LOCKS[0]), pins(LOCKS[1])
    assert {name: all_of_it.get(name) for name in runtime} == runtime


def test_oldest_takes_each_minimum() -> None:
    """`make test-oldest` pins exactly the minimums, markers kept."""
    setup = runpy.run_path(str(ROOT / ".ci" / "setup.py"), run_name="setup")
    lines = setup["oldest_constraints"]().splitlines()
    assert {plain(re.split("[=;]", line)[0]) for line in lines} == set(wanted("test"))
    assert all(line.count("==") >= 1 and ">=" not in line.split(";")[0] for line in lines)


def test_version_is_said_once() -> None:
    """The package and the distribution have one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'__version__ = "{project["version"]}"' in (ROOT / "bknb" / "__init__.py").read_text()


def test_top_level_holds_what_it_may() -> None:
    """Nothing else lies at the top."""
    listing = subprocess.run(
        [need("git"), "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, start_new_session=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listing.stdout.split("\0") if name} <= TOP_LEVEL
