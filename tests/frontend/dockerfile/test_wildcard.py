"""The patterns of `${v#p}`, compared with a regular expression that says the same."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bknb.frontend.dockerfile.wildcard import Wildcard

patterns = st.text(alphabet="ab*?\n", max_size=7)
values = st.text(alphabet="ab\n", max_size=10)


def regex(pattern: str, star: str) -> re.Pattern[str]:
    """The pattern in `re`'s words."""
    return re.compile("".join({"*": star, "?": "."}.get(char, re.escape(char)) for char in pattern))


@given(patterns, values)
def test_matches_are_those_of_a_regular_expression(pattern: str, value: str) -> None:
    """Shortest and longest prefix, and the leftmost match."""
    wildcard = Wildcard.parse(pattern)
    for longest, star in ((False, ".*?"), (True, ".*")):
        found = regex(pattern, star).match(value)
        assert wildcard.prefix(value, longest=longest) == (found.end() if found else None)
    anywhere = regex(pattern, ".*").search(value)
    assert wildcard.search(value) == (anywhere.span() if anywhere else None)


def test_replacing_all_is_go_s_way() -> None:
    """No empty match right behind another; `$0` is the match, other groups are empty, `$$` is a sign."""
    replace = Wildcard.parse
    assert replace("*").replace_all("abc", "x", 99) == "x"
    assert replace("*").replace_all("", "x", 99) == "x"
    assert replace("").replace_all("ab", "-", 99) == "-a-b-"
    assert replace("a").replace_all("aba", "[$0|$1|${name}|$$|$(]", 99) == "[a|||$|$(]b[a|||$|$(]"
