"""From one view of a build to the next: the little that a page must be told.

A step is sent as the fields that differ from what was sent before; a log as the lines that are new. The page
knows a step by the first 16 digits of its digest (``data-step`` in the picture).
"""

from __future__ import annotations

from typing import Any

from bknb.digest import Digest
from bknb.display import amounts, ansi, boxes, excerpt, palette, sentence
from bknb.display.model import BuildView, State, StepView
from bknb.display.operation import describe
from bknb.events import StatusEvent

MOST_LOG = 64 * 1024
"""Characters of one step's log in one message; of more, only the end is sent."""
KEPT_LOG = 256 * 1024
"""Characters of a log that are kept for a page that is opened later."""
MOST_PULLS = 12

Message = dict[str, Any]


class Deltas:
    """What a page has been told; not for several threads at once."""

    def __init__(self) -> None:
        self._steps: dict[Digest, StepView] = {}
        self._ops: set[Digest] = set()
        self._sent: dict[str, Message] = {}
        self._lines: dict[Digest, _Lines] = {}
        self._logs: dict[str, str] = {}
        self._head: Message = {}

    def between(self, view: BuildView, now: float, ops: dict[Digest, object]) -> Message | None:
        """The message that brings a page up to date; None where nothing has changed."""
        head = _head(view, now)
        changes: dict[str, Message] = {}
        logs: dict[str, str] = {}
        for digest, step in view.steps.items():
            op_is_new = digest in ops and digest not in self._ops
            if not step.known or (self._steps.get(digest) is step and not op_is_new):
                continue
            self._steps[digest] = step
            self._ops.update({digest} & ops.keys())
            if step.kind in ("internal", "passthrough") and not step.log:
                continue
            if changed := self._changes(view, step, ops.get(digest)):
                changes[_id(digest)] = changed
            if text := self._lines.setdefault(digest, _Lines()).new(step):
                logs[_id(digest)] = text
                self._logs[_id(digest)] = (self._logs.get(_id(digest), "") + text)[-KEPT_LOG:]
        if not changes and not logs and head == self._head:
            return None
        self._head = head
        return {
            "type": "delta",
            "now": now,
            "begun": view.started,
            "head": head,
            "steps": changes,
            "logs": logs,
        }

    def whole(self, now: float, begun: float | None) -> Message:
        """Everything that was said so far, for a page that is opened in the middle of a build."""
        logs = {
            id_: text[text.find("\n") + 1 :] if len(text) == KEPT_LOG else text
            for id_, text in self._logs.items()
        }
        return {"type": "delta", "whole": True, "now": now, "begun": begun, "head": self._head,
                "steps": self._sent, "logs": logs}  # fmt: skip

    def _changes(self, view: BuildView, step: StepView, op: object | None) -> Message:
        told = self._sent.setdefault(_id(step.digest), {})
        fields = _step(view, step, told)
        if op is not None and "op" not in told:
            fields["op"] = ansi.plain(describe(op))
        changed = {name: value for name, value in fields.items() if name not in told or told[name] != value}
        told.update(changed)
        return changed


class _Lines:
    """The lines of one step's log; a line is sent when it is whole, so that no colour is cut in two."""

    def __init__(self) -> None:
        self._events = 0
        self._rest = b""

    def new(self, step: StepView) -> str:
        """What has come since the last call, as HTML."""
        data = self._rest + b"".join(event.data for event in step.log[self._events :])
        self._events = len(step.log)
        whole, newline, self._rest = data.rpartition(b"\n")
        if step.state.ended and self._rest:
            whole, newline, self._rest = data, b"\n", b""
        if not newline:
            return ""
        text = whole[-MOST_LOG:] if len(whole) <= MOST_LOG else whole[-MOST_LOG:].partition(b"\n")[2]
        return "".join(f"{ansi.to_html(line)}\n" for line in text.decode("utf-8", "replace").split("\n"))


def _id(digest: Digest) -> str:
    return digest.rpartition(":")[2][:16]


def _head(view: BuildView, now: float) -> Message:
    counts = view.counts()
    first = sentence.headline(view, counts=counts)
    return {
        "state": str(first.state),
        "sign": palette.LOOKS[first.state].sign,
        "subject": first.subject,
        "verdict": first.verdict,
        "parts": list(first.parts),
        "done": sum(n for state, n in counts.items() if state.ended),
        "total": sum(counts.values()),
    }


def _step(view: BuildView, step: StepView, told: Message) -> Message:
    fields: Message = {
        "state": str(step.state),
        "status": boxes.status(step),
        "started": step.started,
        "completed": step.completed,
        "size": step.size,
        "result": step.result,
        "keys": list(step.keys[:6]),
        "note": step.note,
        "error": step.error if step.state is State.FAILED else "",
        "pulls": [_pull(status) for status in list(step.statuses.values())[-MOST_PULLS:]],
        "waits": [[wait.cause, wait.started, wait.ended] for wait in step.waits[-6:]],
    }
    if "label" not in told or (view.dockerfile and not told.get("lines")):
        shown = excerpt.lines_of(view.dockerfile, step.ranges, context=0)
        fields["label"] = "context" if step.kind == "local" else amounts.cut(step.label, 200)
        fields["digest"] = str(step.digest)
        fields["lines"] = "\n".join(f"{line.number:4}  {line.text}" for line in shown)[:4000]
    return fields


def _pull(status: StatusEvent) -> list[Any]:
    name = status.id
    if name.startswith("sha256:"):
        name = amounts.short(name, 12)
    return [amounts.cut(ansi.plain(name), 40), status.current, status.total, status.completed is not None]
