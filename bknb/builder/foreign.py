"""Where no container runs: everything that needs none works, the rest says what would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bknb.errors import UnsupportedError
from bknb.protocols import ExitStatus, Isolation, Output, Process


@dataclass(frozen=True, slots=True)
class ForeignShim:
    """Stands where the shim and the executor are elsewhere; `why` is what a step that would run is told."""

    why: str

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
        return UnsupportedError(self.why)


def no_linux(system: str) -> ForeignShim:
    """For a machine with another operating system, whose name is given."""
    return ForeignShim(
        f"steps run on Linux, and this is {system}: compile with --llb and look; "
        "%bknb builder create, for a buildkitd on a Linux machine, is to come"
    )


def no_runtime() -> ForeignShim:
    """For a builder that was told to run nothing."""
    return ForeignShim("this builder only compiles: it was opened with runtime none")
