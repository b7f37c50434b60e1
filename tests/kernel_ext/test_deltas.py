"""What a page is told adds up to the whole."""

from __future__ import annotations

import json
from typing import Any

from bknb.digest import Digest
from bknb.display import BuildView, fold_all
from bknb.events import Event, LogEvent, VertexEvent
from bknb.llb.ops import SourceOp
from kernel_ext.deltas import KEPT_LOG, Deltas
from tests.display import streams

A = Digest.of_text("a")


def play(events: list[Event], batch: int = 5) -> tuple[Deltas, list[dict[str, Any]]]:
    """All messages for a stream."""
    deltas, view, messages = Deltas(), BuildView(), []
    for at in range(0, len(events), batch):
        view = fold_all(view, events[at : at + batch])
        message = deltas.between(view, 1.0, {})
        if message is not None:
            messages.append(json.loads(json.dumps(message)))
    assert deltas.between(view, 1.0, {}) is None
    return deltas, messages


def test_deltas_add_up() -> None:
    """A page that took every message knows what one knows that asks for the whole."""
    deltas, messages = play(streams.first())
    steps: dict[str, dict[str, Any]] = {}
    logs: dict[str, str] = {}
    for message in messages:
        for id_, change in message["steps"].items():
            steps.setdefault(id_, {}).update(change)
        for id_, text in message["logs"].items():
            logs[id_] = logs.get(id_, "") + text
    whole = json.loads(json.dumps(deltas.whole(1.0, 0.0)))
    assert (steps, logs, messages[-1]["head"]) == (whole["steps"], whole["logs"], whole["head"])


def test_only_what_changed_is_sent() -> None:
    """A later message about a step has only the fields that differ."""
    deltas = Deltas()
    view = fold_all(BuildView(), [VertexEvent(A, "RUN x")])
    deltas.between(view, 1.0, {})
    message = deltas.between(fold_all(view, [VertexEvent(A, "RUN x", started=1.0)]), 1.0, {})
    assert message is not None
    assert message["steps"] == {A.hex[:16]: {"state": "running", "status": "▸ running", "started": 1.0}}


def test_lines_are_whole() -> None:
    """A line is sent when its end has come, escaped and with its colour; the rest when the step ends."""
    deltas = Deltas()
    view = fold_all(BuildView(), [VertexEvent(A, "x", started=0.0), LogEvent(A, 1, b"a\n\x1b[31m<b", 1.0)])
    first = deltas.between(view, 1.0, {})
    view = fold_all(view, [LogEvent(A, 1, b">", 1.0), VertexEvent(A, "x", started=0.0, completed=2.0)])
    second = deltas.between(view, 1.0, {})
    assert first is not None and second is not None
    assert first["logs"] == {A.hex[:16]: "a\n"}
    assert second["logs"] == {A.hex[:16]: '<span style="color:#d0453a">&lt;b&gt;</span>\n'}


def test_large_logs_are_cut() -> None:
    """A message and what is kept for later pages are bounded."""
    deltas, view = Deltas(), fold_all(BuildView(), [VertexEvent(A, "x", started=0.0)])
    for _ in range(20):
        view = fold_all(view, [LogEvent(A, 1, b"y" * 99 + b"\n", 1.0)] * 1000)
        message = deltas.between(view, 1.0, {})
        assert message is not None and len(message["logs"][A.hex[:16]]) <= 64 * 1024 + 100
    assert len(deltas.whole(1.0, 0.0)["logs"][A.hex[:16]]) <= KEPT_LOG


def test_ops_come_when_they_are_known() -> None:
    """An op is sent once, also to a step that was there before."""
    deltas = Deltas()
    view = fold_all(BuildView(), [VertexEvent(A, "x")])
    deltas.between(view, 1.0, {})
    message = deltas.between(view, 1.0, {A: SourceOp("docker-image://x")})
    assert message is not None
    assert message["steps"][A.hex[:16]] == {"op": "SourceOp\n  identifier: docker-image://x"}
