"""Why: a build is made, one thing is changed, it is built again, and the cause that is named is that change."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bknb.analysis import Cause, Kind
from bknb.api import Build, Client, OpenedBuild, Preferences
from bknb.api.explained import Why, ask, text_diff
from bknb.api.recorded import open_file
from bknb.builder.local import LocalBuilder
from bknb.cache.tombstones import Tombstone
from bknb.content.store import DiskContentStore
from bknb.display import render_html
from bknb.display.reasons import Reasons
from bknb.errors import BuildError, UsageError
from bknb.options import parse
from bknb.registry.repositories import Repositories
from bknb.registry.seed import find_busybox, seed
from tests.conftest import need

APP = """FROM busybox AS build
ARG V=1
WORKDIR /app
COPY req.txt .
RUN cp req.txt got
ENV E=1
COPY src src
RUN cat src/* > all; echo $V >> all
FROM busybox
COPY --from=build /app/all /all
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One builder for all tests: each test's instructions are its own."""
    need("busybox")
    client = Client(Preferences(root=str(tmp_path_factory.mktemp("state")), offline=True))
    yield client
    client.close()


@pytest.fixture
def app(context: Path) -> Path:
    """The sources of APP."""
    (context / "src").mkdir()
    (context / "src" / "a.py").write_text("one\ntwo\nthree\n")
    (context / "src" / "link").symlink_to("a.py")
    (context / "req.txt").write_text(f"{context}\n")
    return context


def build(client: Client, context: Path, text: str = APP, *words: str) -> Build:
    """Build a text."""
    return client.build(parse([*words, str(context)], cell=False), dockerfile=text)


def told(build: Build) -> list[tuple[str, str, str, str]]:
    """The root causes, as plain values."""
    return told_of(build.why())


def told_of(answer: Why) -> list[tuple[str, str, str, str]]:
    """The causes of an answer."""
    return [(cause.kind.value, cause.subject, cause.before, cause.after) for cause in answer.causes]


def _edit(path: str, text: str) -> Callable[[Path], object]:
    return lambda context: (context / path).write_text(text)


def _relink(context: Path) -> None:
    (context / "src" / "link").unlink()
    (context / "src" / "link").symlink_to("b.py")


FILES: dict[str, tuple[Callable[[Path], object], Kind, str]] = {
    "content": (_edit("src/a.py", "one\n2\nthree\n"), Kind.FILE_CONTENT, "src/a.py"),
    "added": (_edit("src/new.py", "x"), Kind.FILE_ADDED, "src/new.py"),
    "mode": (lambda context: (context / "src" / "a.py").chmod(0o755), Kind.FILE_MODE, "src/a.py"),
    "folder's mode": (lambda context: (context / "src").chmod(0o700), Kind.FILE_MODE, "src"),
    "link": (_relink, Kind.FILE_LINK, "src/link"),
    "removed": (lambda context: (context / "src" / "link").unlink(), Kind.FILE_REMOVED, "src/link"),
    "emptied": (_edit("src/a.py", ""), Kind.FILE_CONTENT, "src/a.py"),
    "first of two": (_edit("req.txt", "changed\n"), Kind.FILE_CONTENT, "req.txt"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(shared: Client, app: Path, name: str) -> None:
    """Whatever is done to a file, the cause is that, alone, and the steps behind it are counted under it."""
    change, kind, path = FILES[name]
    build(shared, app)
    change(app)
    again = build(shared, app)
    ((found, subject, _, _),) = told(again)
    assert (found, subject) == (kind, path)
    copy = again.why().table.set_index("step")
    first = "COPY req.txt ." if path == "req.txt" else "COPY src src"
    assert copy.loc[first, "kinds"] == [kind.value]
    assert copy.loc["RUN cat src/* > all; echo $V >> all", "why"] == f"because of {first}"


TEXTS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, str, str, str]]] = {
    "run": ("RUN cp req.txt got", "RUN cp req.txt was", (),
            ("instruction", "RUN cp req.txt was", "RUN cp req.txt got", "RUN cp req.txt was")),
    "argument": ("", "", ("--build-arg", "V=2"), ("arg", "V", "1", "2")),
    "default of an argument": ("ARG V=1", "ARG V=3", (), ("arg", "V", "1", "3")),
    "environment": ("ENV E=1", "ENV E=2", (), ("env", "E", "1", "2")),
    "source of a copy": ("COPY src src", "COPY src src2", (),
                         ("instruction", "COPY src src2", "COPY src src", "COPY src src2")),
    "no cache": ("", "", ("--no-cache",), ("no-cache", "", "", "")),
    "no cache of a stage": ("", "", ("--no-cache-filter", "build"), ("no-cache", "build", "", "")),
    "new step": ("ENV E=1", "RUN true", (), ("new", "RUN true", "", "")),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_changed_text_is_named(shared: Client, app: Path, name: str) -> None:
    """An edit of the file or of an option is named with both values."""
    old, new, words, cause = TEXTS[name]
    build(shared, app)
    again = build(shared, app, APP.replace(old, new, 1) if old else APP, *words)
    assert cause in told(again)
    others = {found[0] for found in told(again) if found != cause}
    assert others <= (
        {"instruction"} if name == "source of a copy" else {"env"} if name == "new step" else set()
    )


def test_a_moved_tag_is_named(client: Client, context: Path, tmp_path: Path) -> None:
    """A base image that is another one under its old name: the name and both digests, and how to hold it."""
    build(client, context, "FROM busybox\nRUN true\n")
    offline = tmp_path / "state" / "offline"
    repository = Repositories(offline / "repositories").repository("library/busybox")
    before = repository.tag("latest")
    other = Path(shutil.copy(find_busybox(), tmp_path / "busybox"))
    with other.open("ab") as file:
        file.write(b"\0moved")
    after = seed(DiskContentStore(offline / "content"), repository, busybox=other).digest
    again = build(client, context, "FROM busybox\nRUN true\n")
    assert told(again) == [("image-moved", "busybox:latest", before, after)]
    assert f"FROM busybox:latest@{after} stays" in repr(again.why())


def test_two_causes_are_told_apart(shared: Client, app: Path) -> None:
    """Each cause has its own count, and what both reach is counted under both."""
    build(shared, app)
    (app / "src" / "a.py").write_text("other\n")
    again = build(shared, app, APP.replace("RUN cp req.txt got", "RUN cp req.txt g2"))
    found = again.why().explanation
    assert found is not None
    counts = {cause.kind: len(found.made_run(cause)) for cause in found.causes}
    assert counts == {Kind.INSTRUCTION: 4, Kind.FILE_CONTENT: 3}
    assert again.reasons is not None and again.reasons.line.startswith(
        "2 causes: RUN cp req.txt g2 was edited (4 steps)"
    )


def test_nothing_is_said_of_a_build_that_ran_nothing(shared: Client, app: Path) -> None:
    """Everything was cached: no line, no cause; the hits are explained for who asks."""
    build(shared, app)
    again = build(shared, app)
    assert again.reasons is None and told(again) == [] and repr(again.why()) == ""
    found = dict(zip(again.why().table["step"], again.why().table["why"], strict=True))
    assert found["COPY src src"] == "same files"
    assert found["RUN cp req.txt got"] == "same definition, same input"


def test_a_hit_by_content_says_what_changed_above_it(shared: Client, app: Path) -> None:
    """A step that did not run although what it reads from was made anew."""
    text = (
        f"FROM busybox AS a\nARG N=1\nRUN echo {app} > /f; echo $N > /g\nFROM busybox\nCOPY --from=a /f /f\n"
    )
    build(shared, app, text)
    again = build(shared, app, text, "--build-arg", "N=2")
    one = again.why("COPY --from=a /f /f")
    assert one.table["why"].item().startswith("same files, although RUN echo")
    assert told(again) == [("arg", "N", "1", "2")]


def test_the_picture_says_it(shared: Client, app: Path) -> None:
    """The second line names the cause, and the table has a column for each step's."""
    build(shared, app)
    (app / "src" / "a.py").write_text("one\nzwei\nthree\nfour\n")
    again = build(shared, app)
    page = again._repr_mimebundle_()["text/html"]
    assert "One cause: <b>src/a.py</b> changed +2 −1. It made 3 steps run." in page
    assert ">why</th>" in page and "because of COPY src src" in page
    assert ">why</th>" not in render_html(again.view)
    assert "-two" in repr(again.why()) and "+zwei" in repr(again.why("COPY src src"))


def test_a_column_tells_it_in_text_and_as_data(shared: Client, app: Path) -> None:
    """In the text and in the DataFrame a step that changed has its cause, what is as it was has nothing."""
    build(shared, app)
    (app / "src" / "a.py").write_text("one\nzwei\nthree\n")
    again = build(shared, app)
    column = dict(zip(again.table["step"], again.table["why"], strict=True))
    assert column["COPY src src"] == "src/a.py changed +1 −1"
    assert column["RUN cat src/* > all; echo $V >> all"] == "because of COPY src src"
    assert column["RUN cp req.txt got"] == column["COPY req.txt ."] == column["WORKDIR /app"] == ""
    head, _, *rows = again._repr_mimebundle_()["text/plain"].split("\n\n")[2].splitlines()
    assert head.split() == ["step", "cache", "why", "time", "size", "digest"]
    assert [row for row in rows if "src/a.py changed +1 −1" in row]


def test_a_first_build_has_nothing_to_say_until_it_is_asked(shared: Client, app: Path) -> None:
    """The picture is silent; whoever asks is told that it was built for the first time."""
    first = build(shared, app, f"FROM busybox\nRUN echo {app} > /f\nRUN cat /f\n")
    assert first.reasons is None and set(first.table["why"]) == {""}
    assert told(first) == [("never-built", "", "", "")]
    assert repr(first.why()).startswith("built for the first time: 2 steps ran")


def test_a_step_that_was_not_needed_before(shared: Client, app: Path) -> None:
    """Its stage was skipped in the baseline: it was never built, and what stands on it follows."""
    text = f"FROM busybox AS a\nRUN echo {app} > /f\nFROM busybox AS b\nRUN echo b{app}\nFROM b\nCOPY --from=a /f /f\n"
    one = build(shared, app, text, "--target", "b")
    two = build(shared, app, text)
    assert told_of(two.why(against=one)) == [("never-built", f"RUN echo {app} > /f", "skipped", "")]
    assert "was not needed before: 2 steps ran" in repr(two.why(against=one))


def test_an_argument_is_to_be_moved_down(shared: Client, app: Path) -> None:
    """It makes a step run that does not name it: the hint says below which line it would not."""
    build(shared, app)
    again = build(shared, app, APP, "--build-arg", "V=9")
    assert "hint: move ARG V (line 2) below line 5" in repr(again.why())


def test_git_belongs_into_dockerignore(shared: Client, app: Path) -> None:
    """A file of .git is a cause with a hint."""
    (app / ".git").mkdir()
    (app / ".git" / "index").write_text("1")
    text = f"FROM busybox\nWORKDIR {app}\nCOPY . .\n"
    build(shared, app, text)
    (app / ".git" / "index").write_text("22")
    again = build(shared, app, text)
    assert told(again)[0][:2] == ("file-content", ".git/index")
    assert "hint: put .git in .dockerignore" in repr(again.why())


def test_a_secret_argument_is_not_shown(shared: Client, app: Path) -> None:
    """The name of an argument is said, its values are not."""
    text = f"FROM busybox\nARG API_TOKEN\nRUN echo {app}\n"
    build(shared, app, text, "--build-arg", "API_TOKEN=hush1")
    again = build(shared, app, text, "--build-arg", "API_TOKEN=hush2")
    assert told(again) == [("arg", "API_TOKEN", "…", "…")]
    assert "hush" not in repr(again.why())


def test_a_failed_baseline_is_passed_over(shared: Client, app: Path) -> None:
    """The last build that came to its end is what is compared with."""
    build(shared, app)
    with pytest.raises(BuildError):
        build(shared, app, APP.replace("RUN cp req.txt got", "RUN cp nothing got"))
    again = build(shared, app, APP.replace("RUN cp req.txt got", "RUN cp req.txt mended"))
    assert told(again)[0][2:] == ("RUN cp req.txt got", "RUN cp req.txt mended")


def test_a_build_that_was_only_compiled_is_no_baseline(shared: Client, app: Path) -> None:
    """Its steps were never asked of the cache: the build before it is what counts."""
    build(shared, app)
    compiled = parse(["--llb", str(app)], cell=True)
    shared.build(compiled, dockerfile=APP.replace("ENV E=1", "ENV E=5"))
    again = build(shared, app, APP.replace("ENV E=1", "ENV E=6"))
    assert told(again) == [("env", "E", "1", "6")]


def test_two_named_builds_are_compared(shared: Client, app: Path, tmp_path: Path) -> None:
    """By object, by the beginning of an id, and from files, which bring the lists of files along."""
    one = build(shared, app)
    (app / "src" / "a.py").write_text("x\n")
    two = build(shared, app)
    named = [ask(shared, pair).causes for pair in ((one, two), (one.id, two.id[:24]), (two.id,))]
    assert named == [two.why(against=one).causes] * 3
    with pytest.raises(UsageError, match="builds have an id that begins with '01'"):
        ask(shared, ["01"])
    with pytest.raises(UsageError, match="is no build"):
        two.why(against="zzz")
    import bknb

    for number, saved in enumerate((one, two)):
        saved.save(tmp_path / f"{number}.bknb")
    opened = [bknb.open(tmp_path / f"{number}.bknb") for number in (0, 1)]
    assert told_of(opened[1].why(against=opened[0])) == told_of(two.why(against=one))
    assert opened[1].reasons is not None and opened[1].reasons.line == (two.reasons or Reasons()).line
    bare = [OpenedBuild(replace(one.saved, texts={})) for one in opened]
    assert [cause.kind for cause in bare[1].why(against=bare[0]).causes] == [Kind.FILES]


def test_a_kernel_that_starts_anew_still_knows(tmp_path: Path, app: Path) -> None:
    """Lists of files outlive the process that made them."""
    need("busybox")
    preferences = Preferences(root=str(tmp_path / "state"), offline=True)
    first = Client(preferences)
    build(first, app)
    first.close()
    (app / "src" / "a.py").chmod(0o640)
    second = Client(preferences)
    again = build(second, app)
    assert told(again) == [("file-mode", "src/a.py", "0644", "0640")]
    second.close()


def remove(client: Client, build: Build, step: str, *, forget: bool, rule: str = "") -> None:
    """Take a step's result out of the store; with or without the cache knowing, or anybody saying so."""
    ids = build._result.results[build[step].digest]

    async def act(builder: LocalBuilder) -> None:
        for id in ids:
            assert await builder.parts.refs.remove(id)
            keys = builder.parts.store.keys_of(id)
            if forget:
                builder.parts.store.forget(id)
            if rule:
                builder.parts.tombstones.add([Tombstone(id, time.time(), rule, "regular", "", 1, keys)])

    client.call(act)


@pytest.mark.parametrize(
    ("forget", "rule", "kind"),
    [(True, "", Kind.GONE), (True, "rule 1", Kind.EVICTED), (False, "", Kind.BLOB_MISSING)],
)
def test_a_result_that_is_gone_is_told_from_a_change(
    shared: Client, app: Path, tmp_path: Path, forget: bool, rule: str, kind: Kind
) -> None:
    """Nothing changed, and a step ran all the same: it is said what became of its result, elsewhere too."""
    text = f"FROM busybox\nRUN echo {app} > /f\n"
    first = build(shared, app, text)
    remove(shared, first, f"RUN echo {app} > /f", forget=forget, rule=rule)
    again = build(shared, app, text)
    for name, made in (("first", first), ("again", again)):
        made.save(tmp_path / f"{name}.bknb")
    opened = [open_file(tmp_path / f"{name}.bknb") for name in ("first", "again")]
    assert told_of(opened[1].why(against=opened[0])) == told(again)
    (cause,) = again.why().causes
    assert cause.kind == kind
    assert ("evicted on" in repr(again.why()) and "by rule 1" in repr(again.why())) == bool(rule)


def test_lines_are_shown_of_short_texts_only() -> None:
    """Not of binaries, of what is gone, nor of what looks like a secret."""
    assert text_diff(b"a\nb\n", b"a\nc\n", "f") == ("-b", "+c")
    assert text_diff(b"a\r\nb\r\n", b"a\nb\n", "f") == ("only its line ends differ",) == text_diff(b"a", b"a\n", "f")
    assert text_diff(b"\0a", b"b", "f") == text_diff(None, b"b", "f") == text_diff(b"\xff", b"b", "f") == ()
    assert text_diff(b"a", b"password=1", "f") == text_diff(b"a", b"b", "secret.txt") == ()


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    steps=st.lists(
        st.sampled_from(["content", "mode", "link", "add", "remove", "run", "arg", "env", "none"]),
        min_size=1,
        max_size=3,
    )
)
def test_the_cause_is_the_mutation_that_was_made(shared: Client, tmp_path: Path, steps: list[str]) -> None:
    """Random mutations, one after the other, each named by the build that follows it."""
    context = tmp_path / f"random{sum(1 for _ in tmp_path.iterdir())}"
    (context / "d").mkdir(parents=True)
    (context / "d" / "f").write_text("0")
    (context / "d" / "gone").write_text(str(context))
    (context / "d" / "to").symlink_to("f")
    state = {"run": 0, "arg": 0, "env": 0}

    def text() -> str:
        return f"FROM busybox\nARG A\nENV E={state['env']}\nCOPY d /d\nRUN echo {state['run']} {context} $A\n"

    def go() -> Build:
        return build(shared, context, text(), "--build-arg", f"A={state['arg']}")

    go()
    for number, step in enumerate(steps, 1):
        expected: Cause | None = None
        match step:
            case "content":
                (context / "d" / "f").write_text("x" * number * 3)
                expected = Cause(Kind.FILE_CONTENT, "d/f")
            case "mode":
                mode = os.stat(context / "d").st_mode & 0o777 ^ (1 << number)
                (context / "d").chmod(mode)
                expected = Cause(Kind.FILE_MODE, "d")
            case "add":
                (context / "d" / f"new{number}").write_text("")
                expected = Cause(Kind.FILE_ADDED, f"d/new{number}")
            case "remove" if (context / "d" / "gone").exists():
                (context / "d" / "gone").unlink()
                expected = Cause(Kind.FILE_REMOVED, "d/gone")
            case "link":
                (context / "d" / "to").unlink()
                (context / "d" / "to").symlink_to(f"nowhere{number}")
                expected = Cause(Kind.FILE_LINK, "d/to")
            case "run" | "arg" | "env":
                state[step] += 1
                instruction = f"RUN echo {state['run']} {context} $A"
                kinds = {
                    "run": (Kind.INSTRUCTION, instruction),
                    "arg": (Kind.ARG, "A"),
                    "env": (Kind.ENV, "E"),
                }
                expected = Cause(*kinds[step])
        found = [(cause.kind, cause.subject) for cause in go().why().causes]
        assert found == ([(expected.kind, expected.subject)] if expected is not None else [])


def test_a_file_that_is_ignored_now_was_not_removed(shared: Client, app: Path) -> None:
    """The file is there still: it is the .dockerignore that took it out of the context, and that gives it back."""
    ignore = app / ".dockerignore"
    ignore.write_text(".dockerignore\n")
    (app / "src" / "b.py").write_text("b\n")
    build(shared, app)
    ignore.write_text(".dockerignore\nsrc/b*\n")
    (cause,) = (again := build(shared, app)).why().causes
    assert (cause.kind, cause.subject, cause.after) == (Kind.FILE_REMOVED, "src/b.py", ".dockerignore")
    assert "src/b.py is left out by .dockerignore now" in repr(again.why())
    (app / "src" / "a.py").write_text("other\n")
    ignore.write_text(".dockerignore\n")
    assert {cause.before for cause in build(shared, app).why().causes if cause.subject == "src/b.py"} == {
        ".dockerignore"
    }


def test_files_that_a_step_can_no_longer_read(shared: Client, app: Path) -> None:
    """It fails because of them; nothing is said of a cache that lost something."""
    text = "FROM busybox\nRUN --mount=source=src,target=/src cat /src/a.py > /got\n"
    build(shared, app, text)
    shutil.rmtree(app / "src")
    with pytest.raises(BuildError):
        build(shared, app, text)
    (cause,) = ask(shared).causes
    assert cause.kind is Kind.FILES


DOCUMENT = "FROM busybox\nARG V=1\nCOPY <<E /a\none $V\nE\nRUN cat /a > /b\n"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("one $V", "two $V", "COPY <<E /a was edited"),
        ("one $V", " one $V", "COPY <<E /a was edited (spaces only)"),
        ("V=1", "V=2", "ARG V 1 → 2"),
    ],
)
def test_a_heredoc_is_part_of_its_instruction(
    shared: Client, context: Path, before: str, after: str, said: str
) -> None:
    """The file that it is written to first is no step of its own, and no cause."""
    text = DOCUMENT.replace("/b", f"/b{len(str(context))}")
    build(shared, context, text)
    again = build(shared, context, text.replace(before, after))
    (cause,) = again.why().causes
    assert f"{said}: 2 steps ran" in repr(again.why())
    assert not cause.subject.startswith("[internal]")


def test_a_step_put_in_between_is_the_cause_although_it_was_cached(shared: Client, context: Path) -> None:
    """Another build had made it; what stands on it now had not stood on it before."""
    text = f"FROM busybox\nRUN echo {context} > /a\n"
    build(shared, context, f"FROM busybox\nWORKDIR {context}/first\n")
    build(shared, context, text)
    again = build(shared, context, text.replace("RUN", f"WORKDIR {context}/first\nRUN"))
    assert told(again) == [("new", f"WORKDIR {context}/first", "", "")]


def test_a_copy_that_became_a_link_is_edited_once(shared: Client, app: Path) -> None:
    """It is a copy and a merge then: one cause, and another stage below is named as what stands there instead."""
    text = f"FROM busybox AS one\nRUN echo {app} > /x\nFROM busybox\nCOPY --from=one /x /y\n"
    build(shared, app, text)
    assert [kind for kind, *_ in told(build(shared, app, text.replace("--from", "--link --from")))] == [
        "instruction"
    ]
    build(shared, app, text)
    ((kind, subject, before, after),) = told(build(shared, app, text.replace("FROM busybox\n", "FROM one\n")))
    assert (kind, before, after) == ("field", "FROM busybox AS one", f"RUN echo {app} > /x")
    assert subject == "the step before COPY --from=one /x /y"


@pytest.mark.parametrize("folder", [False, True])
def test_a_link_that_is_copied_through_is_named_as_a_link(shared: Client, app: Path, folder: bool) -> None:
    """What it led to is still there, and what it leads to now was there before: neither came nor went."""
    for name in ("one", "two"):
        target = app / name / "conf" if folder else app / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(name)
    (app / "now").symlink_to("one")
    text = "FROM scratch\nCOPY now req.txt /x/\n"
    build(shared, app, text)
    (app / "now").unlink()
    (app / "now").symlink_to("two")
    assert told(build(shared, app, text)) == [("file-link", "now", "one", "two")]
    (app / "two" / "conf" if folder else app / "two").write_text("three")
    ((kind, subject, *_),) = told(build(shared, app, text))
    assert (kind, subject) == ("file-content", "two/conf" if folder else "two")


def test_an_earlier_build_did_not_lose_what_a_later_one_made(shared: Client, context: Path) -> None:
    """Compared the wrong way round, or with itself, a build says what differs, and nothing of a cache that forgot."""
    text = f"FROM busybox\nRUN echo {context} > /a\nRUN cat /a > /b\n"
    first = build(shared, context, text)
    second = build(shared, context, text.replace("cat", "wc"))
    assert [kind for kind, *_ in told_of(ask(shared, [second, first]))] == ["instruction"]
    assert told_of(ask(shared, [second, second])) == [] == told_of(ask(shared, [first, first]))


def test_a_variable_behind_a_variable(shared: Client, app: Path) -> None:
    """What an instruction expands is followed to what changed, also where its value is not written down."""
    text = f"FROM busybox\nARG V=1\nENV DIR=/opt/$V\nCOPY req.txt $DIR/{len(str(app))}/\n"
    build(shared, app, text)
    assert told(build(shared, app, text, "--build-arg", "V=2")) == [("arg", "V", "1", "2")]
    text = "FROM busybox\nARG API_TOKEN\nCOPY <<E /cfg\ntoken=$API_TOKEN\nE\nRUN cat /cfg\n"
    build(shared, app, text, "--build-arg", f"API_TOKEN=one{app}")
    again = build(shared, app, text, "--build-arg", f"API_TOKEN=two{app}")
    assert told(again) == [("arg", "API_TOKEN", "…", "…")]
