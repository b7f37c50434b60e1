"""The typed tree, its errors, and what happens behind an error."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bknb.errors import DockerfileError, Range
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.instructions import NAMES
from bknb.frontend.dockerfile.parser import MAX_ERRORS, parse, parse_trigger

WORDS = [
    *NAMES, "run", "# escape=`\n", "# syntax=a\n", "#", "\n", "\n", "\\\n", "`\n", "\r", " ", "\t", "FROM a\n", "AS",
    "--from=a", "--mount=type=cache,", '"', "'", "[", "]", '"a"', ",", "<<EOF", "<<-'E'", "EOF\n", "E\n", "$A", "${A",
    "=", "a", "é", "\udcff", "\x00", "\ufeff", "CMD", "NONE", "1",
]  # fmt: skip


def one(text: str) -> ast.Command:
    """The command of a file that has one."""
    dockerfile = parse(f"FROM a\n{text}")
    dockerfile.check()
    return dockerfile.stages[0].commands[0]


def message(text: str) -> str:
    """The error of a file."""
    with pytest.raises(DockerfileError) as caught:
        parse(text).check()
    return caught.value.message


def test_copy_is_typed() -> None:
    """Flags, sources, here-documents and the place of them."""
    command = one(
        "COPY --from=b --chown=1:2 --link=false --parents --exclude=x --exclude=y a <<-E /d/\n\tx\nE\n"
    )
    assert isinstance(command, ast.Copy)
    assert (command.from_, command.chown, command.link, command.parents) == ("b", "1:2", False, True)
    assert (command.exclude, command.sources, command.dest) == (("x", "y"), ("a",), "/d/")
    assert command.files == (ast.InlineFile("E", "x\n", expand=True),)
    assert command.ranges == tuple(Range(line, 0, line, 0) for line in (2, 3, 4))


def test_add_tells_given_from_not_given() -> None:
    """Where a flag's default depends on the source, not given is None."""
    command = one("ADD --unpack=false --checksum=sha256:0 u d")
    assert isinstance(command, ast.Add)
    assert (command.unpack, command.keep_git_dir, command.checksum) == (False, None, "sha256:0")


def test_run_is_typed() -> None:
    """Mounts are kept until their variables have values; the rest is read."""
    command = one("RUN --mount=type=cache,target=/$X --network=none --device=name=gpu,required make all")
    assert isinstance(command, ast.Run)
    assert command.mounts == (ast.MountFlag("type=cache,target=/$X", ("type=cache", "target=/$X")),)
    assert (command.network, command.security, command.args, command.shell_form) == (
        "none", "sandbox", ("make all",), True,
    )  # fmt: skip
    assert command.devices == (ast.Device("gpu", required=True),)
    assert command.flags_used == ("mount", "network", "device")


def test_stages_and_global_args() -> None:
    """ARGs before the first FROM are global; a stage has its name in lower case and its description."""
    found = parse(
        "ARG V=1\n# Build compiles\n# build runs gcc\nFROM --platform=$P img:$V as Build\nARG V\nFROM build\n"
    )
    assert [arg.args for arg in found.meta_args] == [(ast.ArgDefinition("V", "1"),)]
    head = found.stages[0].head
    assert (head.base, head.name, head.platform, head.doc) == ("img:$V", "build", "$P", "runs gcc")
    assert found.stages[1].head.base == "build" and not found.stages[1].commands


def test_healthcheck_durations() -> None:
    """Durations are nanoseconds, and Go's messages are kept."""
    command = one("HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD curl x")
    assert isinstance(command, ast.Healthcheck)
    assert (command.interval, command.timeout, command.retries) == (90 * 10**9, 1_500_000_000, 3)
    assert command.test == ("CMD-SHELL", "curl x")
    prefix = "dockerfile parse error on line 2: "
    for flag, text in {
        "--interval=1": 'time: missing unit in duration "1"',
        "--interval=1x": 'time: unknown unit "x" in duration "1x"',
        "--interval=.": 'time: invalid duration "."',
        "--timeout=1us": 'Interval "timeout" cannot be less than 1ms',
        "--retries=x": 'strconv.ParseInt: parsing "x": invalid syntax',
        "--retries=-1": "--retries cannot be negative (-1)",
        "--retries=3000000000": 'strconv.ParseInt: parsing "3000000000": value out of range',
    }.items():
        assert message(f"FROM a\nHEALTHCHECK {flag} CMD x") == prefix + text


def test_onbuild_keeps_its_here_document() -> None:
    """The trigger is what the image's configuration will hold, and reads as an instruction of its own."""
    command = one("ONBUILD  RUN <<E\nmake\nE\n")
    assert isinstance(command, ast.Onbuild)
    assert command.expression == "RUN <<E\nmake\nE"
    trigger = parse_trigger(command.expression, 7, 8)
    assert isinstance(trigger, ast.Run)
    assert trigger.files[0].content == "make\n" and (trigger.start_line, trigger.end_line) == (7, 8)


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        ("BOGUS x", "unknown instruction: BOGUS"),
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("", "file with no instructions"),
        ("FROM a", "*instructions.Stage is not a command type"),
    ],
)
def test_a_wrong_trigger_is_an_error(trigger: str, text: str) -> None:
    """Triggers come from images, so they may hold anything."""
    with pytest.raises(DockerfileError) as caught:
        parse_trigger(trigger, 1, 1)
    assert caught.value.message == text


def test_behind_an_error_the_rest_is_still_read() -> None:
    """A half-typed file has a tree: the first error is BuildKit's, the rest goes on."""
    found = parse("FROM a b\nRUN x\nENV K\nCOPY one\nFROM c\nRUN <<E\nno end")
    assert [problem.message for problem in found.errors] == [
        "ENV must have two arguments",
        "unterminated heredoc",
        "dockerfile parse error on line 1: FROM requires either one or three arguments",
        (
            "dockerfile parse error on line 4: COPY requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        ),
    ]
    assert [(stage.head.base, len(stage.commands)) for stage in found.stages] == [("a", 1), ("c", 0)]
    assert found.understood == 0


def test_comments_lose_their_first_byte() -> None:
    """Whatever it is: an indented comment keeps its sign, one behind a wide space begins with half of it."""
    found = parse("# a\n  # b\n\u00a0# c\nFROM a\n# d\n#\n#e\nRUN x")
    assert [node.comments for node in found.nodes] == [("a", "# b", "\udca0# c"), ("e",)]


def test_errors_end_somewhere() -> None:
    """A file of nothing but errors is given up."""
    assert len(parse("FROM a\n" + "RNU x\n" * 10_000).errors) == MAX_ERRORS


def test_a_long_line_ends_the_file() -> None:
    """65,535 bytes are a line, one more is none; with a byte order mark, three fewer."""
    for text in ("RUN " + "x" * 65531, "RUN " + "é" * 32765 + "x"):
        assert not parse(f"FROM a\n{text}\n").errors
        found = parse(f"FROM a\n{text}x\nRUN y")
        assert [problem.message for problem in found.errors] == [
            "dockerfile line greater than max allowed size of 65535"
        ]
        assert found.errors[0].ranges == (Range(1, 0, 1, 0),) and len(found.nodes) == 1
    assert parse("\ufeffFROM " + "x" * 65528).errors


@pytest.mark.parametrize(
    ("head", "part", "tail"),
    [
        ("RUN x ", "abc def \\\n", "y\n"),
        ("RUN x", "\\\n", "\n"),
        ("ENV ", 'a="$b" \\\n', "c=d\n"),
        ("COPY ", "<<E a \\\n", "/d\n" + "E\n" * 125_000),
        ("RUN [", '"a",\\\n', '"b"]\n'),
        ("COPY --chown=", "a\\\n", " x y\n"),
        ("RUN <<E\n", "line\n", "E\n"),
        ("ONBUILD ", "ONBUILD \\\n", "RUN x\n"),
    ],
)
def test_a_megabyte_in_one_instruction_is_quick(head: str, part: str, tail: str) -> None:
    """Whatever it is made of."""
    text = f"FROM a\n{head}{part * (1_000_000 // len(part))}{tail}"
    start = time.process_time()
    found = parse(text)
    assert time.process_time() - start < 5
    assert len(found.nodes) == 2


def test_directives_in_all_forms() -> None:
    """`#`, `//`, JSON and behind a shebang; duplicates stop the build, not the search."""
    for text in ("# syntax=a/b c", "// syntax = a/b c", '{"syntax": "a/b c"}', "#!x\n#syntax=a/b c"):
        directive = parse(text).syntax
        assert directive is not None and directive.full == "a/b c"
    assert parse("\n# syntax=a").syntax is None
    assert message("# escape=\\\n# escape=`\nFROM a") == "only one escape parser directive can be used"
    assert message("# escape= \nFROM a") == "invalid escape token ' ' does not match ` or \\"


@given(
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)
    | st.binary(max_size=200)
    | st.text(max_size=100)
)
def test_any_text_parses(text: str | bytes) -> None:
    """Nothing but a DockerfileError comes out, and only when asked for; places lie inside of the file."""
    found = parse(text)
    lines = found.source.count(b"\n") + 1
    for problem in found.errors:
        assert problem.ranges and all(0 <= one.start_line <= lines for one in problem.ranges)
    for node in found.nodes:
        assert 1 <= node.start_line <= node.end_line <= lines
    assert found.dump() or not found.nodes
    try:
        found.check()
    except DockerfileError:
        return
    assert found.understood == len(found.nodes)
