"""Plain progress is BuildKit's, line for line."""

from __future__ import annotations

import re

from bknb.digest import Digest
from bknb.display.plain import PlainProgress
from bknb.events import Event, LogEvent, Outcome, VertexEvent
from tests.display import streams

A, B = Digest.of_text("a"), Digest.of_text("b")


def printed(events: list[Event], batch: int = 1) -> str:
    """What is printed for a stream that is fed in batches."""
    parts: list[str] = []
    progress = PlainProgress(parts.append)
    for at in range(0, len(events), batch):
        progress.feed(events[at : at + batch])
    progress.finish()
    return "".join(parts)


def test_a_build() -> None:
    """Steps are numbered as they are first printed; logs have their time; the end is DONE or CACHED."""
    events: list[Event] = [
        VertexEvent(A, "[1/2] FROM x", started=10.0, completed=10.2, outcome=Outcome.DEFINITION),
        VertexEvent(B, "[2/2] RUN make", (A,), started=11.0),
        LogEvent(B, 1, b"hello\nwor", 11.1234),
        LogEvent(B, 1, b"ld\n", 11.2),
        LogEvent(B, 2, b"last", 21.5),
        VertexEvent(B, "[2/2] RUN make", (A,), started=11.0, completed=22.0, outcome=Outcome.RAN),
    ]
    assert printed(events) == (
        "#1 [1/2] FROM x\n#1 CACHED\n\n#2 [2/2] RUN make\n#2 0.123 hello\n#2 0.123 world\n#2 10.50 last\n"
        "#2 DONE 11.0s\n"
    )


def test_a_failure() -> None:
    """The failed step is repeated with its last ten lines and the Dockerfile's line."""
    text = printed(streams.failed())
    error = 'ERROR: process "/bin/sh -c python -m build" did not complete successfully: exit code: 1'
    assert re.search(rf"^#\d+ {re.escape(error)}$", text, re.MULTILINE)
    block = text[text.index("------\n > [build 6/6] RUN python -m build:\n") :]
    assert block.count("\n------\n") == 1
    assert "ModuleNotFoundError: No module named 'versioning'\n" in block
    assert "Dockerfile:6\n--------------------\n   4 |     RUN pip" in block
    assert "   6 | >>> RUN python -m build\n" in block


def test_blocks_stay_whole() -> None:
    """A step that runs keeps its block; another speaks when it has ended, or the first has."""
    text = printed(streams.first())
    heads = [line for line in text.splitlines() if line.endswith(" ...")]
    assert len(heads) <= 16
    assert text.count("DONE") == 9
    assert re.search(r"^#\d+ mirror 127.0.0.1:5000$", text, re.MULTILINE)


def test_every_line_is_numbered() -> None:
    """Before the closing blocks, each line is empty or begins with its step's number."""
    for name in ("first", "cached", "large"):
        for line in printed(getattr(streams, name)(), batch=20).splitlines():
            assert line == "" or re.match(r"#\d+ ", line), line


def test_hostile_logs() -> None:
    """No escape sequence and no carriage return reaches the terminal."""
    text = printed(streams.hostile())
    assert not set(text) & {chr(c) for c in range(32) if c != 10}
    assert "#2 0.167 100%\n" in text or " 100%\n" in text
