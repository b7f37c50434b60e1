"""Errors as a cell shows them: what went wrong, not where in Python."""

from __future__ import annotations

from bknb.display import excerpt_text
from bknb.errors import BknbError, BuildCancelled, BuildError


class CellError(BuildError):
    """A failed build in a cell: its traceback is the excerpt and the last log lines."""

    def _render_traceback_(self) -> list[str]:
        lines = [f"BuildError: {self.message}"]
        if self.result is not None:
            lines += excerpt_text(self.result.view).splitlines()
        return lines


class CellCancelled(BuildCancelled):
    """A stopped build in a cell: one line."""

    def _render_traceback_(self) -> list[str]:
        return [self.message]


class CellFailure(BknbError):
    """Any other error of bknb in a cell: one line."""

    def _render_traceback_(self) -> list[str]:
        return [self.message]


def for_cell(error: BaseException) -> BaseException:
    """The same error, shown shortly."""
    if isinstance(error, BuildCancelled):
        return CellCancelled(error.message, clean=error.clean)
    if isinstance(error, BuildError):
        return CellError(error.message, result=error.result, step=error.step)
    if isinstance(error, BknbError):
        return CellFailure(error.message)
    return error
