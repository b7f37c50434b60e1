"""Steps of two builds are paired as people would."""

from __future__ import annotations

from bknb.digest import Digest
from bknb.display import BuildView, fold_all
from bknb.display.boxes import keep_ids, plan
from bknb.display.pairing import pair
from bknb.events import VertexEvent


def build(salt: str, *lines: str, stage: str = "build") -> BuildView:
    """A build of one stage; `salt` makes its digests its own."""
    events = [
        VertexEvent(Digest.of_text(salt + line), f"[{stage} {n}/{len(lines)}] {line}", stage=stage)
        for n, line in enumerate(lines, 1)
    ]
    return fold_all(BuildView(), events)


def labels(before: BuildView, after: BuildView) -> dict[str, str]:
    """Pairs by label."""
    found = pair(before, after)
    return {after.steps[new].label: before.steps[old].label for new, old in found.items()}


def test_the_same_file() -> None:
    """Equal instructions are pairs though every digest is new."""
    lines = ("FROM a", "COPY . .", "RUN make")
    assert labels(build("1", *lines), build("2", *lines)) == {line: line for line in lines}


def test_an_inserted_and_an_edited_line() -> None:
    """What was inserted has no counterpart; what was edited has."""
    before = build("1", "FROM a", "RUN pip install x", "RUN make")
    after = build("2", "FROM a", "ENV A=b", "RUN pip install x y", "RUN make")
    assert labels(before, after) == {
        "FROM a": "FROM a", "RUN pip install x y": "RUN pip install x", "RUN make": "RUN make",
    }  # fmt: skip


def test_another_stage() -> None:
    """Steps of stages with different names are not paired."""
    assert labels(build("1", "RUN make"), build("2", "RUN make", stage="other")) == {}


def test_boxes_keep_their_ids() -> None:
    """A step that moved by one keeps its box's id; no id is given twice."""
    before = build("1", "FROM a", "COPY . .", "RUN make")
    after = build("2", "FROM a", "ENV A=b", "COPY . .", "RUN make")
    ids = {box.steps[0].label: box.id for box in plan(before).boxes}
    kept = keep_ids(plan(after), plan(before), pair(before, after))
    named = {box.steps[0].label: box.id for box in kept.boxes}
    assert {label: named[label] for label in ids} == ids
    assert len(set(named.values())) == 4
    assert {arrow.source for arrow in kept.arrows} <= set(named.values())
