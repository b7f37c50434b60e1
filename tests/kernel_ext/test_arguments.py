"""Python values in a build's words."""

from __future__ import annotations

import pytest

from bknb.errors import UsageError
from bknb.options import parse
from kernel_ext.arguments import evaluate


def test_expressions_and_variables() -> None:
    """{expression} is evaluated, a lone name takes the variable, {{ is a brace, the rest is text."""
    found = evaluate(
        parse(
            "--build-arg 'A={1 + x}' --build-arg x --build-arg 'B={{y}}' --build-arg C=$HOME --build-arg none"
        ),
        {"x": 2},
    )
    assert found.build_args == {"A": "3", "x": "2", "B": "{y}", "C": "$HOME"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("A={nope}", "name 'nope' is not defined; run the cell"),
        ("A={1 +}", "not a Python expression"),
        ("A={1/0}", "ZeroDivisionError"),
    ],
)
def test_a_wrong_expression_is_one_line(word: str, message: str) -> None:
    """The line names the argument and what is wrong with it."""
    with pytest.raises(UsageError) as caught:
        evaluate(parse(["--build-arg", word]), {})
    assert message in str(caught.value) and "\n" not in str(caught.value)
