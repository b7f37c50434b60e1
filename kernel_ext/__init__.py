"""bknb in IPython: ``%load_ext bknb`` brings ``%%dockerfile``, ``%%llb`` and ``%bknb``.

- `magics`: words in, builds out; no logic of its own
- `settings`: what ``%config Bknb`` shows
- `live`, `widget`: the view of a running build         - `formatters`: how results are shown
- `notebook`: which notebook this is, and what of its folder is no source
- `complete`: what Tab offers inside of a cell
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_NAME = "bknb"


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register everything, once: loading again changes nothing."""
    from kernel_ext.magics import BknbMagics

    if getattr(shell, "_bknb_magics", None) is None:
        magics = BknbMagics(shell)
        shell._bknb_magics = magics  # type: ignore[attr-defined]
        magics.register()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take everything back, and end the builder."""
    magics = getattr(shell, "_bknb_magics", None)
    if magics is not None:
        shell._bknb_magics = None  # type: ignore[attr-defined]
        magics.unregister()
