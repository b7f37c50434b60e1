"""Why, in a real kernel: the picture's second line, the verb, and two builds by name."""

from __future__ import annotations

from pathlib import Path

from tests.kernel_ext.kernel import Kernel

CELL = "%%dockerfile --out {name} .\nFROM busybox\nCOPY data /data\nRUN cat /data\n"


def test_the_cell_says_why(kernel: Kernel, tmp_path: Path) -> None:
    """The first run has nothing to compare with; the second names the file, in the picture and when asked."""
    data = tmp_path / "work" / "data"
    data.write_text("one\n")
    first = kernel.run(CELL.format(name="one"))
    assert first.status == "ok" and "One cause" not in str(first.displays)
    none = kernel.run("%bknb why")
    assert none.result is not None and "built for the first time" in none.result["text/plain"]
    data.write_text("two\n")
    second = kernel.run(CELL.format(name="two"))
    assert second.status == "ok"
    assert "One cause: <b>data</b> changed +1 −1. It made 2 steps run." in str(second.displays)
    for line in ("%bknb why", "%bknb why one two", "two.why()", "%bknb why two"):
        asked = kernel.run(line)
        assert asked.result is not None and "data changed +1 −1: 2 steps ran" in asked.result["text/plain"], (
            line
        )
    step = kernel.run("%bknb why 'RUN cat'")
    assert step.result is not None and "because of COPY data /data" in step.result["text/plain"]
    wrong = kernel.run("%bknb why one two three")
    assert wrong.status == "error" and "BEFORE AFTER" in wrong.stderr
    odd = kernel.run("%bknb why one nothing")
    assert odd.status == "error" and "is no build" in odd.stderr + str(odd.error)


def test_a_new_cell_is_compared_with_the_last_run_of_the_same_build(kernel: Kernel, tmp_path: Path) -> None:
    """Every cell has an id of its own: why, the picture, a plan and a question by id have one baseline."""
    data = tmp_path / "work" / "data"
    data.write_text("one\n")
    first = kernel.run(CELL.format(name="one"), cell="a")
    assert first.status == "ok" and "One cause" not in str(first.displays)
    data.write_text("two\n")
    planned = kernel.run("%%dockerfile --plan .\n" + CELL.partition("\n")[2], cell="b")
    assert planned.result is not None and "Because: data changed" in planned.result["text/plain"]
    second = kernel.run(CELL.format(name="two"), cell="c")
    assert "One cause: <b>data</b> changed +1 −1. It made 2 steps run." in str(second.displays)
    for line in ("%bknb why", "two.why()", "from bknb.api.explained import ask; ask(two._client, [two.id])"):
        asked = kernel.run(line, cell="d")
        assert asked.result is not None and "data changed +1 −1: 2 steps ran" in asked.result["text/plain"]
    kernel.run("%%dockerfile .\nFROM busybox\nRUN echo of something else\n", cell="e")
    other = kernel.run("%bknb why", cell="f")
    assert other.result is not None and "built for the first time" in other.result["text/plain"]
