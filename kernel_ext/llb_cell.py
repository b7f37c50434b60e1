"""Running an ``%%llb`` cell: the notebook's own namespace, the last expression is the graph."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from bknb import llb
from bknb.errors import UsageError
from bknb.llb.vertex import Edge

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def run_llb(shell: InteractiveShell, cell: str) -> Edge | None:
    """Run the cell and return what its last expression builds; None is scratch.

    Raises:
        UsageError: the cell is no Python, or its last line is no graph.
    """
    source = shell.transform_cell(cell)  # type: ignore[no-untyped-call]
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UsageError(f"%%llb, line {error.lineno}: {error.msg}") from None
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        raise UsageError(
            "the last line of %%llb has to be the graph to build: a State, an Edge or a Definition"
        )
    shell.user_ns.setdefault("llb", llb)
    last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "<%%llb>", "exec"), shell.user_ns)
    value = eval(compile(last, "<%%llb>", "eval"), shell.user_ns)
    return as_edge(value)


def as_edge(value: Any) -> Edge | None:
    """The edge that a value stands for.

    Raises:
        UsageError: it is none of State, Edge and Definition.
    """
    if value is None or isinstance(value, Edge):
        return value
    if isinstance(value, bytes):
        return llb.Definition.from_bytes(value).to_edge()
    if isinstance(value, llb.Definition):
        return value.to_edge()
    if isinstance(value, llb.State):
        return value.marshal().to_edge()
    raise UsageError(
        f"the last line of %%llb gives a {type(value).__name__}, not a graph: end with a State, an Edge or a Definition"
    )
