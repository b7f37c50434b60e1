"""The words of a build."""

from __future__ import annotations

import pytest

from bknb.errors import InvalidReference, UnsupportedError, UsageError
from bknb.options import parse, size, wants_help, with_environment


def test_reads_what_docker_buildx_build_takes() -> None:
    """Every kind of option arrives in its field."""
    found = parse(
        "-t app --tag app:2 --target test --build-arg V=1 --build-arg 'W=a b' --label l=1 --platform linux/amd64 "
        "--no-cache-filter base,test --secret id=k,src=f --add-host h:10.0.0.1 --shm-size 64m --ulimit nofile=10:20 "
        "--network none --allow network.host --pull -o type=oci,dest=x.tar --max-parallelism 3 --out result --bg src"
    )
    assert found.tags == ("app", "app:2")
    assert found.build_args == {"V": "1", "W": "a b"}
    assert found.no_cache_filter == ("base", "test")
    assert found.shm_size == 64 << 20
    assert found.ulimits == ("nofile=10:20",)
    assert found.outputs[0].type == "oci" and found.outputs[0].attrs["dest"].endswith("/x.tar")
    assert (found.out, found.background, found.context, found.max_parallelism) == ("result", True, "src", 3)


def test_gives_the_frontend_its_own_words() -> None:
    """The options arrive at the frontend as buildctl would send them."""
    opts = parse(
        "--build-arg V=1 --label a=b --target t --add-host h:10.0.0.1 --no-cache --ulimit nofile=10 --pull"
    ).frontend_opts()
    assert opts == {
        "build-arg:V": "1", "label:a": "b", "target": "t", "add-hosts": "h=10.0.0.1", "no-cache": "",
        "ulimit": "nofile=10:10", "image-resolve-mode": "pull",
    }  # fmt: skip
    assert parse("--check").frontend_opts() == {"requestid": "frontend.lint"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--tga x", "unknown option --tga (did you mean --tag?)"),
        ("a b", "one CONTEXT is enough: 'b'"),
        ("--network bridge", "--network bridge: it is default, none or host"),
        ("--max-parallelism 0", "--max-parallelism: '0' is not a whole number from 1 up"),
        ("--shm-size big", "--shm-size big: it is not a size"),
        ("--platform a/b/c/d", "--platform:"),
        ("-o type=ocy,dest=x", "(did you mean oci?)"),
        ("-o type=oci", "say where it goes"),
        ("--push", "--push needs a name"),
        ("--label =x", "--label =x: write NAME=VALUE"),
        ("'unclosed", "no closing quotation"),
        ("--allow root", "--allow root: it is network.host or security.insecure"),
        ("--call biuld", "(did you mean build?)"),
    ],
)
def test_wrong_words_are_one_line(line: str, message: str) -> None:
    """A word that is not understood is told in one line."""
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "--cache-from type=registry,ref=x",
        "--cache-to x",
        "--builder far",
        "--sbom",
        "--attest type=sbom",
        "--provenance=true",
    ],
)
def test_what_is_not_there_says_so(line: str) -> None:
    """An option that is understood but not there yet is one line that says so."""
    with pytest.raises(UnsupportedError, match="not"):
        parse(line)


def test_attestations_may_be_switched_off() -> None:
    """Scripts that say --provenance=false keep working."""
    assert parse("--provenance=false --sbom=false").context == ""


def test_a_tag_has_to_be_an_image_name() -> None:
    """A tag in capitals is refused before anything runs."""
    with pytest.raises(InvalidReference, match="lowercase"):
        parse("-t App")


def test_the_command_has_no_cell_options() -> None:
    """--out and --bg belong to the cell."""
    with pytest.raises(UsageError, match="unknown option --bg"):
        parse("--bg .", cell=False)


def test_a_lone_build_argument_comes_from_the_environment() -> None:
    """--build-arg NAME takes the variable, and is left out where there is none."""
    assert with_environment(parse("--build-arg A --build-arg B"), {"A": "1"}).build_args == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("10KB", 10240)]
)
def test_sizes(text: str, expected: int) -> None:
    """Sizes are bytes, with binary units."""
    assert size(text, "--x") == expected


def test_help_is_found_anywhere() -> None:
    """--help among other words is help."""
    assert wants_help("-t x --help") and wants_help(["-h"]) and not wants_help("-t helper")
