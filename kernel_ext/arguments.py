"""What a notebook adds to the words of a build: Python values."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from bknb.errors import UsageError
from bknb.options import BuildOptions


def evaluate(options: BuildOptions, namespace: Mapping[str, Any]) -> BuildOptions:
    """Fill in ``--build-arg NAME={expression}`` and a lone ``--build-arg NAME`` from the user's variables.

    Only a value that is wholly in braces is an expression; ``{{`` and ``}}`` are braces. The cell's text is never
    touched.

    Raises:
        UsageError: the expression is no Python, fails, or names what is not defined.
    """
    filled: dict[str, str | None] = {}
    for name, value in options.build_args.items():
        if value is None:
            if name in namespace:
                filled[name] = str(namespace[name])
        elif value.startswith("{") and value.endswith("}") and not value.startswith("{{"):
            filled[name] = _evaluate(name, value[1:-1], namespace)
        else:
            filled[name] = value.replace("{{", "{").replace("}}", "}")
    return dataclasses.replace(options, build_args=filled)


def _evaluate(name: str, expression: str, namespace: Mapping[str, Any]) -> str:
    try:
        code = compile(ast.parse(expression.strip(), mode="eval"), f"--build-arg {name}", "eval")
    except SyntaxError as error:
        raise UsageError(
            f"--build-arg {name}={{{expression}}}: not a Python expression ({error.msg})"
        ) from None
    try:
        return str(eval(code, dict(namespace)))  # the user's own cell asks for it
    except NameError as error:
        raise UsageError(
            f"--build-arg {name}={{{expression}}}: {error}; run the cell that defines it first"
        ) from None
    except Exception as error:
        raise UsageError(f"--build-arg {name}={{{expression}}}: {type(error).__name__}: {error}") from None
