"""The command line, as someone meets it who has just installed it: in an empty folder, with no words of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bknb import __version__
from bknb.cli import COMMANDS
from bknb.digest import Digest
from bknb.llb import Definition
from tests.conftest import need

DOCKERFILE = (
    "FROM busybox AS base\nWORKDIR /app\nFROM base\nARG WHO=you\nRUN echo hello ${WHO}\nCOPY . /src\n"
)


class Shell:
    """An empty folder with a state folder of its own, and ``bknb`` in it."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "empty"
        self.folder.mkdir()
        self.environ = {**os.environ, "BKNB_ROOT": str(place / "state"), "BKNB_OFFLINE": "1"}

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "bknb", *words],
            cwd=self.folder, env=self.environ, input=stdin.encode(), capture_output=True, start_new_session=True, timeout=120,
        )  # fmt: skip

    def write(self, text: str, name: str = "Dockerfile") -> None:
        """A file in the folder."""
        (self.folder / name).write_text(text)


@pytest.fixture
def bknb(tmp_path: Path) -> Shell:
    """Each test begins with nothing."""
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with a Dockerfile, for tests that only compile it."""
    need("busybox")
    shell = Shell(tmp_path_factory.mktemp("compiled"))
    shell.write(DOCKERFILE)
    return shell


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """What was said on stderr: one line, and nothing that looks like a traceback."""
    said = done.stderr.decode().strip()
    assert "Traceback" not in said and "\n" not in said, said
    return said


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("-h",)])
def test_help_says_what_there_is(bknb: Shell, words: tuple[str, ...]) -> None:
    """Without words, too, it says which commands there are."""
    done = bknb(*words)
    assert done.returncode == 0
    assert all(f"bknb {command}" in done.stdout.decode() for command in COMMANDS)


def test_version(bknb: Shell) -> None:
    """The version, and nothing else."""
    assert bknb("--version").stdout.decode() == f"bknb {__version__}\n"


@pytest.mark.parametrize(
    ("command", "option"),
    [("build", "--build-arg"), ("llb", "--build-arg"), ("du", "--filter"), ("prune", "--keep-duration")],
)
def test_command_explains_its_options(bknb: Shell, command: str, option: str) -> None:
    """Help of a command names its options, and starts nothing."""
    done = bknb(command, "--help")
    said = done.stdout.decode()
    assert done.returncode == 0
    assert f"usage: bknb {command}" in said and option in said
    assert ("--format {json,proto,dot,mermaid}" in said) == (command == "llb")
    assert not (bknb.folder.parent / "state").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("biuld", "."), "bknb: unknown command 'biuld' (did you mean build?); bknb help lists them"),
        (("--verzion",), "bknb: unknown option --verzion (did you mean --version?); bknb help lists them"),
        (("llb", "--bad"), "bknb: unknown option --bad; --help lists them all"),
        (("mounts", "save"), "bknb mounts save ID FILE.tar: say which cache mount, and the file; bknb mounts lists them"),
        (("mounts", "load", "id"), "bknb mounts load ID FILE.tar: say the file: FILE.tar"),
        (("mounts", "sav"), "bknb mounts takes save ID FILE.tar or load ID FILE.tar, or nothing (did you mean save?)"),
        (("replay", "-n", "x"), "bknb: -n/--commits: 'x' is not a whole number"),
        (("why", "zzzz"), "bknb: 'zzzz' is no build, and not the beginning of one's id: bknb history lists them"),
        (("frobnicate",), "bknb: unknown command 'frobnicate'; bknb help lists them"),
        (("build",), "bknb build needs a CONTEXT: the folder that COPY reads, such as '.', or '-' for none"),
        (("build", "--tga", "x", "."), "bknb: unknown option --tga (did you mean --tag?); --help lists them all"),
        (("build", "a", "b"), "bknb: one CONTEXT is enough: 'b' is left over (quote a path that has spaces)"),
        (("llb", "--formt", "dot"), "bknb: unknown option --formt (did you mean --format?); --help lists them all"),
        (("llb", "--push", "-t", "a", "."), "bknb llb only compiles: leave --output, --push, --load, --call "),
        (("llb", "--platform", "linux/amd64,linux/arm64"), "bknb llb writes one graph, and there is one for "),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line_and_two(bknb: Shell, words: tuple[str, ...], said: str) -> None:
    """A word that is not understood ends with 2 and says what was probably meant."""
    done = bknb(*words)
    assert done.returncode == 2
    assert one_line(done).startswith(said)
    assert done.stdout == b""


@pytest.mark.parametrize("command", ["build", "llb"])
def test_no_dockerfile_is_one_line_and_one(bknb: Shell, command: str) -> None:
    """In an empty folder there is nothing to build, and it says what is missing."""
    done = bknb(command, ".")
    assert done.returncode == 1
    assert one_line(done).startswith("bknb: there is no Dockerfile in ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f", "nope/Dockerfile"), "-f nope/Dockerfile: there is no such file"),
        (("--target", "zz"), "--target zz: there is no such stage; the stages are base, last"),
        (("--target", "lats"), "--target lats: there is no such stage (did you mean last?)"),
        (("--secret", "id=a,src=nofile"), "--secret id=a: "),
        (("--secret", "id=a,src=."), "--secret id=a: "),
        (("-o", "type=oci,dest=none/x.tar"), "cannot write "),
        (("-o", "type=tar,dest=."), "destination "),
    ],
)
def test_what_is_not_there_is_said_before_the_build(bknb: Shell, words: tuple[str, ...], said: str) -> None:
    """One line, no progress, and nothing is made."""
    bknb.write("FROM busybox AS base\nFROM base AS Last\nRUN exit 1\n")
    done = bknb("build", *words, ".")
    assert done.returncode in (1, 2)
    assert one_line(done).startswith(f"bknb: {said}")
    assert [path.name for path in bknb.folder.iterdir()] == ["Dockerfile"]


def test_build_prints_plain_progress(bknb: Shell) -> None:
    """A build ends with 0; steps and their output are on stderr, stdout is the reader's own."""
    need("busybox")
    bknb.write(DOCKERFILE)
    done = bknb("build", "--build-arg", "WHO=me", "-t", "first", ".")
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (0, b""), said
    assert re.search(r"#\d+ \[stage-1 1/2\] RUN echo hello me", said)
    assert re.search(r"#\d+ [\d.]+ hello me", said)


def test_failed_step_ends_with_one(bknb: Shell) -> None:
    """A failure shows the line and the error."""
    need("busybox")
    bknb.write("FROM busybox\nRUN echo almost; exit 3\n")
    done = bknb("build", "--progress=plain", ".")
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "Dockerfile:2" in said and "exit code: 3" in said and "Traceback" not in said


def test_dockerfile_from_stdin(bknb: Shell) -> None:
    """``-f -`` reads the Dockerfile from stdin; quiet prints nothing but the image's digest."""
    need("busybox")
    done = bknb("build", "-q", "-t", "x", "-f", "-", ".", stdin=DOCKERFILE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout.decode())


def test_raw_json_is_a_line_for_each_event(bknb: Shell) -> None:
    """``--progress=rawjson`` is JSON and nothing else."""
    need("busybox")
    done = bknb("build", "--progress=rawjson", "-f", "-", ".", stdin="FROM scratch\nCOPY . /\n")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0
    assert len(events) > 3


def test_quiet_progress_says_nothing(bknb: Shell) -> None:
    """``--progress=quiet`` leaves both streams alone."""
    need("busybox")
    done = bknb("build", "--progress=quiet", "-f", "-", ".", stdin="FROM scratch\nCOPY . /\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_doctor_says_what_this_machine_can_do(bknb: Shell) -> None:
    """The doctor looks and ends with 0."""
    done = bknb("doctor")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 3


# --- bknb llb ---


def test_llb_proto_is_the_definition(compiled: Shell) -> None:
    """Raw bytes on stdout: a definition that reads back and stands on its own, with no session in it."""
    done = compiled("llb", "--format", "proto", ".")
    definition = Definition.from_bytes(done.stdout)
    assert done.returncode == 0
    assert definition.to_edge() is not None
    assert definition.to_bytes() == done.stdout
    assert b"local.session" not in done.stdout
    assert compiled("llb", "--format", "proto", ".").stdout == done.stdout


def test_llb_json_is_what_dump_llb_prints(compiled: Shell) -> None:
    """A line for each op, digests beside them, the last one the result."""
    done = compiled("llb")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ops = Definition.from_bytes(compiled("llb", "--format=proto").stdout).ops
    assert [line["Digest"] for line in lines] == [Digest.of(op) for op in ops]
    assert lines[-1]["Op"]["Op"] == {}
    assert done.stderr == b""


def test_llb_reads_the_options_of_a_build(compiled: Shell) -> None:
    """Build arguments, the target and the file are those of ``bknb build``."""
    argued = compiled("llb", "--build-arg", "WHO=me").stdout.decode()
    assert "WHO=me" in argued
    target = compiled("llb", "--target", "base", "--format", "mermaid").stdout.decode()
    assert "WORKDIR /app" in target and "RUN" not in target
    piped = compiled("llb", "-f", "-", "--format", "dot", stdin="FROM busybox\nRUN true\n").stdout.decode()
    assert piped.startswith("digraph {") and "RUN true" in piped


def test_llb_of_a_broken_file_is_its_error(compiled: Shell) -> None:
    """The Dockerfile's error with its line; nothing on stdout that could be taken for a definition."""
    done = compiled("llb", "-f", "-", "--format", "proto", stdin="FROM busybox\nRNU true\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "unknown instruction: RNU (did you mean RUN?)" in done.stderr.decode()


def test_llb_needs_nothing_that_runs_containers(compiled: Shell) -> None:
    """With no program on PATH and no namespaces to be had, it compiles all the same."""
    code = (
        "import subprocess, sys\n"
        "def refuse(*a, **k): raise OSError('no process here')\n"
        "import asyncio\n"
        "asyncio.create_subprocess_exec = subprocess.Popen = refuse\n"
        "from bknb.cli import main\n"
        "raise SystemExit(main(['llb', '--format', 'proto', '.']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=compiled.folder, env={**compiled.environ}, capture_output=True, start_new_session=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert Definition.from_bytes(done.stdout).ops


def test_llb_of_scratch_is_empty(compiled: Shell) -> None:
    """Nothing to build is no op."""
    done = compiled("llb", "-f", "-", "--format", "proto", stdin="FROM scratch\n")
    assert (done.returncode, done.stdout) == (0, b"")


def test_output_that_is_closed_early_is_no_failure(compiled: Shell) -> None:
    """``bknb llb | head -c 1`` ends quietly."""
    done = subprocess.run(
        f"{sys.executable} -m bknb llb | true",
        shell=True, cwd=compiled.folder, env=compiled.environ, capture_output=True, start_new_session=True,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr


def test_the_store_in_tables(bknb: Shell) -> None:
    """What a build left is listed, told record by record, and goes when it is told to; a program reads it as JSON."""
    need("busybox")
    bknb.write("FROM busybox\nRUN echo hello > /greeting\n")
    assert "nothing yet" in bknb("images").stdout.decode()
    assert bknb("build", "-t", "demo", ".").returncode == 0
    listed = [json.loads(line) for line in bknb("du", "--format", "json").stdout.splitlines()]
    (step,) = [record for record in listed if "echo hello" in record["description"]]
    assert step["shared"] and not step["in_use"] and step["size"] > 0
    assert "bknb prune would free up to" in bknb("du").stdout.decode().splitlines()[-1]
    assert [json.loads(line)["name"] for line in bknb("images", "--format=json").stdout.splitlines()] == [
        "demo:latest"
    ]
    assert bknb("build", ".").returncode == 0
    assert "demo" in bknb("history").stdout.decode() and "Dockerfile in empty" in bknb("history").stdout.decode()
    told = [json.loads(line) for line in bknb("prune", "--explain", "--format", "json").stdout.splitlines()]
    assert sorted(record["id"] for record in told) == sorted(record["id"] for record in listed)
    explained = bknb("prune", "--explain").stdout.decode().splitlines()
    assert "named image" in explained[1] and explained[-1].endswith("would stay")
    assert "nothing fits" in bknb("du", "--filter", "type==regulr").stdout.decode()
    whole = json.loads(bknb("du", "-v", "--filter", "description~=greeting", "--format", "json").stdout)["id"]
    assert whole.startswith(step["id"]) and len(whole) > len(step["id"])
    assert bknb("prune", "--filter", "type==frontend").stdout.decode() == "removed 0 results, 0 B\n"
    assert "removed" in bknb("prune", "--all").stdout.decode()
    assert not any("echo hello" in line for line in bknb("du").stdout.decode().splitlines())


def test_why_a_build_ran_what_it_ran(bknb: Shell) -> None:
    """The newest build and the one before it, a step of it, and causes for programs."""
    need("busybox")
    assert "there is no build yet" in one_line(bknb("why"))
    bknb.write("FROM busybox\nCOPY data /data\nRUN cat /data\n")
    bknb.write("one\n", "data")
    assert bknb("build", ".").returncode == 0
    assert "built for the first time: 3 steps ran" in bknb("why").stdout.decode()
    bknb.write("one\ntwo\n", "data")
    assert bknb("build", ".").returncode == 0
    said = bknb("why").stdout.decode()
    assert "data changed +1 −0: 2 steps ran" in said and "+two" in said
    assert "RUN cat /data: because of COPY data /data" in bknb("why", "--step", "cat").stdout.decode()
    (cause,) = [json.loads(line) for line in bknb("why", "--format=json").stdout.splitlines()]
    assert (cause["kind"], cause["subject"], cause["diff"]) == ("file-content", "data", ["+two"])
    assert bknb("build", ".").returncode == 0
    assert "every step was cached" in bknb("why").stdout.decode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("du", "--fliter", "x"), "did you mean --filter"),
        (("why", "a", "b", "c"), "'c' is left over"),
        (("why", "--stepp", "x"), "unknown option --stepp (did you mean --step?)"),
        (("prune", "--format", "json"), "goes with --explain"),
        (("du", "--format", "xml"), "--format: invalid choice: 'xml' (choose from"),
        (("images", "demo"), "'demo' is left over"),
        (("prune", "--keep-duration", "soon"), "'soon'"),
    ],
)
def test_wrong_questions(bknb: Shell, words: tuple[str, ...], said: str) -> None:
    """One line that says what is wrong, and exit code 2."""
    done = bknb(*words)
    assert done.returncode == 2
    assert said in one_line(done)
