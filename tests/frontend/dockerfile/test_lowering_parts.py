"""The small rules of lowering: ports, paths, modes, signals, addresses, names."""

from __future__ import annotations

import pytest

from bknb.errors import DockerfileError, Range
from bknb.frontend.dockerfile import ospath
from bknb.frontend.dockerfile.archives import is_archive, newest_file
from bknb.frontend.dockerfile.checksum import parse_checksum
from bknb.frontend.dockerfile.chmod import check_symbolic_mode
from bknb.frontend.dockerfile.copy import http_filename
from bknb.frontend.dockerfile.expose import parse_ports
from bknb.frontend.dockerfile.folders import follow_paths
from bknb.frontend.dockerfile.gitref import is_http_source, parse_git_ref
from bknb.frontend.dockerfile.image import EnvList, ImageConfig
from bknb.frontend.dockerfile.naming import step_name, summary
from bknb.frontend.dockerfile.places import excerpt
from bknb.frontend.dockerfile.signals import is_signal
from bknb.frontend.dockerfile.stages import BuildStage
from bknb.frontend.dockerfile.syntax import runs_built_in
from bknb.platforms import Platform


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("80", ["80/tcp"]),
        ("8000-8002/UDP", ["8000/udp", "8001/udp", "8002/udp"]),
        ("1.2.3.4:90:80", ["80/tcp"]),
        ("[::1]:80:81", ["81/tcp"]),
        ("80-82:90", ["90/tcp"]),
    ],
)
def test_ports(word: str, wanted: list[str]) -> None:
    """Ranges are written out, hosts and addresses dropped."""
    assert parse_ports([word], lambda rule, word: None) == wanted


@pytest.mark.parametrize("word", ["", "x", "9-8", "65536", "80/x", "a:b:80", "1-2:3-5", "80/tcp/udp", "-1"])
def test_what_is_no_port(word: str) -> None:
    """Each is an error of its own."""
    with pytest.raises(DockerfileError):
        parse_ports([word], lambda rule, word: None)


@pytest.mark.parametrize(
    ("parent", "path", "system", "wanted"),
    [
        ("/w", "a/../b", "linux", "/w/b"),
        ("/w", "C:\\x", "linux", "/w/C:\\x"),
        ("/w", "C:\\x\\y", "windows", "/x/y"),
        ("\\w", "rel", "windows", "/w/rel"),
        ("/w", "c:rel", "windows", "/w/rel"),
        ("", "", "linux", "/"),
    ],
)
def test_paths_of_an_image_s_system(parent: str, path: str, system: str, wanted: str) -> None:
    """Windows has drives and backslashes, Linux has neither."""
    assert ospath.normalize(parent, path, system) == wanted


@pytest.mark.parametrize("path", ["D:\\x", "C:", "\\\\server\\x"])
def test_paths_that_windows_images_refuse(path: str) -> None:
    """Other drives, no path at all, network paths."""
    with pytest.raises(DockerfileError, match="removing drive letter"):
        ospath.normalize("/", path, "windows")


@pytest.mark.parametrize("text", ["u=rwX,go=rX", "+x", "=", "a-w,u+s", "u=g", "go="])
def test_symbolic_modes(text: str) -> None:
    """What chmod takes."""
    check_symbolic_mode(text)


@pytest.mark.parametrize("text", ["u", "z+x", "u+x,", "u+y", "", "9"])
def test_what_is_no_mode(text: str) -> None:
    """And what it does not."""
    with pytest.raises(ValueError, match=r"^(invalid syntax)?$"):
        check_symbolic_mode(text)


def test_signals() -> None:
    """Every signal of Linux by name, any number but zero."""
    assert all(map(is_signal, ("TERM", "sigterm", "SIGRTMIN+15", "RTMAX-14", "9", "-1", "99")))
    assert not any(map(is_signal, ("0", "SIGRTMIN+16", "", "SIG", "9x")))


def test_sources_of_add() -> None:
    """https is git only with .git at the end of its path; github.com/x/y is a path."""
    assert is_http_source("https://example.com/x?y=.git")
    assert not is_http_source("https://example.com/x.git?tag=v1")
    found = parse_git_ref("github.com/x/y")
    assert found is not None
    assert (found.like_local, found.remote) == (True, "github.com/x/y")
    assert parse_git_ref("./x.git") is None


@pytest.mark.parametrize(
    "query", ["ref=a&ref=b", "ref=", "bad=1", "tag=a&branch=b", "mtime=x", "submodules=maybe", "subdir=a#r:b"]
)
def test_wrong_queries_of_a_repository(query: str) -> None:
    """Known to be git's, so the error is told."""
    with pytest.raises(DockerfileError):
        parse_git_ref(f"https://example.com/x.git?{query}")


def test_names_of_downloads_and_their_digests() -> None:
    """The last part of the path; digests in go-digest's words."""
    assert http_filename("https://e.com/a/b/") == "b"
    assert http_filename("https://e.com/%zz") == "__unnamed__"
    for text, words in (
        ("x", "invalid checksum digest format"),
        ("md5:" + "a" * 32, "unsupported digest algorithm"),
        ("sha256:aa", "invalid checksum digest length"),
        ("sha256:" + "Z" * 64, "invalid checksum digest format"),
    ):
        with pytest.raises(DockerfileError, match=words):
            parse_checksum(text)


def test_paths_that_a_context_is_narrowed_to() -> None:
    """Sorted by bytes; the whole is no path."""
    assert follow_paths({"/b", "/a/c", "/é"}) == ["a/c", "b", "é"]
    assert follow_paths({"/b", "/"}) == []


def test_archives_are_known_by_their_first_bytes() -> None:
    """Compressed or plain tar; anything else is a Dockerfile."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("f")
        member.mtime = 77
        archive.addfile(member)
    assert is_archive(out.getvalue()[:1024])
    assert is_archive(b"\x1f\x8b\x08rest")
    assert not is_archive(b"FROM alpine\n")
    assert newest_file(out.getvalue()) == 77
    assert newest_file(b"FROM alpine\n") is None


def test_an_image_config_is_written_as_go_writes_it() -> None:
    """Field order, left-out zeros, times, HTML escapes; names in any case are read."""
    given = b'{"OS":"linux","architecture":"a","created":"2020-01-01T00:00:00.500+00:00","config":{"env":["A=<>"]}}'
    wanted = (
        '{"created":"2020-01-01T00:00:00.5Z","architecture":"a","os":"linux",'
        '"rootfs":{"type":"","diff_ids":null},"config":{"Env":["A=\\u003c\\u003e"]}}'
    )
    assert ImageConfig.parse(given).to_json() == wanted


def test_a_variable_that_is_set_again_keeps_its_place_in_the_image() -> None:
    """Other than in the state of the build."""
    env = EnvList(["A=1", "B=2", "A=3"])
    env.set("A", "4")
    env.set("C", "5")
    assert env.entries == ["A=4", "B=2", "A=3", "C=5"]


def test_step_names() -> None:
    """Numbers in line, the platform, what is crossed to."""
    stage = BuildStage("x", shown="s", steps_total=10)
    platform = Platform("linux", "amd64")
    assert step_name(stage, "RUN x") == "[s  1/10] RUN x"
    crossed = step_name(stage, "RUN y", on_build=True, platform=platform, env={"TARGETARCH": "arm"})
    assert crossed == "[linux/amd64->arm/v7 s  2/10] ONBUILD RUN y"
    windows = {"TARGETPLATFORM": "windows/amd64"}
    assert step_name(stage, "z", platform=platform, env=windows) == "[linux/amd64->windows/amd64 s  3/10] z"
    assert summary("\n a\r\nb") == "a..."


def test_an_excerpt_marks_its_lines() -> None:
    """As BuildKit prints it under an error."""
    text = excerpt("Dockerfile", "a\nb\nc\nd\ne\nf", (Range(3, 0, 3, 0),))
    assert text.splitlines()[0] == "Dockerfile:3"
    assert "   3 | >>> c" in text
    assert "   4 |     d" in text
    assert excerpt("f", "a", ()) == ""


def test_frontends_that_this_one_is() -> None:
    """Releases up to the newest known one, and the moving channels."""
    assert runs_built_in("docker/dockerfile:1.7-labs")
    assert runs_built_in("docker.io/docker/dockerfile:1.26.0-rc1")
    assert not runs_built_in("docker/dockerfile:2")
    assert not runs_built_in("docker/dockerfile@sha256:" + "0" * 64)
    assert not runs_built_in("not a name")
