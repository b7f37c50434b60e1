"""Replay, held against real builds; and as people ask for it: in Python, on a command line, in a notebook."""

from __future__ import annotations

import json
import random
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bknb.analysis.replay import Repository
from bknb.analysis.replay.moves import apply, find
from bknb.api import Build, Client, Preferences, disk_usage, history, replay
from bknb.api.replayed import Replay, parse_replay
from bknb.cli import main
from bknb.errors import SourceError, UsageError
from bknb.options import parse
from tests.conftest import need
from tests.histories import git, make, project

CACHED = ("definition", "content", "merged")
COMMITS, SAMPLED, SEED = 200, 20, 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One builder, with an empty cache at first."""
    need("busybox")
    client = Client(Preferences(root=str(tmp_path_factory.mktemp("state")), offline=True))
    yield client
    client.close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 commits."""
    folder = tmp_path_factory.mktemp("project")
    make(folder, project(COMMITS, SEED))
    return folder


def told(build: Build) -> Counter[tuple[str, str, str]]:
    """What a real build did with each instruction: stage, instruction, ``ran`` or ``cached``."""
    found: Counter[tuple[str, str, str]] = Counter()
    for step in build.steps:
        if step.command and step.view.kind in ("exec", "file", "merge") and step.outcome != "skipped":
            outcome = "cached" if step.outcome in CACHED else step.outcome
            found[step.stage, step.command, outcome] += 1
    return found


def test_equals_real_builds(shared: Client, repository: Path, tmp_path: Path) -> None:
    """The table is what real builds of 20 sampled commits do, in sequence, wherever it is not known only at run time."""
    ids = git(repository, "rev-list", "--reverse", "main").decode().split()
    sampled = [ids[at] for at in sorted(random.Random(SEED).sample(range(COMMITS), SAMPLED))]
    words = [word for id in sampled for word in ("--rev", id)]
    table = replay(str(repository), *words, client=shared).table
    assert (table["error"] == "").all()
    work = tmp_path / "work"
    git(repository, "worktree", "add", "--detach", str(work), sampled[0])
    open_, certain = 0, 0
    for id in sampled:
        git(work, "checkout", "--detach", "-q", id)
        real = told(shared.build(parse([str(work)], cell=False)))
        rows = table[table["commit"] == id]
        foretold = Counter(zip(rows["stage"], rows["instruction"], rows["outcome"], strict=True))
        unknown = Counter(
            {key: count for key, count in foretold.items() if key[2] == "known only at run time"}
        )
        places = {key[:2] for key in unknown}
        assert {k: n for k, n in (foretold - unknown).items() if k[:2] not in places} == {
            k: n for k, n in real.items() if k[:2] not in places
        }, id
        open_ += unknown.total()
        certain += foretold.total() - unknown.total()
    assert certain > 10 * SAMPLED and {"cached", "ran"} <= set(table["outcome"])
    assert open_ > 0  # the history is such that some of it cannot be known


@pytest.fixture(scope="module")
def whole(shared: Client, repository: Path) -> Replay:
    """The replay of all 200 commits."""
    return replay(str(repository), "-n", str(COMMITS), client=shared)


def test_200_commits_take_seconds(shared: Client, repository: Path) -> None:
    """15 steps of 200 commits, and not a container: measured in CPU time, since other work may be under way."""
    begun = time.process_time()
    table = replay(str(repository), "-n", str(COMMITS), client=shared).table
    assert len(table) == 16 * COMMITS
    assert time.process_time() - begun < 10


def test_tables(whole: Replay) -> None:
    """A row for each commit and step, what each step costs, and the two agree."""
    table, costs = whole.table, whole.costs
    assert list(table.columns) == [
        "commit", "time", "subject", "stage", "step", "instruction", "outcome", "how", "seconds", "error",
    ]  # fmt: skip
    assert table["commit"].nunique() == COMMITS and table["time"].is_monotonic_increasing
    ran = table[table["outcome"] == "ran"].groupby(["stage", "step"], observed=True).size()
    assert {tuple(key): count for key, count in ran.items()} == {
        (row.stage, row.step): row.ran for row in costs.itertuples() if row.ran
    }
    assert (costs["ran"] + costs["unknown"] + costs["cached"] <= COMMITS).all()
    assert list(whole.savings.columns) == ["change", "runs", "seconds", "commits", "because"]


def test_costs_come_from_earlier_builds(client: Client, tmp_path: Path) -> None:
    """A step that builds of this store have run is timed by them."""
    text = "FROM busybox\nCOPY a /a\nRUN sleep 0.2\nRUN true\n"
    make(
        tmp_path / "r",
        [
            (f"commit {at}", {"Dockerfile": ("100644", text.encode()), "a": ("100644", b"%d" % at)})
            for at in range(4)
        ],
    )
    before = replay(str(tmp_path / "r"), client=client)
    assert before.costs["seconds"].isna().all() and any("counted in runs" in note for note in before.notes)
    git(tmp_path / "r", "checkout", "-q", "-f", "main")
    client.build(parse([str(tmp_path / "r")], cell=False))
    after = replay(str(tmp_path / "r"), client=client)
    row = after.costs.iloc[0]
    assert (row.step, row.ran, row.samples) == ("RUN sleep 0.2", 4, 1)
    assert 0.2 < row.each < 20 and row.seconds == pytest.approx(4 * row.each)
    timed = after.table[after.table["step"] == "RUN sleep 0.2"]
    assert list(timed["seconds"]) == [row.each] * 4
    assert "Most time: RUN sleep 0.2" in repr(after)


def test_nothing_is_left_behind(client: Client, repository: Path) -> None:
    """No record of a build, no result, no work tree."""
    before = sorted(path.name for path in repository.iterdir())
    found = replay(str(repository), "-n", "5", client=client)
    assert len(found.table) and len(history(client)) == 0 and len(disk_usage(client)) == 0
    assert sorted(path.name for path in repository.iterdir()) == before


def test_shows_itself(whole: Replay, tmp_path: Path) -> None:
    """As text and as a page with a picture; saved in each form, and in no other."""
    bundle = whole._repr_mimebundle_()
    assert bundle["text/plain"].startswith(
        f"{round(100 * (whole.table['outcome'] == 'ran').mean())} % of the steps"
    )
    assert "data:image/svg+xml;base64," in bundle["text/html"] and len(bundle["text/html"]) < 300_000
    for name in ("a.svg", "a.html", "a.txt"):
        whole.save(tmp_path / name)
    assert len(list(ET.parse(tmp_path / "a.svg").iter())) > 100
    assert (tmp_path / "a.txt").read_text() == repr(whole) + "\n"
    with pytest.raises(UsageError, match="the ending says the form"):
        whole.save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="cannot be written"):
        whole.save(tmp_path / "none" / "a.svg")


def test_words() -> None:
    """Those of the command line; what is wrong is one line with the nearest word."""
    found = parse_replay(
        [
            "-f",
            "x",
            "-n",
            "7",
            "--build-arg",
            "A={commit}",
            "--target",
            "t",
            "--rev",
            "a",
            "--rev",
            "b",
            "app",
        ]
    )
    assert (found.context, found.file, found.commits, found.revisions) == ("app", "x", 7, ("a", "b"))
    assert found.opts == {"build-arg:A": "{commit}", "target": "t"}
    for words, said in {
        ("--comits", "3"): "unknown option --comits (did you mean --commits?", ("-n", "x"): "-n/--commits: 'x' is not a whole number",
        ("--build-arg", "A"): "NAME=VALUE",
        ("a", "b"): "one CONTEXT", ("--platform", "a/b/c/d"): "--platform",
    }.items():  # fmt: skip
        with pytest.raises(UsageError) as error:
            parse_replay(words)
        assert said in str(error.value) and "\n" not in str(error.value)


def test_what_is_wrong_is_one_line(client: Client, tmp_path: Path, repository: Path) -> None:
    """No repository, no such revision, an image that the offline registry has not."""
    for words, kind, said in [
        ([str(tmp_path)], SourceError, "not a git repository"), ([str(tmp_path / "none")], SourceError, "not a folder"),
        ([str(repository), "--rev", "nowhere"], UsageError, "is no revision"), ([str(repository), "-n", "0"], UsageError, "say 1 to"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=said):
            replay(*words, client=client)
    nothing = replay(str(repository), "-n", "3", "-f", "nope", client=client)
    assert repr(nothing).startswith("Nothing can be said: none of the last 3 commits of ")
    assert "there is no nope" in repr(nothing).splitlines()[0]
    make(tmp_path / "r", [("one", {"Dockerfile": ("100644", b"FROM python:3\nRUN x\n")})])
    with pytest.raises(SourceError) as error:
        replay(str(tmp_path / "r"), client=client)
    assert "python:3" in str(error.value) and "\n" not in str(error.value)


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map on stdout, lines of JSON, or a file; help; wrong words are one line and code 2."""
    need("busybox")
    monkeypatch.setenv("BKNB_ROOT", str(tmp_path / "state"))
    monkeypatch.setenv("BKNB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "70")
    folder = tmp_path / "r"
    make(folder, project(12, SEED))
    assert main(["replay", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "commits of r" in said and "█ would have run" in said
    assert main(["replay", "--format", "json", "-n", "3", str(folder)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 * 16 and {"commit", "step", "outcome"} <= set(rows[0])
    assert main(["replay", "-o", str(tmp_path / "x.html"), str(folder)]) == 0
    assert capsys.readouterr().out == "" and "<img" in (tmp_path / "x.html").read_text()
    assert main(["replay", "--help"]) == 0 and "REPO/CONTEXT" in capsys.readouterr().out
    for words in (
        ["--nope"],
        ["-o", "x.txt", "--format", "json"],
        ["-o", str(tmp_path / "x.png"), str(folder)],
    ):
        assert main(["replay", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


NPM = """\
FROM busybox AS node
RUN printf '#!/bin/sh\\nmkdir -p node_modules && cat package.json package-lock.json > node_modules/all\\n' > /bin/npm && chmod +x /bin/npm
FROM node
ARG SHA=none
WORKDIR /app
COPY . .
RUN npm ci
RUN cat src/a > /out
RUN echo $SHA > /sha
"""


def test_savings_are_what_real_builds_save(client: Client, tmp_path: Path) -> None:
    """Built as it was and as it is proposed, each step runs as often as was said, and the files are the same."""
    files = {
        "Dockerfile": NPM,
        "package.json": '{"name":"a"}',
        "package-lock.json": "{}",
        "src/a": "1",
        ".dockerignore": ".git\nDockerfile\nREADME.md\n",
    }
    edits = [
        {},
        {"src/a": "2"},
        {"src/a": "3"},
        {"package.json": '{"name":"b"}'},
        {"README.md": "2"},
        {"src/a": "4"},
    ]
    states = []
    for number, edit in enumerate(edits):
        files = {**files, **edit}
        states.append((f"commit {number}", {path: ("100644", text.encode()) for path, text in files.items()}))
    folder, work = tmp_path / "r", tmp_path / "work"
    make(folder, states)
    found = replay(str(folder), "--build-arg", "SHA={commit}", client=client)
    best = found.reorderings[0]
    assert best.title == "Both changes together" and (best.commits, best.of) == (6, 6)
    with Repository(str(folder)) as repository:
        newest = repository.files(repository.commits(1)[0])
        content = {path: repository.content(blob, 1000) or b"" for path, blob in newest.items()}
        read = {blob: content[path] for path, blob in newest.items()}.__getitem__
        changed = NPM.encode()
        for move in find(changed, newest, read):
            changed = apply(move.name, changed, newest, read)
    said = {change.command: (change.before, change.after) for change in best.changes}
    assert said["RUN npm ci"] == (6, 2) and said["RUN cat src/a > /out"] == (6, 5)
    ran = {text: Counter[str]() for text in (NPM.encode(), changed)}
    left: dict[bytes, list[list[str]]] = {text: [] for text in ran}
    ids = git(folder, "rev-list", "--reverse", "main").decode().split()
    git(folder, "worktree", "add", "-q", "--detach", str(work), ids[0])
    for text, counts in ran.items():
        for id in ids:
            git(work, "checkout", "--detach", "-q", id)
            build = client.build(parse(["--build-arg", f"SHA={id}", str(work)], cell=False), dockerfile=text)
            counts.update(step.command for step in build.steps if step.outcome == "ran" and step.command)
            left[text].append(
                [build.files.text(path) for path in ("/app/node_modules/all", "/app/src/a", "/out", "/sha")]
            )
    assert left[NPM.encode()] == left[changed]
    before, after = ran.values()
    assert {command: (before[command], after[command]) for command in said} == said
