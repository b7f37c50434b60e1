"""Parsing takes time in proportion to the file, whatever the file is made of."""

from __future__ import annotations

import gc
import math
import time

import pytest

from bknb.frontend.dockerfile.lint import Linter, check_syntax
from bknb.frontend.dockerfile.parser import parse

# What is repeated between a head and a tail.
FAMILIES = {
    "instructions": ("FROM a\n", "RUN x y z\n", ""),
    "stages": ("", "FROM a AS b\n", ""),
    "continuations": ("FROM a\nRUN x", "\\\n", ""),
    "blank continuations": ("FROM a\nRUN x \\\n", "\n", "y"),
    "comments inside": ("FROM a\nRUN x \\\n", "# a\n", "y"),
    "comments": ("", "# a\n", "FROM a"),
    "blank lines": ("", "\n", "FROM a"),
    "a long body": ("FROM a\nCOPY <<-E /x\n", "\tabc def\n", "E\n"),
    "here-documents without an end": ("FROM a\nRUN ", "<<E \\\n", "x\n"),
    "angle brackets": ("FROM a\nRUN ", "<<<<\\\n", "x"),
    "variables beside a here-document": ("FROM a\nRUN <<E ", "${a}$b\\\n", "\nE\n"),
    "nested variables": ("FROM a\nRUN <<E ", "${a:-${\\\n", "\nE\n"),
    "pairs": ("FROM a\nENV ", 'a="b" \\\n', "c=d"),
    "bytes that are not UTF-8": ("FROM a\nENV ", "a=\udcff\udcfe \\\n", "c=d"),
    "arguments": ("FROM a\nARG ", "a \\\n", "b"),
    "onbuild": ("FROM a\n", "ONBUILD \\\n", "RUN x"),
    "a JSON array": ("FROM a\nRUN [", '"a",\\\n', '"b"]'),
    "nested JSON": ("FROM a\nRUN ", "[\\\n", ""),
    "flags": ("FROM a\nCOPY ", "--exclude=a \\\n", " x y"),
    "a long flag": ("FROM a\nCOPY --", "a\\\n", " x y"),
    "mount fields": ("FROM a\nRUN --mount=", "type=x,\\\n", " x"),
    "a duration": ("FROM a\nHEALTHCHECK --interval=", "1s\\\n", " CMD x"),
    "unknown words": ("FROM a\n", "RNU a\n", ""),
    "no stage": ("", "RUN a\n", ""),
    "a JSON file": ('{"a":[', "1,", "1]}"),
    "spaces behind a directive": ("# syntax=a", " " * 60_000 + "b\n", ""),
}


def seconds(family: str, size: int) -> float:
    """The best of three runs."""
    head, part, tail = FAMILIES[family]
    text = (head + part * (size // len(part)) + tail).encode("utf-8", "surrogateescape")
    best = math.inf
    for _ in range(3):
        gc.collect()
        gc.disable()
        start = time.process_time()
        dockerfile = parse(text)
        check_syntax(dockerfile, Linter())
        best = min(best, time.process_time() - start)
        gc.enable()
    return best


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_time_is_linear(family: str) -> None:
    """The slope of log time over log size is that of a line, beyond what is too short to measure."""
    small, large = seconds(family, 125_000), seconds(family, 1_000_000)
    assert large < 10
    assert large < 0.02 or math.log(large / small) / math.log(8) < 1.2
