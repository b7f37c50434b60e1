"""The `--name=value` flags of an instruction, given meaning (frontend/dockerfile/instructions/bflag.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import lower
from bknb.frontend.dockerfile.suggest import search, with_suggestion

Kind = Literal["bool", "string", "strings"]


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of one instruction: name -> values, in the order of their first use."""

    values: Mapping[str, Sequence[str]]

    def text(self, name: str, default: str = "") -> str:
        """A string flag."""
        return self.values[name][0] if name in self.values else default

    def switch(self, name: str) -> bool | None:
        """A bool flag; None if it was not given."""
        return self.values[name][0] == "true" if name in self.values else None

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a flag that may be given more than once."""
        return tuple(self.values.get(name, ()))


def parse_flags(words: Sequence[str], known: Mapping[str, Kind]) -> Flags:
    """Reads the flags of an instruction.

    Args:
        words: each begins with `--`.
        known: the flags that the instruction has.

    Raises:
        DockerfileError: an unknown flag, one given twice, or a value that is missing or wrong.
    """
    values: dict[str, list[str]] = {}
    for word in words:
        if word == "--":
            break
        if not word.startswith("--"):
            raise DockerfileError(f"arg should start with -- : {word}")
        flag, sign, value = word.partition("=")
        name = flag[2:]
        if name not in known:
            raise with_suggestion(f"unknown flag: {flag}", search(name, known))
        kind = known[name]
        if name in values and kind != "strings":
            raise DockerfileError(f"duplicate flag specified: {flag}")
        if (sign and not value) if kind == "bool" else not sign:
            raise DockerfileError(f"missing a value on flag: {flag}")
        if kind == "bool":
            value = _boolean(flag, value)
        values.setdefault(name, []).append(value)
    return Flags(values)


def _boolean(flag: str, value: str) -> str:
    folded = lower(value)
    if folded not in ("", "true", "false"):
        raise DockerfileError(f"expecting boolean value for flag {flag}, not: {value}")
    return folded or "true"
