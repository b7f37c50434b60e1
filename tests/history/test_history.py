"""Records of builds, files of builds, and the pairing of their steps."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from bknb.digest import Digest
from bknb.errors import Range, StoreError, UsageError
from bknb.events import BuildEvent, DecisionEvent, Event, LogEvent, Outcome, Phase, ResourceEvent, VertexEvent
from bknb.history import History, Recorder, new_id, open_build, save_build
from bknb.history import store as history_store
from bknb.history.recorder import git_state, images_of, redact, step_records
from bknb.protocols import FrontendResult, Origin, PlatformResult, SolveRequest
from bknb.record import Record, StepRecord, pair
from tests.fakes import parse

EDGE = parse("base = source\na = run base\n")["a"]
BASE, A = EDGE.vertex.inputs[0].vertex.digest, EDGE.vertex.digest
FRONTEND = FrontendResult((PlatformResult(None, EDGE),), filename="Dockerfile", source=b"FROM base\nRUN a\n")
REQUEST = SolveRequest("dockerfile.v0", {"target": "x"}, title="demo", origin=Origin("n.ipynb", "c1", "k"))


def events(outcome: Outcome = Outcome.RAN) -> list[Event]:
    """What a small build says."""
    return [
        BuildEvent("b", 1.0, title="demo"),
        VertexEvent(BASE, "base", kind="source", outcome=Outcome.RAN, started=1.0, completed=2.0),
        DecisionEvent(1, A, Phase.KEY, "miss", ("sha256:k", "input:0"), 1.0),
        DecisionEvent(2, A, Phase.WAIT, "begin", ("slot",), 2.0),
        DecisionEvent(3, A, Phase.WAIT, "end", ("slot",), 2.5),
        LogEvent(A, 1, b"hello\xff", 2.6),
        ResourceEvent(A, 0.25, 4096),
        VertexEvent(
            A, "a", (BASE,), "exec", "build", (Range(2, 0, 2, 5),), 2.5, 4.5, outcome, command="RUN a"
        ),
        BuildEvent("b", 5.0, True, title="demo", result="sha256:r"),
    ]


@pytest.fixture
def history(tmp_path: Path) -> History:
    """An empty history."""
    return History(tmp_path / "history.db")


def test_a_build_is_recorded(history: History) -> None:
    """What a build said is found again, with what it refers to."""
    id = new_id()
    Recorder(history, runtime=lambda: "crun").save(id, REQUEST, FRONTEND, events(), {A: ("r1",)})
    record = history.get(id)
    assert record is not None
    assert (record.title, record.cell, record.runtime, record.finished) == ("demo", "c1", "crun", 5.0)
    assert [step.name for step in record.steps] == ["base", "a"]
    step = record.steps[1]
    assert (step.queue, step.cpu, step.peak_memory, step.log_size, step.seconds) == (0.5, 0.25, 4096, 6, 2.0)
    assert step.results == ("r1",) and step.keys == ("sha256:k",)
    assert history.text(record.dockerfile) == FRONTEND.source
    assert history.text(record.events).count(b"\n") == 9  # type: ignore[union-attr]
    assert [found.id for found in history.walk()] == [id]
    assert [found.id for found in history.walk(record.targets[0])] == [id] and not list(history.walk("other"))
    history.close()


def test_uses_say_what_was_saved(history: History) -> None:
    """A hit is noted with the seconds that making the result took when it was made."""
    one, two = new_id(1.0), new_id(2.0)
    recorder = Recorder(history)
    recorder.save(one, REQUEST, FRONTEND, events(), {A: ("r1",)})
    recorder.save(two, REQUEST, FRONTEND, events(Outcome.DEFINITION), {A: ("r1",)})
    (use,) = history.uses()
    assert (use.build, use.step, use.result, use.kind, use.seconds) == (two, A, "r1", "definition", 2.0)
    assert [record.id for record in history.walk()] == [two, one]
    history.close()


def test_a_record_outlives_its_writer(tmp_path: Path) -> None:
    """Closing writes what is left; a newer file is refused in one line."""
    history = History(tmp_path / "h.db")
    Recorder(history).save("b1", REQUEST, FRONTEND, events(), {})
    history.close()
    again = History(tmp_path / "h.db")
    assert again.get("b1") is not None
    again._db.execute("PRAGMA user_version = 99")
    again.close()
    with pytest.raises(StoreError, match="newer"):
        History(tmp_path / "h.db")


def test_a_question_ends_the_rest_of_the_writer(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets go first who waits for the build, and not a moment longer than nobody asks for the record."""
    monkeypatch.setattr(history_store, "PAUSE", None)  # for ever
    done: list[int] = []
    for number in range(3):
        history.later(lambda number=number: done.append(number))  # type: ignore[misc]
        history.flush()
    history.later(lambda: done.append(3))
    history.close()
    assert done == [0, 1, 2, 3]


def test_one_bad_record_does_not_stop_the_others(history: History) -> None:
    """The writer goes on after a failure, and remembers why."""

    def broken() -> None:
        raise RuntimeError("odd")

    history.later(broken)
    Recorder(history).save("b1", REQUEST, FRONTEND, events(), {})
    assert history.get("b1") is not None and "odd" in str(history.failed)
    history.close()


def test_saved_build_opens_anywhere(tmp_path: Path) -> None:
    """A file gives back the events, the graph and the Dockerfile."""
    record = Record("b", steps=(StepRecord("d"),))
    save_build(tmp_path / "x.bknb", "b", events(), FRONTEND, {"containerimage.digest": "sha256:r"}, record)
    saved = open_build(tmp_path / "x.bknb")
    assert saved.events == tuple(events())
    assert saved.dockerfile == FRONTEND.source and saved.filename == "Dockerfile"
    assert len(saved.definitions) == 1 and saved.definitions[0]
    assert saved.metadata == {"containerimage.digest": "sha256:r"} and saved.record == record
    assert [path.name for path in tmp_path.iterdir()] == ["x.bknb"]


@pytest.mark.parametrize("made", ["text", "empty", "foreign", "newer", "broken"])
def test_hostile_files(tmp_path: Path, made: str) -> None:
    """Whatever a file holds, opening it is one line."""
    path = tmp_path / "x.bknb"
    if made == "text":
        path.write_text("not a zip")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            if made == "foreign":
                archive.writestr("../../etc/passwd", "x")
            if made == "newer":
                archive.writestr("build.json", '{"format": 99, "id": "x"}')
            if made == "broken":
                archive.writestr("build.json", '{"format": 1, "id": "x"}')
                archive.writestr("events.jsonl", '{"event": "vertex"}\n')
    with pytest.raises(UsageError, match="newer" if made == "newer" else "not a saved build"):
        open_build(path)


def test_missing_files(tmp_path: Path) -> None:
    """A file that is not there, and a folder that is not, are one line each."""
    with pytest.raises(UsageError, match="No such file"):
        open_build(tmp_path / "none.bknb")
    with pytest.raises(UsageError, match="cannot save"):
        save_build(tmp_path / "none" / "x.bknb", "b", [], FRONTEND, {})


def test_secrets_are_taken_out() -> None:
    """Values of arguments that look like secrets are not recorded."""
    assert redact({"build-arg:NPM_TOKEN": "s", "target": "x"}) == {"build-arg:NPM_TOKEN": "…", "target": "x"}


def test_git_state(tmp_path: Path) -> None:
    """The commit of a context is recorded, and whether files differ from it."""
    assert git_state(str(tmp_path)) == ("", None)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "f").write_text("1")
    for words in (["init", "-q"], ["add", "f"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True, start_new_session=True)
    head, dirty = git_state(str(tmp_path))
    assert len(head) == 40 and dirty is False
    (tmp_path / "f").write_text("2")
    assert git_state(str(tmp_path)) == (head, True)


def test_base_images() -> None:
    """The digest that a base image was resolved to is read from its step's name."""
    name = "[1/2] FROM docker.io/library/busybox:1@sha256:" + "a" * 64
    found = images_of([VertexEvent(Digest("sha256:x"), name, kind="image")])
    assert found == {"docker.io/library/busybox:1": "sha256:" + "a" * 64}


def test_steps_of_nothing() -> None:
    """A build that said nothing has no steps."""
    assert step_records([], {}) == ()


def steps(*commands: str, stage: str = "s") -> list[StepRecord]:
    """Steps with these instructions, each of its own digest."""
    return [StepRecord(f"{stage}{i}{c}", command=c, stage=stage, kind="exec") for i, c in enumerate(commands)]


def test_pairs_by_text_then_likeness() -> None:
    """An inserted step is new, a changed one is paired with what it was, a removed one is gone."""
    before = steps("FROM a", "RUN make", "RUN make test", "CMD x")
    after = steps("FROM a", "RUN apt-get update", "RUN make", "RUN make tests", "ENV Q=1")
    found = [
        (p.before.command if p.before else None, p.after.command if p.after else None, p.how)
        for p in pair(before, after)
    ]
    assert found == [
        ("FROM a", "FROM a", "digest"),
        (None, "RUN apt-get update", "new"),
        ("RUN make", "RUN make", "text"),
        ("RUN make test", "RUN make tests", "likeness"),
        (None, "ENV Q=1", "new"),
        ("CMD x", None, "gone"),
    ]


def test_stages_are_kept_apart() -> None:
    """The same instruction in two stages is two steps."""
    found = pair(steps("RUN a", stage="x"), steps("RUN a", stage="y"))
    assert [p.how for p in found] == ["new", "gone"]
