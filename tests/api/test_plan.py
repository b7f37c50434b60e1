"""Plans of real builds: what was said beforehand, what then happened, and that saying it did nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bknb import llb
from bknb.analysis.predict import Foreseen
from bknb.api import Build, Client, disk_usage, history
from bknb.api.planned import Plan
from bknb.cli import main
from bknb.digest import Digest
from bknb.errors import BuildError, DockerfileError, MissError, StepError, UsageError
from bknb.options import parse
from bknb.protocols import SolveRequest
from bknb.session import LocalSession

APP = """
FROM busybox AS deps
WORKDIR /app
COPY requirements.txt .
RUN cp requirements.txt installed.txt

FROM busybox AS unused
RUN echo never > /never

FROM deps AS build
ARG V=1
COPY src src
RUN wc -l src/* > lines.txt
RUN echo $V > version.txt

FROM busybox
COPY --from=build /app/lines.txt /lines.txt
RUN cat /lines.txt > /final.txt
"""
LINES = {text: number for number, text in enumerate(APP.split("\n"), 1)}


def build(client: Client, context: Path, *words: str, text: str = APP) -> Build:
    """Build a text."""
    return client.build(parse([*words, str(context)], cell=False), dockerfile=text)


def plan(client: Client, context: Path, *words: str, text: str = APP) -> Plan:
    """Plan a text."""
    return client.plan(parse(["--plan", *words, str(context)], cell=False), dockerfile=text)


def said(found: Plan) -> dict[str, Foreseen]:
    """What was said of each instruction."""
    return {one.step.command: one.verdict.outcome for one in found.steps if one.counted}


@pytest.fixture
def app(context: Path) -> Path:
    """The sources of APP."""
    (context / "requirements.txt").write_text("one\n")
    (context / "src").mkdir()
    (context / "src" / "a.py").write_text("print(1)\n")
    (context / "src" / "b.py").write_text("print(2)\n")
    (context / "notes.log").write_text("nothing\n")
    (context / ".dockerignore").write_text("*.log\n")
    return context


def compare(found: Plan, done: Build) -> None:
    """What was said for certain is what happened."""
    outcomes = {step.name: str(step.state) for step in done.view.steps.values()}
    for one in found.steps:  # by name: a context's digest, and those on it, are of the session
        happened = outcomes[one.step.name]
        match one.verdict.outcome:
            case Foreseen.CACHED:
                assert happened in (one.verdict.by, "merged"), one.step.name
            case Foreseen.RUN:
                assert happened == "ran", one.step.name
            case Foreseen.UNNEEDED:
                assert happened == "skipped", one.step.name
            case Foreseen.UNKNOWN:
                assert happened in ("ran", "definition", "content"), one.step.name


Edit = Callable[[Path], object]
EDITS: list[tuple[str, Edit, tuple[str, ...], Callable[[str], str]]] = [
    ("nothing", lambda folder: None, (), str),
    ("other bytes", lambda folder: (folder / "src/a.py").write_text("print(3)\n"), (), str),
    ("other bytes, as many lines", lambda folder: (folder / "src/a.py").write_text("print(4)\n"), (), str),
    ("a new file", lambda folder: (folder / "src/c.py").write_text("x\ny\n"), (), str),
    ("a mode", lambda folder: (folder / "src/a.py").chmod(0o755), (), str),
    ("no more file", lambda folder: (folder / "src/c.py").unlink(), (), str),
    ("an ignored file", lambda folder: (folder / "notes.log").write_text("more\n"), (), str),
    ("a file for the first stage", lambda folder: (folder / "requirements.txt").write_text("2\n"), (), str),
    ("an argument", lambda folder: None, ("--build-arg", "V=2"), str),
    ("a command", lambda folder: None, (), lambda text: text.replace("wc -l", "wc -c")),
    ("a line moved", lambda folder: None, (), lambda text: text.replace("RUN echo $V", "RUN echo v$V")),
    ("a stage run anew", lambda folder: None, ("--no-cache-filter", "build"), str),
    ("everything anew", lambda folder: None, ("--no-cache",), str),
    ("another target", lambda folder: None, ("--target", "deps"), str),
]


def test_what_is_planned_happens(client: Client, app: Path) -> None:
    """After each of fourteen changes the plan says what the build then does, where it does not leave it open."""
    build(client, app)
    for _, edit, words, change in EDITS:
        edit(app)
        found = plan(client, app, *words, text=change(APP))
        compare(found, build(client, app, *words, text=change(APP)))


def test_a_plan_does_nothing(client: Client, app: Path) -> None:
    """No step runs, no layer is pulled, nothing is kept: neither a build nor a record."""
    found = plan(client, app)
    assert set(said(found).values()) == {Foreseen.RUN} and found.unknown == 0
    assert len(history(client)) == 0 and len(disk_usage(client)) == 0
    build(client, app)
    before = disk_usage(client), client.call(_dump)
    (app / "src/a.py").write_text("other\n")
    plan(client, app)
    assert len(history(client)) == 1
    assert disk_usage(client).equals(before[0]) and client.call(_dump) == before[1]


async def _dump(builder: object) -> list[tuple[object, ...]]:
    store = builder.parts.store  # type: ignore[attr-defined]
    return [
        row for table in ("keys", "links", "results") for row in store._db.execute(f"SELECT * FROM {table}")
    ]


def test_a_touched_file_counts_as_changed(client: Client, app: Path) -> None:
    """What reads it would run, what reads that is open, the rest is cached; the file is as it was."""
    build(client, app)
    found = plan(client, app, "--touch", "src/a.py")
    assert said(found) == {
        "FROM busybox AS deps": Foreseen.CACHED, "WORKDIR /app": Foreseen.CACHED,
        "COPY requirements.txt .": Foreseen.CACHED, "RUN cp requirements.txt installed.txt": Foreseen.CACHED,
        "COPY src src": Foreseen.RUN, "RUN wc -l src/* > lines.txt": Foreseen.RUN, "RUN echo $V > version.txt": Foreseen.RUN,
        "COPY --from=build /app/lines.txt /lines.txt": Foreseen.UNKNOWN, "RUN cat /lines.txt > /final.txt": Foreseen.UNKNOWN,
    }  # fmt: skip
    assert found.unknown == pytest.approx(2 / 9)
    assert found.reasons.line == "Because: src/a.py changed."
    assert "2 known only at run time (22%)" in repr(found)
    assert (app / "src/a.py").read_text() == "print(1)\n"
    assert set(said(plan(client, app)).values()) == {Foreseen.CACHED}


def test_a_touch_that_changes_nothing_says_so(client: Client, app: Path) -> None:
    """An ignored file, one that no step reads, an empty context: told as what they are."""
    build(client, app)
    (app / "other.txt").write_text("x")
    found = plan(client, app, "--touch", "notes.log", "--touch", "other.txt")
    assert set(said(found).values()) == {Foreseen.CACHED}
    assert found.notes == (
        "--touch notes.log changes nothing: .dockerignore leaves it out",
        "--touch other.txt changes nothing: no step reads it",
    )
    with pytest.raises(UsageError, match="that is a folder; name a file in it"):
        plan(client, app, "--touch", "src/")
    found = plan(client, app, "--touch", "src/a.py", "--target", "unused")
    assert found.notes == ("--touch src/a.py changes nothing: no step of this target reads the context",)


def test_an_empty_file_can_be_touched(client: Client, app: Path) -> None:
    """A file without bytes counts as changed like any other."""
    (app / "src/__init__.py").write_text("")
    build(client, app)
    assert said(plan(client, app, "--touch", "src/__init__.py"))["COPY src src"] is Foreseen.RUN


@pytest.mark.parametrize("name", ["src/aa.py", "../x"])
def test_a_touched_file_has_to_be_there(client: Client, app: Path, name: str) -> None:
    """A name that means no file of the context is one line, with the nearest name."""
    with pytest.raises(UsageError, match=f"--touch {name}: the context has no such file"):
        plan(client, app, "--touch", name)


def test_what_if_an_argument_were_another(client: Client, app: Path) -> None:
    """The steps below the argument would run, and the plan says why; no content is in doubt above them."""
    build(client, app)
    found = plan(client, app, "--build-arg", "V=2", "--target", "build")
    assert [one.step.command for one in found.misses] == [
        "RUN wc -l src/* > lines.txt",
        "RUN echo $V > version.txt",
    ]
    assert found.reasons.steps[Digest(found.misses[0].step.digest)] == "ARG V 1 → 2"
    assert found.unknown == 0


def test_the_time_comes_from_earlier_builds(client: Client, app: Path) -> None:
    """A step that ran before takes what it took; the build as long as its longest chain, and nothing if cached."""
    first = plan(client, app)
    assert (first.expected.steps, first.expected.strangers) == (0, 8)
    done = build(client, app)
    again = plan(client, app, "--touch", "src/a.py")
    took = {step.command: step.view.duration for step in done.steps}
    seconds = {one.step.command: one.seconds for one in again.steps}
    for command in ("COPY src src", "RUN wc -l src/* > lines.txt"):
        assert seconds[command] == pytest.approx(took[command], abs=1e-3)
    assert 0 < again.expected.least < again.expected.most
    assert plan(client, app).expected.least == pytest.approx(
        sum(one.seconds or 0.0 for one in plan(client, app).steps if one.step.kind == "local")
    )


def test_a_plan_shows_itself(client: Client, app: Path) -> None:
    """As text, as HTML with the graph, as a DataFrame."""
    build(client, app)
    found = plan(client, app, "--touch", "src/a.py")
    bundle = found._repr_mimebundle_()
    assert "would run 3 of 9 steps · 4 cached" in bundle["text/plain"]
    assert "depends on what RUN echo" in bundle["text/html"]
    assert "data:image/svg+xml" in bundle["text/html"] and "<script" not in bundle["text/html"]
    assert "would run" in found.graph.to_svg()
    row = found.table.set_index("step").loc["COPY src src"]
    assert (row["plan"], row["why"], row["stage"]) == ("run", "src/a.py changed", "build")


def test_a_result_that_is_gone_is_not_promised(client: Client, app: Path) -> None:
    """Files of a result that were removed from the disk make its step run, and the plan leaves what is known of it."""
    done = build(client, app, "--target", "deps")
    last = done["RUN cp requirements.txt installed.txt"]

    async def lose(builder: object) -> tuple[bool, bool]:
        parts = builder.parts  # type: ignore[attr-defined]
        id = done._result.results[last.digest][0]
        there = not parts.refs.missing([id])
        await parts.snapshotter.remove(parts.refs.records.find(id).snapshot)
        return there, not parts.refs.missing([id])

    assert client.call(lose) == (True, False)
    found = plan(client, app, "--target", "deps")
    assert [one.step.command for one in found.misses] == ["RUN cp requirements.txt installed.txt"]
    compare(found, build(client, app, "--target", "deps"))


def test_a_missing_file_is_known_beforehand(client: Client, app: Path) -> None:
    """A COPY of what is not there would fail; the plan says so, and where."""
    found = plan(client, app, text="FROM busybox\nCOPY nope /\nRUN true\n")
    assert said(found)["COPY nope /"] is Foreseen.FAIL
    assert "would fail at COPY nope /" in repr(found) and "not found" in found.foresight.error


def test_a_build_that_failed_would_fail_for_the_same_reason(client: Client, app: Path) -> None:
    """That it had not finished is no reason to fail: the file that is not there is."""
    text = "FROM busybox\nCOPY nope /\n"
    with pytest.raises(BuildError):
        build(client, app, text=text)
    found = plan(client, app, text=text)
    assert found.reasons.line == 'Because: "/nope": not found.'
    assert "had not finished" not in repr(found)


def test_what_cannot_be_compiled_is_one_error(client: Client, app: Path) -> None:
    """A Dockerfile that is wrong, or an image that is not there."""
    with pytest.raises(DockerfileError, match="unknown instruction: RNU"):
        plan(client, app, text="FROM busybox\nRNU x\n")
    with pytest.raises(DockerfileError, match="nosuchimage:latest: not found"):
        plan(client, app, text="FROM nosuchimage\n")


def test_the_word_of_the_package(client: Client, app: Path) -> None:
    """``bknb.plan`` takes what ``bknb.build`` takes."""
    import bknb

    found = bknb.plan(str(app), "--target", "deps", dockerfile=APP, client=client)
    assert [one.step.command for one in found.misses][-1] == "RUN cp requirements.txt installed.txt"


def test_a_graph_made_in_python_is_planned_too(client: Client) -> None:
    """LLB without a Dockerfile; a source that this builder does not have would fail."""
    options = parse(["--plan", "-"], cell=False)
    graph = llb.image("busybox").run(["touch", "/x"]).edge()
    found = client.plan(options, edge=graph, llb=True)
    assert [one.verdict.outcome for one in found.steps] == [Foreseen.RUN, Foreseen.RUN]
    client.build(parse(["-"], cell=False), edge=graph, llb=True)
    assert {one.verdict.outcome for one in client.plan(options, edge=graph, llb=True).steps} == {
        Foreseen.CACHED
    }
    odd = client.plan(options, edge=llb.git("https://git.example/x.git").edge(), llb=True)
    assert odd.steps[0].verdict.outcome is Foreseen.FAIL and "are not there yet" in odd.foresight.error


# --- fail on miss -----------------------------------------------------------------------------------------------


def test_a_cached_build_may_fail_on_misses(client: Client, app: Path) -> None:
    """Nothing is missing: the build is as without."""
    build(client, app)
    done = build(client, app, "--fail-on-miss")
    assert {step.outcome for step in done.steps} <= {"definition", "content", "skipped", "ran"}
    assert done.files.exists("/final.txt")


def test_the_first_miss_is_named_with_its_reason(client: Client, app: Path) -> None:
    """One line; nothing has run, and no build is recorded."""
    build(client, app)
    (app / "src/a.py").write_text("other\n")
    with pytest.raises(MissError) as failure:
        build(client, app, "--fail-on-miss")
    line = LINES["COPY src src"]
    assert str(failure.value) == (
        f"not cached: COPY src src (line {line}): src/a.py changed, and 2 more steps; nothing was run (--fail-on-miss)"
    )
    assert isinstance(failure.value.plan, Plan) and len(history(client)) == 1


def test_a_step_that_shows_only_then_is_refused(client: Client, app: Path) -> None:
    """Without a plan before it the solver itself refuses: the step fails, and the command has not run."""
    options = parse([str(app)], cell=False)
    session = LocalSession()
    request = SolveRequest("dockerfile.v0", options.frontend_opts(), fail_on_miss=True)

    async def solve(builder: object) -> object:
        from bknb.protocols import LocalDirectory

        text = b"FROM busybox\nRUN touch /x\n"
        folder = LocalDirectory(str(app), files={"Dockerfile": text})
        own = LocalSession({"dockerfile": folder, "context": folder}, environ=session.environ)
        return await builder.solve(request, own, lambda event: None)  # type: ignore[attr-defined]

    result = client.call(solve)  # type: ignore[arg-type]
    error = result.error  # type: ignore[attr-defined]
    assert isinstance(error, StepError) and isinstance(error.cause, MissError)
    assert "RUN touch /x" in str(error) and "--fail-on-miss" in str(error)


def test_the_command_line(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan goes to stdout; a miss is an error of one line and an exit code."""
    monkeypatch.setenv("BKNB_ROOT", str(tmp_path / "state"))
    monkeypatch.setenv("BKNB_OFFLINE", "1")
    (app / "Dockerfile").write_text("FROM busybox\nCOPY src /src\nRUN true\n")
    assert main(["build", "--plan", str(app)]) == 0
    assert "would run 3 of 3 steps" in capsys.readouterr().out.splitlines()[0]
    assert main(["build", "--plan", "--fail-on-miss", "-q", str(app)]) == 1
    assert capsys.readouterr().err.startswith(
        "bknb: not cached: COPY src /src (line 2): it was never built here"
    )
    assert main(["build", "-q", str(app)]) == 0
    assert main(["build", "-q", "--fail-on-miss", str(app)]) == 0
    (app / "src/a.py").write_text("other\n")
    assert main(["build", "-q", "--fail-on-miss", str(app)]) == 1
    assert "not cached: COPY src /src (line 2): src/a.py changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--touch", "x"], "say --plan too"),
        (["--plan", "--check"], "leave --check out"),
        (["--plan", "--push", "-t", "a/b"], "leave --push out"),
        (["--fail-on-miss", "--check"], "runs nothing"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], message: str) -> None:
    """One line says which to leave out."""
    with pytest.raises(UsageError, match=message):
        parse(words, cell=False)


# --- one step anew ----------------------------------------------------------------------------------------------


def test_one_step_is_run_anew(client: Client, app: Path) -> None:
    """The step at the line runs, and what stands on it with other files does; its stage's others are cached."""
    build(client, app)
    line = LINES["RUN wc -l src/* > lines.txt"]
    done = build(client, app, "--no-cache-filter", f"build:{line}")
    outcomes = {step.command: step.outcome for step in done.steps}
    assert outcomes["COPY src src"] == "content"
    assert outcomes["RUN wc -l src/* > lines.txt"] == outcomes["RUN echo $V > version.txt"] == "ran"
    assert outcomes["COPY --from=build /app/lines.txt /lines.txt"] == "definition"


@pytest.mark.parametrize("word", ["buidl", "build:1", "build:x", "deps:3", "stage-3"])
def test_a_filter_has_to_mean_something(client: Client, app: Path, word: str) -> None:
    """A stage or line that is not there, or that does no work, is an error before anything starts."""
    with pytest.raises(UsageError, match=f"^--no-cache-filter {word}: "):
        build(client, app, "--no-cache-filter", word)
    assert len(history(client)) == 0
