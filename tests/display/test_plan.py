"""What a plan looks like: its sentence, its table, and that nothing from outside gets out of hand."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bknb.digest import Digest
from bknb.display.model import BuildView, State, fold_all
from bknb.display.plan import PlanView, headline, render_html, render_text
from bknb.display.reasons import Reasons
from bknb.events import BuildEvent, Outcome, VertexEvent

BEGIN = BuildEvent("id", 100.0, title="app", filename="Dockerfile")


def step(
    name: str, outcome: Outcome, *inputs: str, seconds: float | None = None, kind: str = "exec"
) -> VertexEvent:
    """A step of a plan."""
    return VertexEvent(
        Digest(name), name, tuple(map(Digest, inputs)), kind=kind, outcome=outcome,
        started=100.0 if seconds is not None else None,
        completed=100.0 + seconds if seconds is not None else None,
    )  # fmt: skip


def view(*steps: VertexEvent) -> BuildView:
    """The build that was planned."""
    return fold_all(BuildView(), (BEGIN, *steps, replace(BEGIN, finished=True)))


MIXED = view(
    step("FROM busybox", Outcome.DEFINITION, kind="image"),
    step("[internal] load build context", Outcome.WOULD_RUN, kind="local"),
    step("COPY . .", Outcome.WOULD_RUN, "FROM busybox", "[internal] load build context", seconds=0.2),
    step("RUN make", Outcome.WOULD_RUN, "COPY . ."),
    step("COPY --from=0 / /", Outcome.OPEN, "RUN make", seconds=1.5),
    step("RUN never", Outcome.SKIPPED),
)


def test_the_sentence_counts_what_would_happen() -> None:
    """Steps that would run, that are cached, and the share of those that are known only at run time."""
    found = headline(PlanView(MIXED, time="about 2 s"))
    assert str(found) == (
        "app would run 2 of 4 steps · 1 cached · 1 known only at run time (25%) · about 2 s"
    )
    assert found.state is State.WOULD_RUN


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((), "app has no steps · 0 known only at run time"),
        (
            (step("RUN a", Outcome.CONTENT),),
            "app would run nothing: all 1 step cached · 0 known only at run time",
        ),
        (
            (step("RUN a", Outcome.WOULD_RUN), step("RUN b", Outcome.MERGED)),
            "app would run 1 of 2 steps · 1 cached · 0 known only at run time",
        ),
        (
            (replace(step("COPY x /", Outcome.FAILED), error="x: not found"),),
            "app would fail at COPY x / · 0 cached · 0 known only at run time",
        ),
    ],
)
def test_the_sentence_for_other_ends(steps: tuple[VertexEvent, ...], said: str) -> None:
    """All cached, nothing at all, shared, and what would fail."""
    assert str(headline(PlanView(view(*steps)))) == said


def test_what_would_fail_has_not_failed() -> None:
    """Neither in the table nor in the tree or on the page."""
    failing = replace(step("COPY x /", Outcome.WOULD_FAIL, "FROM busybox"), error="x: not found")
    found = PlanView(view(step("FROM busybox", Outcome.DEFINITION, kind="image"), failing))
    assert str(headline(found)) == "app would fail at COPY x / · 1 cached · 0 known only at run time"
    text, page = render_text(found), render_html(found)
    assert text.count("✗ would fail") == 2 and "failed" not in text
    assert "✗ would fail" in page and ">✗ failed" not in page


def test_the_table_as_text() -> None:
    """A row for each step: what would happen, why, and how long; nothing known is a question mark."""
    reasons = Reasons("Because: a changed.", steps={Digest("COPY . ."): "a changed"})
    text = render_text(PlanView(MIXED, reasons, notes=("--touch x changes nothing",)))
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in text.split("\n\n")[2].splitlines()}
    assert lines["context"] == "context ▷ would be read"
    assert lines["COPY . ."] == "COPY . . ▷ would run a changed 0.20 s"
    assert lines["RUN make"] == "RUN make ▷ would run ?"
    assert lines["COPY --from=0 / /"] == "COPY --from=0 / / ? known only at run time 1.5 s"
    assert text.startswith("▷ app would run") and "Because: a changed." in text
    assert text.endswith("--touch x changes nothing")


def test_the_page_is_escaped_and_needs_no_trust() -> None:
    """Names and reasons come from outside."""
    bad = '<script>alert("$x$")</script>'
    found = view(replace(step(f"RUN {bad}", Outcome.WOULD_RUN), error=""))
    page = render_html(PlanView(found, Reasons(bad, steps={Digest(f"RUN {bad}"): bad}), notes=(bad,)))
    assert "<script" not in page and "<style" not in page and "<span>$</span>x<span>$</span>" in page
    assert "data:image/svg+xml" in page or "<pre" in page


def test_a_large_plan_stays_small() -> None:
    """Two thousand steps are not two thousand rows."""
    found = view(*(step(f"RUN {number}", Outcome.WOULD_RUN) for number in range(2000)))
    page, text = render_html(PlanView(found)), render_text(PlanView(found))
    assert len(page) < 150_000 and "more rows" in page
    assert "and 1,880 more steps" in text
