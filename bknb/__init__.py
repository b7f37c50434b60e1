"""BuildKit in Python: Dockerfile, LLB, solver, containers and images, in the process that asks for them.

Importing this package loads nothing of it. Public names come from `bknb.api` when they are first used, so that
`import bknb` costs a notebook no pandas, aiohttp, grpclib or protobuf; `ARCHITECTURE.md` beside this file says
what stands where. In a notebook `%load_ext bknb` registers the magics of `kernel_ext`.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Finds a public name in `bknb.api`; a submodule's name is left to the import system."""
    if name == "cache":  # both: see there
        return importlib.import_module(f"{__name__}.cache")
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is None:
        api = importlib.import_module(f"{__name__}.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names too, for completion; `bknb.api.history` hides behind the package of that name."""
    public = set(importlib.import_module(f"{__name__}.api").__all__) - {"history"}
    return sorted({*globals(), *public})


def load_ipython_extension(shell: object) -> None:
    """Makes `%load_ext bknb` work: hands over to the notebook's side."""
    importlib.import_module("kernel_ext").load_ipython_extension(shell)


def unload_ipython_extension(shell: object) -> None:
    """Makes `%unload_ext bknb` and `%reload_ext bknb` work."""
    importlib.import_module("kernel_ext").unload_ipython_extension(shell)
