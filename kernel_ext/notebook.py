"""Which notebook this kernel belongs to, and what of its folder is no source of a build."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

CHECKPOINTS = "**/.ipynb_checkpoints"


def notebook_path(environ: Mapping[str, str], user_ns: Mapping[str, Any]) -> str:
    """Absolute path of the open notebook, or "" where the front end does not say.

    Jupyter Server names it in ``JPY_SESSION_NAME``, VS Code in a variable of the user's namespace.
    """
    named = str(user_ns.get("__vsc_ipynb_file__", "")) or environ.get("JPY_SESSION_NAME", "")
    if not named.endswith(".ipynb"):
        return ""
    path = (
        named
        if os.path.isabs(named) and os.path.exists(named)
        else os.path.join(os.getcwd(), os.path.basename(named))
    )
    return os.path.abspath(path)


def withheld(context: str, notebook: str) -> tuple[str, ...]:
    """Patterns that the session keeps out of a context: each autosave would change it otherwise."""
    patterns = [CHECKPOINTS]
    if notebook:
        relative = os.path.relpath(notebook, context)
        if not relative.startswith(".."):
            patterns.append(_escape(relative))
    return tuple(patterns)


def _escape(path: str) -> str:
    return "".join("\\" + c if c in "*?[]\\!" else c for c in path)
