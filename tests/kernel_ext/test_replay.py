"""Replay in a real kernel."""

from __future__ import annotations

from pathlib import Path

from tests.histories import make, project
from tests.kernel_ext.kernel import Kernel


def test_the_verb_draws_a_map(kernel: Kernel, tmp_path: Path) -> None:
    """A heat map in the notebook, whose result is data too; braces are the replay's; wrong words are one line."""
    make(tmp_path / "work" / "app", project(10, seed=1))
    shown = kernel.run("%bknb replay -n 10 --build-arg FLAVOUR={short} app")
    assert shown.status == "ok" and shown.result is not None
    assert (
        "commits of app" in shown.result["text/plain"] and "data:image/svg+xml" in shown.result["text/html"]
    )
    assert (
        kernel.run("print(_.table['commit'].nunique(), set(_.table['outcome']) >= {'ran', 'cached'})").stdout
        == "10 True\n"
    )
    same = kernel.run("import bknb; print(type(bknb.replay('app', '-n', '2')).__name__)")
    assert same.stdout == "Replay\n"
    assert "REPO/CONTEXT" in kernel.run("%bknb replay --help").stdout
    wrong = kernel.run("%bknb replay --comits 3")
    assert wrong.status == "error" and "did you mean --commits?" in wrong.stderr + str(wrong.error)
    nowhere = kernel.run("%bknb replay /nonexistent")
    assert nowhere.status == "error" and "is not a folder" in nowhere.stderr + str(nowhere.error)
