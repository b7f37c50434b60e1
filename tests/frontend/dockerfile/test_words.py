"""Shell words beyond the measured cases."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bknb.frontend.dockerfile.words import MAX_NESTING, Lex, WordError

ENV = {"A": "apple", "E": "", "P": "/usr/local/lib.tar.gz", "R": "<$0>", "é": "accent"}
PIECES = [
    "$",
    "{",
    "}",
    "A",
    "E",
    "N",
    ":-",
    "+",
    "?",
    "#",
    "%",
    "/",
    "*",
    "\\",
    "'",
    '"',
    " ",
    "<<",
    "é",
    "\n",
]


def word(text: str, **flags: bool) -> str:
    """The expansion of a word."""
    return Lex(**flags).process_word(text, ENV).text


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$éa", ""),
        ("$é-", "accent-"),
        ("${é}", "accent"),
        ("$Aé", ""),
        ("\ufeff$A", "apple"),
        ("${P##*/}", "lib.tar.gz"),
        ("${P%%.*}", "/usr/local/lib"),
        ("${P%/*}", "/usr/local"),
        ("${P//[ao]/$0}", "/usr/local/lib.tar.gz"),
        ("${A//p/$R}", "a<p><p>le"),
        ("${A/p/$R}", "a<$0>ple"),
        ("${A//p/${NOPE}x}", "axxle"),
        ("\udcff$A", "\ufffdapple"),
    ],
)
def test_a_word_expands(text: str, expanded: str) -> None:
    """Names, patterns and replacements in the corners of the language."""
    assert word(text) == expanded


def test_unset_variables_may_stay() -> None:
    """With skip_unset_env a reference that has no value stays as it was written, in all its forms."""
    for text in ("$N", "${N}", "${N:-x}", "${N#*/}", "${N/a/b}", "${N:?no}"):
        assert word(text, skip_unset_env=True) == text


def test_names_looked_up_are_told_in_order() -> None:
    """Also where the expansion fails, since warnings about them come all the same."""
    found = Lex().process_word("$N$A${M:-$E}", ENV)
    assert (found.matched, found.unmatched) == (("A", "E"), ("N", "M"))
    with pytest.raises(WordError) as caught:
        Lex().process_word("$N$A${M:?gone}", ENV)
    assert (caught.value.matched, caught.value.unmatched) == (("A",), ("N", "M"))
    assert caught.value.message == 'failed to process "$N$A${M:?gone}": M: gone'


def test_nesting_and_length_have_limits() -> None:
    """A deep word and a word that doubles and doubles are errors, not a crash."""
    assert word("${N:-" * MAX_NESTING + "x" + "}" * MAX_NESTING) == "x"
    with pytest.raises(WordError, match="nested deeper"):
        word("${N:-" * 10_000)
    with pytest.raises(WordError, match="longer than"):
        Lex().process_word("$V" * 100, {"V": "x" * 1_000_000})
    with pytest.raises(WordError, match="longer than"):
        Lex().process_word("${V//x/" + "y" * 1000 + "}", {"V": "x" * 1_000_000})


def test_a_pattern_of_many_stars_is_quick() -> None:
    """Patterns are matched without backtracking."""
    start = time.process_time()
    pattern = "*a" * 30 + "*b"
    for form in (f"${{V#{pattern}}}", f"${{V##{pattern}}}", f"${{V%{pattern}}}", f"${{V//{pattern}/x}}"):
        Lex().process_word(form, {"V": "a" * 20_000})
    assert time.process_time() - start < 2


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_text_expands_or_is_a_word_error(text: str) -> None:
    """No other exception; and without anything special, words are those between the spaces."""
    for lex in (Lex(), Lex("`", raw_quotes=True), Lex(raw_escapes=True, skip_unset_env=True)):
        try:
            lex.process_word(text, ENV)
            lex.process_words(text, ENV)
        except WordError as error:
            assert error.message.startswith("failed to process ")


@given(st.text(alphabet="ab \t\n", max_size=30))
def test_plain_text_falls_into_its_words(text: str) -> None:
    """Text without quotes, escapes and variables is its own expansion."""
    assert word(text) == text
    assert Lex().process_words(text, {}) == text.split()
