"""Coverage-guided fuzzing of what bytes from outside meet first: half a minute here, ten minutes in the long runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, definition, dockerfile, seeds

ROOT = Path(__file__).parent.parent.parent


def fuzz(target: str, seconds: int, folder: Path, report: pytest.CaptureFixture[str]) -> None:
    """Run one target in a process of its own and show its summary, whatever pytest captures."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris: it has no wheel for this Python on this machine")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, str(seconds), str(folder)],
        cwd=ROOT, capture_output=True, text=True, start_new_session=True, timeout=seconds + 200,
    )  # fmt: skip
    with report.disabled():
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz_briefly(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifteen seconds for each target, from the measured cases on."""
    fuzz(target, 15, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz_at_length(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five minutes for each target."""
    fuzz(target, 300, tmp_path, capsys)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_pass(target: str) -> None:
    """What a run begins with is fine by itself, with and without the fuzzer."""
    found = list(dict.fromkeys(seeds(target)))
    assert len(found) > 100
    for data in found:
        TARGETS[target](data)


@pytest.mark.parametrize(
    "data",
    [
        b"FROM a\nWORKDIR /a/${b:-\xff}\n",
        b"FROM a\nRUN true\nHEALTHCHECK CMD \xff\n",
        b"FROM a\nCOPY --from=\xc7 a b\n",
        b"\xef\xbb\xbf\xff\n",
    ],
)
def test_dockerfile_of_bytes(data: bytes) -> None:
    """Bytes that are no UTF-8, in places where they became a traceback or might."""
    dockerfile(data)


@pytest.mark.parametrize("data", [b"", b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x0a\x02\x0a\x00"])
def test_definition_of_bytes(data: bytes) -> None:
    """Small ones that are nearly right."""
    definition(data)
