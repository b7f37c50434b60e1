"""Wildcards as Go matches them, and modes as chmod reads them."""

from __future__ import annotations

import time

import pytest

from bknb.shim import filemode, wildcards
from bknb.shim.server import Failure


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a/b", False), ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False), ("a*b*c*d*e*", "axbxcxdxexxx", True), ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False), ("ab[c]", "abc", True), ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False), ("ab[^c]", "abc", False), ("ab[^b-d]", "abc", False), ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True), ("a\\*b", "ab", False), ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True),
        ("a?b", "a/b", False), ("a*b", "a/b", False), ("[\\]a]", "]", True), ("[\\-]", "-", True),
        ("[]a]", "]", False), ("[-]", "-", False), ("[x-]", "x", False), ("[-x]", "-", False), ("\\", "a", False),
        ("[", "a", False), ("[^bc", "a", False), ("*x", "xxx", True), ("**", "abc", True), ("a[^x]b", "a/b", True),
    ],
)  # fmt: skip
def test_matching(pattern: str, name: str, matches: bool) -> None:
    """The table of Go's path/filepath tests; what is malformed matches nothing."""
    compiled = wildcards.compile_match(pattern)
    assert (compiled is not None and compiled.fullmatch(name) is not None) is matches


def test_no_pattern_is_slow() -> None:
    """A pattern made to be tried over and over is not."""
    compiled = wildcards.compile_match("*a" * 40 + "b")
    assert compiled is not None
    begun = time.process_time()
    assert not compiled.fullmatch("a" * 250)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("755", 0o100600, 0o755), ("4755", 0o100600, 0o4755), ("u=rwX,go=rX", 0o100644, 0o644),
        ("u=rwX,go=rX", 0o100744, 0o755), ("u=rwX,go=rX", 0o040700, 0o755), ("a+x", 0o100644, 0o755),
        ("+x", 0o100644, 0o755), ("g=u", 0o100640, 0o660), ("o=g-w", 0o100660, 0o664), ("u+s", 0o100755, 0o4755),
        ("o+s", 0o100755, 0o755), ("+t", 0o040755, 0o1755), ("go-w", 0o100666, 0o644), ("a-X", 0o100755, 0o644),
        ("u=", 0o100755, 0o055), ("u+w-x", 0o100555, 0o655), ("=r", 0o104755, 0o444),
    ],
)  # fmt: skip
def test_modes(text: str, before: int, after: int) -> None:
    """Symbolic and octal modes on files and directories."""
    assert oct(filemode.apply(text, before)) == oct(after)


@pytest.mark.parametrize("text", ["", "x", "u", "8", "77777", "u+q", "u=r,", "a=rw,+", "u~x", "0o755"])
def test_bad_modes(text: str) -> None:
    """What is no mode is one line."""
    if text == "a=rw,+":  # an operator without permissions changes nothing
        assert filemode.apply(text, 0o600) == 0o666
        return
    with pytest.raises(Failure, match="invalid mode"):
        filemode.apply(text, 0o600)
