"""Why a build did what it did, as far as it is shown: found out elsewhere, and passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bknb.digest import Digest
from bknb.display import amounts
from bknb.display.markup import words

SHORT: Final = 60
"""Characters of a cell."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """What is said of a build and of its steps.

    Attributes:
        line: the second line of the picture.
        strong: the part of it that is shown strong.
        steps: for the table's column, by step; nothing for what is as it was.
    """

    line: str = ""
    strong: str = ""
    steps: Mapping[Digest, str] = field(default_factory=dict)

    def short(self, step: Digest) -> str:
        """The cell of a step."""
        return amounts.cut(self.steps.get(step, ""), SHORT)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"line": self.line, "strong": self.strong, "steps": dict(self.steps)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reasons:
        """The reasons that `to_json` wrote; what is no text is passed over."""
        steps = values.get("steps")
        said = steps.items() if isinstance(steps, Mapping) else ()
        return cls(
            str(values.get("line", "")),
            str(values.get("strong", "")),
            {Digest(str(step)): str(why) for step, why in said},
        )

    @property
    def html(self) -> str:
        """The line, for a page."""
        before, found, after = (
            amounts.cut(self.line, 400).partition(self.strong) if self.strong else (self.line, "", "")
        )
        return (
            f"{words(before)}<b>{words(found)}</b>{words(after)}"
            if found
            else words(amounts.cut(self.line, 400))
        )
