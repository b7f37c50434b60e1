"""A colour, a sign and a word for each state.

Colours alone never carry a meaning: each comes with its sign and word. The hues are those of Okabe and Ito's
set, which people with any common colour blindness tell apart.

A picture in an ``<img>`` learns the theme of the page from ``prefers-color-scheme``: browsers take it from
the image's ``color-scheme``, which JupyterLab 4 sets with its theme. Where that fails, the picture is that
of the other theme and reads all the same: boxes are solid and bring the colour of their text, and lines and
labels have one grey that reads on white (4.3 : 1) and on JupyterLab's dark ground (4.4 : 1) alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bknb.display.model import State

INK: Final = "#16181d"
SOFT_INK: Final = "#454a54"
DARK_INK, DARK_SOFT_INK, DARK_GROUND = "#e9ebef", "#b6bcc7", "#15171b"
GREY: Final = "#747a85"
LANE: Final = "#808894"
SANS: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',sans-serif"
MONO: Final = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


@dataclass(frozen=True, slots=True)
class Look:
    """How a state looks.

    Attributes:
        sign: one character.
        word: for a box and a pill.
        fill: of a box; `INK` reads on it.
        line: of a box's edge and of bars.
    """

    sign: str
    word: str
    fill: str
    line: str

    @property
    def dark_fill(self) -> str:
        """The fill on a dark ground; `DARK_INK` reads on it."""
        pairs = zip(_channels(self.line), _channels(DARK_GROUND), strict=True)
        return "#" + "".join(f"{round(0.3 * line + 0.7 * ground):02x}" for line, ground in pairs)

    @property
    def veil(self) -> str:
        """The line's colour as a veil over whatever the ground is."""
        return f"rgba({','.join(map(str, _channels(self.line)))},.2)"


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


LOOKS: Final[Mapping[State, Look]] = {
    State.WAITING: Look("·", "waiting", "#eef0f3", "#9aa0ab"),
    State.RUNNING: Look("▸", "running", "#ffe3a8", "#c77700"),
    State.DEFINITION: Look("=", "cached", "#cfe3f6", "#2272b4"),
    State.CONTENT: Look("≈", "cached by content", "#dcd8f7", "#6a5acd"),
    State.REMOTE: Look("↓", "cached remotely", "#cbe9f0", "#16809c"),
    State.RAN: Look("✓", "ran", "#cdebd9", "#0f8a5b"),
    State.MERGED: Look("⋈", "merged", "#d9ecd0", "#5a8a1f"),
    State.SKIPPED: Look("–", "skipped", "#e6e8ec", "#8a909b"),
    State.COMPILED: Look("◇", "compiled", "#e3ebe9", "#5f8783"),
    State.CANCELLED: Look("⊘", "cancelled", "#ecdfe9", "#97558a"),
    State.FAILED: Look("✗", "failed", "#fbd5c8", "#c43d12"),
    State.WOULD_RUN: Look("▷", "would run", "#fde6c4", "#b8720a"),
    State.WOULD_FAIL: Look("✗", "would fail", "#fbd5c8", "#c43d12"),
    State.OPEN: Look("?", "at run time", "#f6f1bd", "#8b7d00"),
}

REASONS: Final[Mapping[State, str]] = {
    State.WAITING: "waiting",
    State.RUNNING: "running",
    State.DEFINITION: "cached by definition",
    State.CONTENT: "cached by content",
    State.REMOTE: "cached remotely",
    State.RAN: "ran",
    State.MERGED: "merged with its twin",
    State.SKIPPED: "skipped, not needed",
    State.COMPILED: "compiled, not run",
    State.CANCELLED: "cancelled",
    State.FAILED: "failed",
    State.WOULD_RUN: "would run",
    State.WOULD_FAIL: "would fail",
    State.OPEN: "known only at run time",
}
