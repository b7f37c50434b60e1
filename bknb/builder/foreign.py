"""A machine that is no Linux: everything that needs no container works, the rest says what would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bknb.errors import UnsupportedError
from bknb.protocols import ExitStatus, Isolation, Output, Process


@dataclass(frozen=True, slots=True)
class ForeignShim:
    """Stands where the shim and the executor are elsewhere; `system` is the operating system's name."""

    system: str

    @property
    def isolation(self) -> Isolation:
        """No namespaces, no containers."""
        return Isolation("foreign", notes=(str(self._refusal()),))

    async def probe(self) -> Isolation:
        """There is nothing to find out."""
        return self.isolation

    async def call(self, op: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Nothing that touches files of a result can be done.

        Raises:
            UnsupportedError: always, but for tidying up where nothing was made.
        """
        if op == "trees.remove":  # its answer: what could not be removed
            return []
        raise self._refusal()

    async def run(self, process: Process, output: Output, *, stdin: bytes = b"") -> ExitStatus:
        """Raises: UnsupportedError: always."""
        raise self._refusal()

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            f"steps run on Linux, and this is {self.system}: compile with --llb and look; "
            "%bknb builder create, for a buildkitd on a Linux machine, is to come"
        )
