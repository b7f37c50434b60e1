"""The summary as text."""

from __future__ import annotations

from collections.abc import Callable

from bknb.digest import Digest
from bknb.display import BuildView, fold_all, render_text
from bknb.display.text import columns, render_graph, render_table
from bknb.errors import Range
from bknb.events import BuildEvent, Outcome, VertexEvent

Views = Callable[[str], BuildView]


def test_rebuild(view: Views) -> None:
    """The first lines say what happened and why; graph and table name each step's state."""
    text = render_text(view("edited"))
    lines = text.split("\n")
    assert lines[0].startswith("✓ demo:latest built in 2.5 s · 5 of 8 steps cached · sha256:")
    assert lines[1] == "New or changed: COPY src/ src/; 2 steps after it ran too."
    assert " ├ COPY src/ src/                       ✓ ran · 60 ms  ← context" in lines
    assert " └ COPY --from=build /app/dist /app     ✓ ran · 60 ms  ← build" in lines
    assert any(line.startswith("RUN mkdocs build") and "– skipped, not needed" in line for line in lines)


def test_an_arrow_names_what_is_read() -> None:
    """A base image stands with the first stage that is made from it; who shares it does not read that stage."""
    image, one, two, three = (Digest.of_text(name) for name in ("image", "one", "two", "three"))
    done = {"started": 0.0, "completed": 1.0, "outcome": Outcome.RAN}
    events = [
        BuildEvent("b", 0.0),
        VertexEvent(image, "[b 1/2] FROM x", kind="image", command="FROM --platform=p x AS b", stage="b", ranges=(Range(1, 0, 1, 0),), **done),
        VertexEvent(one, "RUN one", (image,), kind="exec", command="RUN one", stage="b", ranges=(Range(2, 0, 2, 0),), **done),
        VertexEvent(two, "COPY list /l", (image,), kind="file", command="COPY list /l", stage="c", ranges=(Range(4, 0, 4, 0),), **done),
        VertexEvent(three, "COPY --from=b /o /o", (two, one), kind="file", command="COPY --from=b /o /o", stage="c", ranges=(Range(5, 0, 5, 0),), **done),
        BuildEvent("b", 1.0, True),
    ]  # fmt: skip
    lines = render_graph(fold_all(BuildView(), events)).splitlines()
    assert [line.partition("  ← ")[2] for line in lines if line.startswith(" ") and "COPY" in line] == ["x", "b"]


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
