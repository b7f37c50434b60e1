"""Errors as a cell shows them: what went wrong, not where in Python."""

from __future__ import annotations

from bknb.api import failure_text
from bknb.errors import BknbError, BuildCancelled, BuildError


class CellError(BuildError):
    """A failed build in a cell: its traceback is the excerpt and the last log lines."""

    def _render_traceback_(self) -> list[str]:
        return failure_text(self).splitlines()


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
        shown = CellError(error.message, result=error.result, step=error.step)
        shown.__cause__ = error.__cause__
        return shown
    if isinstance(error, BknbError):
        return CellFailure(error.message)
    return error
