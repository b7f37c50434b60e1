"""bknb's answers to the conformance cases: one function for each group.

Each takes one case's `request` and returns what its `expected` holds. The work is the product's own; what
is written here and in `groups/` only translates. A group is there when its module in `groups/` is.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
if str(ROOT) not in sys.path:  # also when this file is loaded by its path alone
    sys.path.insert(0, str(ROOT))


def llb(request: dict[str, Any]) -> dict[str, Any]:
    """Dockerfile -> LLB definition, image config, warnings, errors."""
    return _answer("llb", request)


def parse(request: dict[str, Any]) -> dict[str, Any]:
    """Dockerfile text -> syntax tree and instruction list."""
    return _answer("parse", request)


def shlex(request: dict[str, Any]) -> dict[str, Any]:
    """Word and environment -> expansion."""
    return _answer("shlex", request)


def ignore(request: dict[str, Any]) -> dict[str, Any]:
    """Ignore patterns and paths -> matched or not."""
    return _answer("ignore", request)


def contenthash(request: dict[str, Any]) -> dict[str, Any]:
    """File tree and query -> content checksum."""
    return _answer("contenthash", request)


def cachemap(request: dict[str, Any]) -> dict[str, Any]:
    """One op -> cache map digest and what each input contributes."""
    return _answer("cachemap", request)


def sourcekey(request: dict[str, Any]) -> dict[str, Any]:
    """One source op and what it resolved to -> cache key."""
    return _answer("sourcekey", request)


def _answer(group: str, request: dict[str, Any]) -> dict[str, Any]:
    module = importlib.import_module(f"tests.conformance.groups.{group}")
    answer: dict[str, Any] = getattr(module, group)(request)
    return answer
