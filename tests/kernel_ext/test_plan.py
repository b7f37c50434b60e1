"""A plan in a real kernel: what the cell shows and keeps, and a miss where none may be."""

from __future__ import annotations

from pathlib import Path

from tests.kernel_ext.kernel import Kernel

TEXT = "FROM busybox\nCOPY data /data\nRUN cat /data\n"


def test_a_cell_plans(kernel: Kernel, tmp_path: Path) -> None:
    """The plan is the cell's result, and its variable; then the build does what was said; then a miss is an error."""
    data = tmp_path / "work" / "data"
    data.write_text("one\n")
    planned = kernel.run(f"%%dockerfile --plan --out plan .\n{TEXT}")
    assert planned.status == "ok" and planned.result is not None
    assert planned.result["text/plain"].startswith("▷ Dockerfile would run 3 of 3 steps")
    assert "data:image/svg+xml" in planned.result["text/html"]
    assert kernel.run(f"%%dockerfile .\n{TEXT}").status == "ok"
    assert kernel.run(f"%%dockerfile --fail-on-miss .\n{TEXT}").status == "ok"
    touched = kernel.run(f"%%dockerfile --plan --touch data --out plan .\n{TEXT}")
    assert touched.result is not None and "Because: data changed." in touched.result["text/plain"]
    rows = kernel.run("print(list(plan.table['plan']))")
    assert rows.stdout == "['cached', 'run', 'run', 'run']\n"
    data.write_text("two\n")
    missed = kernel.run(f"%%dockerfile --fail-on-miss .\n{TEXT}")
    assert missed.status == "error" and "not cached: COPY data /data (line 2): data changed" in str(
        missed.error
    )
    assert "would run 2 of 3 steps" in str(missed.displays), "the plan is shown"
    wrong = kernel.run(f"%%dockerfile --plan --touch dta .\n{TEXT}")
    assert wrong.status == "error" and "did you mean data?" in wrong.stderr + str(wrong.error)
