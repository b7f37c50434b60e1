"""Patterns beyond the measured cases: the corners that come from Go's regular expressions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bknb.patterns import PatternError, PatternMatcher, clean_path, read_ignore_file
from bknb.patterns.goregex import GoRegex, GoRegexError, _run
from bknb.patterns.matcher import _translate

PIECES = [
    "a",
    "b",
    "*",
    "**",
    "/",
    "?",
    "[ab]",
    "[^a]",
    "^",
    "|",
    "{2}",
    "{1,2}",
    r"\d",
    r"\b",
    "[",
    "]",
    ".",
    "-",
]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"\d*", ["1", "12", "1a"], ["d", "a1"]),
        (r"\x41*", ["A", "Ab"], ["x41"]),
        (r"x\Qa", ["xa$"], ["xa"]),
        ("[[:digit:]]", ["7"], ["d", ":"]),
        ("[^a]", ["b", "é"], ["a", "bb"]),
        ("a|b*", ["a/x", "azz", "zb", "x/bcd"], ["z", "x/y"]),
        ("a{2,3}*", ["aa", "aaab"], ["a", "a{2,3}"]),
        ("^a*", ["abc"], ["^abc"]),
        ("a^b*", [], ["a^b", "ab"]),
        ("\\p{Lu}*", ["Ab"], ["ab", "1"]),
        ("a{b*", ["a{b", "a{bc"], ["ab"]),
        ("[a*]x", ["a]x", "a/[]x"], ["bx"]),
        ("{a,b}", ["{a,b}"], ["a"]),
        ("caf?", ["café", "caf\udce9"], ["caf"]),
    ],
)
def test_what_go_would_match(pattern: str, yes: list[str], no: list[str]) -> None:
    """Escapes, classes, alternatives and repetitions reach Go's regular expressions as they are."""
    matcher = PatternMatcher.parse([pattern])
    assert [path for path in yes if not matcher.patterns[0].match(path)] == []
    assert [path for path in no if matcher.patterns[0].match(path)] == []


@pytest.mark.parametrize(
    "pattern", [r"\q*", r"\é*", "*{2}", "a{1001}*", "[[:nope:]]", r"\p{Greek}*", "a|{2}*"]
)
def test_some_errors_come_at_the_first_match(pattern: str) -> None:
    """Where the pattern is fine and its regular expression is not."""
    matcher = PatternMatcher.parse([pattern])
    with pytest.raises(PatternError, match="syntax error in pattern"):
        matcher.matches("a")


@pytest.mark.parametrize(
    "pattern", ["[", "[]", "[a", "[a-]", "[-a]", "a\\", "[\\", "[a*", "[\udcff]", "[^]a]"]
)
def test_some_errors_come_at_once(pattern: str) -> None:
    """Where filepath.Match says so."""
    with pytest.raises(PatternError, match="syntax error in pattern"):
        PatternMatcher.parse([pattern])


def test_a_check_ends_where_nothing_matches() -> None:
    """Behind the first chunk that does not match ".", filepath.Match reads no further, and no more do we."""
    with pytest.raises(PatternError):
        PatternMatcher.parse(["*[]a]"])
    assert not PatternMatcher.parse(["x*[]a]"]).exclusions


def test_walking_down_differs_from_asking_once() -> None:
    """A folder matched by an earlier pattern stays matched below one that takes its parent back."""
    matcher = PatternMatcher.parse(["dir/sub", "!dir"])
    _, top = matcher.walk("dir")
    _, sub = matcher.walk("dir/sub", top)
    assert matcher.walk("dir/sub/a", sub)[0] is True
    assert matcher.matches("dir/sub/a") is False


def test_many_stars_are_quick() -> None:
    """No pattern takes more than a moment for a path as long as Linux allows."""
    start = time.process_time()
    for pattern, path in (("*a" * 20 + "b", "a" * 255), ("**/a" * 20 + "/b*", "a/" * 2000)):
        PatternMatcher.parse([pattern]).patterns[0].match(path)
    assert time.process_time() - start < 5


@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join),
    st.text(alphabet="ab/2]\n", max_size=9),
)
def test_both_engines_agree(pattern: str, text: str) -> None:
    """Running over all positions at once finds what backtracking finds."""
    try:
        kind, source = _translate(pattern)
        regex = GoRegex.parse(source)
    except GoRegexError:
        return
    assert any(_run(tokens, text) for tokens in regex.alternatives) == (
        regex.compiled.search(text) is not None
    )
    assert kind in ("exact", "prefix", "suffix", "regex")


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=20))
def test_any_pattern_is_read_or_an_error(patterns: list[str], path: str) -> None:
    """No other exception."""
    try:
        PatternMatcher.parse(patterns).matches(path)
    except PatternError as error:
        assert str(error)


def test_ignore_files() -> None:
    """Comments only at the start of a line; cleaned, relative, trimmed; `!` kept."""
    assert read_ignore_file(b"\xef\xbb\xbf#c\r\n a \r\n /x/ \n! /y//z\n!\n#d\n  # e\n\n/\n") == [
        "a", "x", "!y/z", "!", "# e", "/",
    ]  # fmt: skip
    assert read_ignore_file(b"caf\xe9") == ["caf\udce9"]
    with pytest.raises(PatternError, match="token too long"):
        read_ignore_file(b"x" * 65536)


@given(st.text(alphabet="a./", max_size=12))
def test_a_clean_path_is_clean(path: str) -> None:
    """Cleaning twice changes nothing, and no part is left that means nothing."""
    clean = clean_path(path)
    assert clean_path(clean) == clean and clean.startswith("/") == path.startswith("/")
    assert "//" not in clean and (clean == "." or "." not in clean.split("/"))
