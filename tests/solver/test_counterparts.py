"""Every test of BuildKit's solver/scheduler_test.go has its like here, or a reason why not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from bknb.digest import Digest

FOLDER = Path(__file__).parent
TABLE = tomllib.loads((FOLDER / "counterparts.toml").read_text())
NAMES = 38
"""Functions `Test...` in that file, of the public source that the conformance cases were measured with."""
DIGEST = "sha256:8937697fcef478d1ee5b91bc36884a6d5cbd650dfbf6351834cae8fe4281c40e"
"""Of their names, sorted, one a line."""


def test_each_name_once() -> None:
    """All names are there, each with counterparts or a reason, and reasons are few."""
    tests, reasons = TABLE["tests"], TABLE["reasons"]
    assert not tests.keys() & reasons.keys()
    assert len(tests) + len(reasons) == NAMES and len(reasons) <= 5
    assert Digest.of_text("\n".join(sorted({*tests, *reasons}))) == DIGEST
    assert all(tests.values()) and all(reasons.values())


def test_counterparts_are_collected() -> None:
    """Each counterpart is a test that pytest finds."""
    named = {name for names in TABLE["tests"].values() for name in names}
    files = sorted({str((FOLDER / name.partition("::")[0]).resolve()) for name in named})
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        words, cwd=FOLDER.parent.parent, capture_output=True, text=True, start_new_session=True, check=False
    )
    assert not done.returncode, done.stdout[-2000:] + done.stderr[-2000:]
    found = {line.partition("[")[0] for line in done.stdout.splitlines()}
    wanted = {
        f"{(FOLDER / file).resolve().relative_to(FOLDER.parent.parent)}::{test}"
        for file, _, test in (name.partition("::") for name in named)
    }
    assert wanted <= found, sorted(wanted - found)
