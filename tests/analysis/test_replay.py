"""Replay without a builder: histories of a few commits, and what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bknb.analysis.replay import Clock, Outcome, Question, Replay, Repository, replay
from bknb.analysis.replay.compile import Step
from bknb.analysis.replay.rows import Rows
from bknb.digest import Digest
from bknb.errors import BuildCancelled, SourceError
from bknb.platforms import Platform
from bknb.protocols import ImageConfigAnswer
from tests.histories import EPOCH, make

PLATFORM = Platform("linux", "amd64")
MARKS = {Outcome.CACHED: ".", Outcome.RAN: "#", Outcome.UNKNOWN: "?"}
CONFIG = (
    b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%b"]}}'
)


class World:
    """Looks up images, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolve(self, reference: str, platform: Platform | None, mode: str) -> ImageConfigAnswer:
        """An image of one layer, the same under each name but ``other``; none under ``missing``."""
        self.asked.append(reference)
        if "missing" in reference:
            raise SourceError(f"{reference}: not found")
        layer = b"b" if "other" in reference else b"a"
        return ImageConfigAnswer(reference, Digest.of(reference.encode()), CONFIG % (layer * 64))


def told(
    folder: Path, states: Sequence[Mapping[str, str]], *, world: World | None = None, clock: Clock = Clock(), opts: Mapping[str, str] = {},  # noqa: B008 - frozen
    filename: str = "Dockerfile", context: str = "", rev: Sequence[str] = (), stopped: bool = False,
) -> Replay:  # fmt: skip
    """The replay of a history, each commit given by its files; what one does not name it has from the one before."""
    files: dict[str, tuple[str, bytes]] = {}
    history = []
    for number, state in enumerate(states):
        for path, text in state.items():
            if text == "-":
                del files[path]
            else:
                mode, _, link = text.partition(":") if text.startswith("120000:") else ("100644", "", text)
                files[path] = mode, link.encode()
        history.append((f"commit {number}", dict(files)))
    make(folder, history)
    (folder / context).mkdir(exist_ok=True)
    with Repository(str(folder / context)) as repository:
        commits = repository.revisions(rev) if rev else repository.commits(len(states))
        question = Question(filename, opts, PLATFORM)
        asked = replay(repository, commits, question, (world or World()).resolve, clock, lambda: stopped)
        return asyncio.run(asked)


def drawn(found: Replay) -> dict[str, str]:
    """A line for each row."""
    timeline = found.timeline
    return {
        row.command: "".join(
            "x"
            if column.error
            else MARKS[cell.outcome]
            if (cell := column.cells[number]) is not None
            else " "
            for column in timeline.columns
        )
        for number, row in enumerate(timeline.rows)
    }


APP = "FROM scratch AS build\nCOPY src /src\nRUN make\nFROM scratch\nCOPY --from=build /out /out\nRUN top\nCOPY docs /docs\nRUN index\n"


def test_three_values(tmp_path: Path) -> None:
    """What changed runs, what stands on it runs, and what reads what that writes is known only at run time."""
    start = {"Dockerfile": APP, "src/a": "1", "docs/b": "1", "aside": "1"}
    found = told(
        tmp_path,
        [
            start,
            {"aside": "2"},
            {"docs/b": "2"},
            {"src/a": "2"},
            {"aside": "3"},
            {"docs/b": "1"},
            {"src/a": "1"},
        ],
    )
    assert drawn(found) == {
        "COPY src /src": "#..#...",
        "RUN make": "#..#...",
        "COPY --from=build /out /out": "#..?...",
        "RUN top": "#..?...",
        # The newest of these stands on what may be the same as in the first commit, and then it is there already.
        "COPY docs /docs": "#.#?.?.",
        "RUN index": "#.#?.?.",
    }
    assert [cell.how for _, row, cell in found.timeline if row.command == "COPY src /src"] == [
        "",
        *["content"] * 2,
        "",
        *["content"] * 3,
    ]


def test_without_a_step_that_feeds_another_everything_is_known(tmp_path: Path) -> None:
    """Where every content is that of the repository, nothing is known only at run time; what was there is found."""
    text = "FROM busybox\nCOPY a /a\nRUN one\nCOPY b /b\nRUN two\n"
    found = told(
        tmp_path,
        [{"Dockerfile": text, "a": "1", "b": "1"}, {"b": "2"}, {"a": "2"}, {"a": "1", "b": "1"}, {"b": "2"}],
    )
    assert drawn(found) == {
        "COPY a /a": "#.#..",
        "RUN one": "#.#..",
        "COPY b /b": "###..",
        "RUN two": "###..",
    }
    assert found.timeline.total(Outcome.UNKNOWN) == 0 and not any("run time" in note for note in found.notes)


def test_a_copy_of_what_did_not_run_is_known(tmp_path: Path) -> None:
    """COPY --from a stage that is cached is cached; a new one of it runs."""
    other = APP.replace("/out /out", "/out /result")
    found = told(
        tmp_path,
        [{"Dockerfile": APP, "src/a": "1", "docs/b": "1"}, {"Dockerfile": other}, {"Dockerfile": APP}],
    )
    assert drawn(found)["COPY --from=build /out /out"] == "##." and drawn(found)["RUN make"] == "#.."


def test_each_commit_has_its_own_dockerfile_and_ignore_file(tmp_path: Path) -> None:
    """Rows follow instructions that are edited, moved, removed and put back; ignored files do not count."""
    first = "FROM busybox\nRUN apt-get install gcc\nCOPY . /app\nRUN make\n"
    second = first.replace("gcc", "gcc git")
    third = "FROM busybox\nRUN new\n" + second.partition("\n")[2].replace("RUN make\n", "")
    found = told(
        tmp_path,
        [
            {"Dockerfile": first, "a": "1", "log": "1", ".dockerignore": "log\nDockerfile\n.dockerignore\n"}, {"log": "2"}, {"Dockerfile": second},
            {".dockerignore": "Dockerfile\n.dockerignore\n"}, {"log": "3"}, {"Dockerfile": third}, {"Dockerfile": second},
        ],
    )  # fmt: skip
    assert drawn(found) == {
        "RUN new": "     # ",
        "RUN apt-get install gcc git": "#.#..#.",
        "COPY . /app": "#.####.",
        "RUN make": "#.###" + " .",
    }
    rows = {row.command: row.now for row in found.timeline.rows}
    assert rows == {
        "RUN new": False,
        "RUN apt-get install gcc git": True,
        "COPY . /app": True,
        "RUN make": True,
    }
    cells = [cell.command for _, row, cell in found.timeline if row.command.startswith("RUN apt-get")]
    assert cells[:3] == ["RUN apt-get install gcc", "RUN apt-get install gcc", "RUN apt-get install gcc git"]


def test_base_images_are_asked_for_once(tmp_path: Path) -> None:
    """Two names of the same layers are one cache; another image is another."""
    texts = [f"FROM {name}\nRUN x\n" for name in ("busybox", "busybox:1", "other", "busybox")]
    world = World()
    found = told(tmp_path, [{"Dockerfile": text, "n": str(n)} for n, text in enumerate(texts)], world=world)
    assert drawn(found) == {"RUN x": "#.#."} and len(world.asked) == len(set(world.asked))
    assert any("those of today" in note for note in found.notes)


def test_sources_elsewhere_stay_as_they_are(tmp_path: Path) -> None:
    """What ADD downloads, or takes of another repository, is taken to be the same for every commit."""
    text = (
        "FROM scratch\nADD https://example.com/a.txt /a\nADD https://example.com/r.git#main /r\nCOPY n /n\n"
    )
    found = told(
        tmp_path, [{"Dockerfile": text, "n": "1"}, {"n": "2"}, {"Dockerfile": text.replace("a.txt", "b.txt")}]
    )
    lines = list(drawn(found).values())
    assert lines == ["#.#", "#.#", "###"] and any("those of today" in note for note in found.notes)


def test_scratch_asks_nobody(tmp_path: Path) -> None:
    """Nothing from outside: no word of base images."""
    world = World()
    found = told(tmp_path, [{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"}, {"a": "2"}], world=world)
    assert (
        drawn(found) == {"COPY a /": "##"}
        and world.asked == []
        and not any("today" in note for note in found.notes)
    )


def test_commits_that_cannot_be_built_say_nothing(tmp_path: Path) -> None:
    """No Dockerfile, a broken one, a file that is not there, a frontend that is not run: each one line, and no cell."""
    good = "FROM busybox\nCOPY a /\nRUN x\n"
    states = [
        {"Dockerfile": good, "a": "1"}, {"Dockerfile": "-"}, {"Dockerfile": "FORM x\n"}, {"Dockerfile": good, "a": "-", "b": ""},
        {"a": "1", "Dockerfile": "# syntax=example.com/own\n" + good}, {"Dockerfile": "FROM missing\n"}, {"Dockerfile": good},
    ]  # fmt: skip
    found = told(tmp_path, states)
    errors = [column.error for column in found.timeline.columns]
    words = [
        "",
        "there is no Dockerfile",
        "unknown instruction",
        "not found",
        "frontends as images",
        "missing:latest: not found",
        "",
    ]
    assert all(word in error and "\n" not in error for word, error in zip(words, errors, strict=True)), errors
    assert drawn(found) == {"COPY a /": "#xxxxx.", "RUN x": "#xxxxx."}
    assert any(note.startswith("5 commits cannot be built") for note in found.notes)


def test_where_no_image_can_be_had_it_is_an_error(tmp_path: Path) -> None:
    """One clear line, the registry's own."""
    with pytest.raises(SourceError, match="missing:latest: not found"):
        told(tmp_path, [{"Dockerfile": "FROM missing\nRUN x\n"}, {"a": "1"}])


def test_dockerfile_elsewhere_and_through_a_link(tmp_path: Path) -> None:
    """A name with folders, an ignore file of its own, a file beside the context, a symbolic link, another spelling."""
    text = "FROM scratch\nCOPY . /\n"
    start = {
        "docker/prod": text,
        "docker/prod.dockerignore": "**\n!app/keep\n!keep",
        "app/keep": "1",
        "app/log": "1",
        "real": text,
        "link": "120000:real",
    }
    states = [start, {"app/log": "2"}, {"app/keep": "2"}]
    expected = {"docker/prod": "#.#", "link": "###"}
    for number, (name, line) in enumerate(expected.items()):
        assert drawn(told(tmp_path / str(number), states, filename=name)) == {"COPY . /": line}
    below = told(tmp_path / "below", states, filename="../docker/prod", context="app")
    assert drawn(below) == {"COPY . /": "#.#"}
    spelled = told(tmp_path / "spelled", [{"dockerfile": text, "a": "1"}, {"a": "2"}])
    assert drawn(spelled) == {"COPY . /": "##"}


def test_arguments_of_each_commit(tmp_path: Path) -> None:
    """{commit}, {short} and {time} are those of the commit; the same list of commits in another order is another history."""
    text = "FROM busybox\nRUN a\nARG SHA\nRUN b\nARG FIXED\nRUN c\n"
    states = [{"Dockerfile": text}, {"n": "1"}, {"n": "2"}]
    opts = {"build-arg:SHA": "{short}-{commit}", "build-arg:FIXED": "{other}"}
    assert drawn(told(tmp_path / "a", states, opts=opts)) == {"RUN a": "#..", "RUN b": "###", "RUN c": "###"}
    again = told(tmp_path / "b", states, opts=opts, rev=["main~1", "main", "main~1", "main~2"])
    assert drawn(again)["RUN b"] == "##.#"
    assert Question(opts={"build-arg:T": "{time}"}).at(again.timeline.columns[3].commit) == {
        "build-arg:T": str(EPOCH)
    }


def test_target(tmp_path: Path) -> None:
    """Only what the target needs has rows."""
    found = told(tmp_path, [{"Dockerfile": APP, "src/a": "1", "docs/b": "1"}], opts={"target": "build"})
    assert set(drawn(found)) == {"COPY src /src", "RUN make"}


def test_a_link_to_a_context_step_is_one_row(tmp_path: Path) -> None:
    """COPY --link is two vertices and one instruction."""
    found = told(
        tmp_path, [{"Dockerfile": "FROM busybox\nCOPY --link a /\nRUN x\n", "a": "1"}, {}, {"a": "2"}]
    )
    assert drawn(found) == {"COPY --link a /": "#.#", "RUN x": "#.#"}


def test_a_whole_context_with_git_is_noted(tmp_path: Path) -> None:
    """A checkout has a .git that changes with each commit: said only where it would be copied."""

    def said(name: str, text: str, ignore: str = "") -> bool:
        found = told(
            tmp_path / name,
            [{"Dockerfile": text, "a/b": "1", **({".dockerignore": ignore} if ignore else {})}],
        )
        return any(".git" in note for note in found.notes)

    whole = "FROM busybox\nCOPY . /app\n"
    assert (
        said("whole", whole)
        and not said("ignored", whole, ".git\n")
        and not said("part", "FROM busybox\nCOPY a /a\n")
    )


def test_costs_are_runs_times_earlier_durations(tmp_path: Path) -> None:
    """The median of earlier runs, of the same stage if it has any; without one, runs are counted and that is said."""
    text = "FROM busybox AS one\nCOPY a /\nRUN x\nRUN y\nRUN z\n"
    clock = Clock(
        {("one", "RUN x"): (1.0, 9.0, 3.0), ("two", "RUN x"): (50.0,), ("two", "RUN y"): (5.0, 7.0)}
    )
    found = told(tmp_path / "a", [{"Dockerfile": text, "a": "1"}, {"a": "2"}, {"n": "1"}], clock=clock)
    costs = {
        cost.row.command: (cost.ran, cost.cached, cost.each, cost.samples, cost.seconds)
        for cost in found.costs
    }
    assert costs["RUN x"] == (2, 1, 3.0, 3, 6.0) and costs["RUN y"] == (2, 1, 6.0, 2, 12.0)
    assert costs["RUN z"] == (2, 1, None, 0, None)
    assert [cost.row.command for cost in found.costs[:2]] == ["RUN y", "RUN x"]
    assert not any("counted in runs" in note for note in found.notes)
    assert any(
        "counted in runs" in note for note in told(tmp_path / "b", [{"Dockerfile": text, "a": "1"}]).notes
    )


def test_it_can_be_stopped(tmp_path: Path) -> None:
    """At the next commit."""
    with pytest.raises(BuildCancelled):
        told(tmp_path, [{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"}], stopped=True)


# --- what another order would have saved ---------------------------------------------------------------------

NODE = "FROM node\nARG SHA\nWORKDIR /app\nCOPY . .\nRUN npm ci\nRUN echo $SHA\n"
PROJECT = {"Dockerfile": NODE, "package.json": '{"name":"x"}', "package-lock.json": "{}", "src/a": "1"}
EDITS = [
    {"src/a": str(number)} if number != 5 else {"package.json": '{"name":"y"}'} for number in range(2, 9)
]


def test_savings_are_measured(tmp_path: Path) -> None:
    """The changed file is replayed: the install runs when its manifest changes, and the sums show it."""
    clock = Clock({("stage-0", "RUN npm ci"): (20.0, 30.0)})
    found = told(tmp_path, [PROJECT, *EDITS], clock=clock)
    (one,) = found.reorderings
    assert one.title == "Copy package.json and package-lock.json first" and (one.commits, one.of) == (8, 8)
    changes = {change.command: (change.before, change.after, change.open) for change in one.changes}
    assert changes == {"RUN npm ci": (8, 2, 0), "COPY package.json package-lock.json ./": (0, 2, 0)}
    assert one.runs == 6 and one.seconds == 6 * 25.0
    assert one.diff[2:] == (
        "@@ -3,4 +3,5 @@", " WORKDIR /app", "+COPY package.json package-lock.json ./", "+RUN npm ci", " COPY . .", "-RUN npm ci",
        " RUN echo $SHA",
    )  # fmt: skip


def test_changes_are_tried_together(tmp_path: Path) -> None:
    """An argument of each commit spoils the install: lower it goes, and only then the install in front saves all."""
    found = told(tmp_path, [PROJECT, *EDITS], opts={"build-arg:SHA": "{commit}"})
    assert [(one.title[:4], one.runs) for one in found.reorderings] == [("Both", 6)]
    assert {change.command: change.after for change in found.reorderings[0].changes}["RUN npm ci"] == 2
    text = "\n".join(found.reorderings[0].diff)
    assert "+COPY package.json package-lock.json ./" in text and "+ARG SHA" in text.replace(
        " ARG SHA", "+ARG SHA"
    )


def test_an_argument_whose_default_is_edited(tmp_path: Path) -> None:
    """It moves below what does not speak of it, in each commit that has it; an ARG of one value is not even tried."""
    text = "FROM busybox\nARG SAME=1\nARG V={}\nRUN slow\nRUN echo $V\n"
    found = told(tmp_path, [{"Dockerfile": text.format(number)} for number in (1, 2, 2, 3)])
    assert drawn(found) == {"RUN slow": "##.#", "RUN echo $V": "##.#"}
    (one,) = found.reorderings
    assert one.title == "Move ARG V down above its first use in line 5" and (one.commits, one.runs) == (4, 2)
    assert one.diff[3:] == (" ARG SAME=1", "+RUN slow", " ARG V=3", "-RUN slow", " RUN echo $V")


def test_what_saves_nothing_is_not_said(tmp_path: Path) -> None:
    """An argument that never changes; an order that is right already; a history without edits."""
    right = NODE.replace(
        "COPY . .\nRUN npm ci\n", "COPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .\n"
    )
    assert (
        told(
            tmp_path / "a", [{**PROJECT, "Dockerfile": right}, *EDITS], opts={"build-arg:SHA": "1"}
        ).reorderings
        == ()
    )
    assert told(tmp_path / "b", [PROJECT, {"n": "1"}][:1]).reorderings == ()


def test_a_change_counts_only_where_it_was_possible(tmp_path: Path) -> None:
    """Commits whose manifest needs more than itself keep their order, and their number is told."""
    local = '{"dependencies":{"own":"file:./own"}}'
    found = told(
        tmp_path,
        [{**PROJECT, "package.json": local}, {"src/a": "x"}, {"package.json": '{"name":"x"}'}, *EDITS[:3]],
    )
    (one,) = found.reorderings
    assert (one.commits, one.of, one.runs) == (4, 6, 3)


# --- rows ---------------------------------------------------------------------------------------------------


def test_rows_keep_their_order() -> None:
    """New steps stand below the one that precedes them, whichever commit brought them; twins stay apart."""
    rows = Rows()

    def place(*commands: str) -> list[int]:
        return rows.place([Step("s", command, at, "exec", ()) for at, command in enumerate(commands)])

    assert place("RUN a", "RUN x", "RUN x") == [0, 1, 2]
    assert place("RUN new one", "RUN a", "RUN x", "RUN between", "RUN x") == [3, 0, 1, 4, 2]
    assert place("RUN a", "RUN x", "RUN x", "RUN last") == [0, 1, 2, 5]
    assert [row.command for row in rows.ordered()[1]] == [
        "RUN new one",
        "RUN a",
        "RUN x",
        "RUN between",
        "RUN x",
        "RUN last",
    ]


def test_a_dockerfile_that_moved_is_named(tmp_path: Path) -> None:
    """A commit that has it elsewhere says where."""
    text = "FROM a\nRUN true\n"
    found = told(tmp_path, [{"Dockerfile": text}, {"Dockerfile": "-", "docker/Dockerfile": text}])
    assert [column.error for column in found.timeline.columns] == [
        "", "there is no Dockerfile (-f may say docker/Dockerfile)",
    ]  # fmt: skip
