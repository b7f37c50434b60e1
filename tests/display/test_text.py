"""The summary as text."""

from __future__ import annotations

from collections.abc import Callable

from bknb.display import BuildView, render_text
from bknb.display.text import columns, render_graph, render_table

Views = Callable[[str], BuildView]


def test_rebuild(view: Views) -> None:
    """The first lines say what happened and why; graph and table name each step's state."""
    text = render_text(view("edited"))
    lines = text.split("\n")
    assert lines[0].startswith("✓ demo:latest built in 2.5 s · 5 of 8 steps cached · sha256:")
    assert lines[1] == "New or changed: COPY src/ src/; 2 steps after it ran again."
    assert " ├ COPY src/ src/                       ✓ ran · 60 ms  ← context" in lines
    assert " └ COPY --from=build /app/dist /app     ✓ ran · 60 ms  ← build" in lines
    assert any(line.startswith("RUN mkdocs build") and "– skipped, not needed" in line for line in lines)


def test_cached(view: Views) -> None:
    """A build that did nothing says so."""
    assert render_text(view("cached")).startswith(
        "= demo:latest is up to date · all 8 steps cached · 60 ms · "
    )


def test_failure(view: Views) -> None:
    """A failed build shows the place and the last words of the log before anything else."""
    text = render_text(view("failed"))
    assert text.startswith("✗ demo:latest failed after 1.9 s · at RUN python -m build")
    assert text.index(">>> RUN python -m build") < text.index(" ├ FROM")


def test_cached_runs_are_folded(view: Views) -> None:
    """Of 300 steps the graph shows those that ran, and the table stops at 200."""
    graph = render_graph(view("large"))
    assert len(graph.splitlines()) < 80
    assert "29 steps RUN" in graph
    assert render_table(view("large")).endswith("and 100 more steps")


def test_columns_know_wide_characters() -> None:
    """A cell of wide characters takes its place twice."""
    assert columns([("a", "b"), ("漢字", "x")]) == "a     b\n────  ─\n漢字  x"


def test_every_stream_renders(view: Views) -> None:
    """Nothing is left unsaid, nothing raises: hostile, empty, running."""
    for name in ("hostile", "llb", "running", "forty"):
        assert render_text(view(name))
    assert render_text(BuildView()) == "▸ build is being built"
