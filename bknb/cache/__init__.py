"""What was done before, and where its results are.

`store` remembers keys and results. `contenthash` says what is in a tree of files (`entries`: what is known of a
path; `paths`: all of them, through changes; `selection`: those that a query takes). `refs` holds the results
themselves (`handles`: counted holds; `records`: their rows; `making`: how they become files and blobs; `chain`:
the layers that they are made of), and `folders` the directories that steps keep between builds. `contents` reads
all of it for tables.

People write ``bknb.cache()``: a package cannot share its name with a function, so this one can be called.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The cache as DataFrames: `bknb.api.cache`."""
        return importlib.import_module("bknb.api").cache(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
