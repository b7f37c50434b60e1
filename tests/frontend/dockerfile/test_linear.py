"""Compiling takes time in proportion to the file, whatever the file is made of."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import math
import time
from collections.abc import Callable

import pytest

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.frontend.dockerfile.lint import Linter, check_syntax
from bknb.frontend.dockerfile.parser import parse
from bknb.llb import Definition
from bknb.platforms import Platform
from bknb.protocols import FrontendRequest
from tests.conformance.groups.llb import MeasuredBridge

STEEPEST = 1.1

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


# One instruction on many lines: what is repeated between a head and a tail.
ONE = {
    "RUN": ("RUN ", "a b c d e f \\\n", "x"),
    "RUN of here-documents": ("RUN ", "<<E <<E <<E \\\n", "\n" + "E\n" * 270_000),
    "COPY of here-documents": ("COPY ", "<<E <<E <<E \\\n", "/x/\n" + "E\n" * 270_000),
    "COPY": ("COPY ", "a b c d \\\n", "/x/"),
    "ENV": ("ENV ", "a=b b=$a \\\n", "x=y"),
    "ENV of one variable": ("ENV ", "a=$b \\\n", "x=y"),
    "LABEL": ("LABEL ", 'a="b c" b=d \\\n', "x=y"),
    "ARG": ("ARG ", "a b=$c \\\n", "x=y"),
    "EXPOSE": ("EXPOSE ", "80 81/udp \\\n", "82"),
    "VOLUME": ("VOLUME ", "/a /b \\\n", "/c"),
    "CMD": ("CMD [", '"a", "b",\\\n', '"c"]'),
    "mounts": ("RUN ", "--mount=type=tmpfs,target=/a \\\n", "x"),
    "nested defaults": ("ENV a=", "${b:-\\\n", "x"),
}
# Instructions that are compiled, one on the other.
COMPILED = {
    "RUN": ("FROM a\n", "RUN true\n"),
    "COPY": ("FROM a\n", "COPY a b\n"),
    "ENV": ("FROM a\n", "ENV a=$a\n"),
    "ARG": ("FROM a\n", "ARG a=b\n"),
    "WORKDIR": ("FROM a\n", "WORKDIR /b\n"),
    "stages": ("", "FROM a AS b\n"),
}


def processor_seconds(act: Callable[[], object]) -> float:
    """The best of three runs, in CPU time."""
    best = math.inf
    for _ in range(3):
        gc.collect()
        gc.disable()
        start = time.process_time()
        act()
        best = min(best, time.process_time() - start)
        gc.enable()
    return best


def slope(measure: Callable[[int], float], small: int, large: int) -> float:
    """Of log time over log size; what is too short to measure has none. A busy machine is asked three times."""
    best = math.inf
    for _ in range(3):
        first, second = measure(small), measure(large)
        assert second < 10
        if second < 0.02:
            return 0.0
        best = min(best, math.log(second / first) / math.log(large / small))
        if best <= STEEPEST:
            break
    return best


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_parsing_is_linear(family: str) -> None:
    """From an eighth of a megabyte to a whole one, whatever is repeated."""
    head, part, tail = FAMILIES[family]

    def measure(size: int) -> float:
        text = (head + part * (size // len(part)) + tail).encode("utf-8", "surrogateescape")
        return processor_seconds(lambda: check_syntax(parse(text), Linter()))

    assert slope(measure, 125_000, 1_000_000) <= STEEPEST


@pytest.mark.slow
@pytest.mark.parametrize("family", COMPILED)
def test_compiling_is_linear(family: str) -> None:
    """From 500 to 4,000 instructions, to the definition."""
    head, part = COMPILED[family]
    assert (
        slope(lambda n: processor_seconds(lambda: compiled((head + part * n).encode())), 500, 4_000)
        <= STEEPEST
    )


@pytest.mark.slow
@pytest.mark.parametrize("instruction", ONE)
def test_one_instruction_of_a_megabyte(instruction: str) -> None:
    """It compiles, or is refused, in two seconds of CPU time."""
    head, part, tail = ONE[instruction]
    text = f"FROM a\n{head}{part * ((1_000_000 - len(tail)) // len(part))}{tail}\n".encode()
    assert len(text) > 900_000
    assert processor_seconds(lambda: compiled(text)) <= 2


def compiled(text: bytes) -> None:
    """Compile a file as a build does."""
    frontend = DockerfileFrontend(built_in=lambda image: False, host=Platform("linux", "amd64"))
    bridge = MeasuredBridge({"dockerfile_b64": base64.b64encode(text)})
    # Not asyncio.run: where signals are, Python 3.11 writes out the repr of the task, and with it the whole graph.
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), contextlib.suppress(DockerfileError):
        for one in loop.run_until_complete(frontend.solve(FrontendRequest({}), bridge)).results:
            Definition.from_edge(one.edge)
