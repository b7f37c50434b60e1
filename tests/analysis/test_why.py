"""Recorded builds compared: graphs made by hand, where outcomes and keys can be what they like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import pytest

from bknb import llb
from bknb.analysis import Cause, Explanation, Kind, Seen, explain
from bknb.analysis.causes import StepReason
from bknb.analysis.changes import changes
from bknb.analysis.files import MOST_CAUSES, file_causes
from bknb.analysis.seen import uses, variables
from bknb.analysis.words import phrase, reason, sentence, text
from bknb.cache.listing import ListedFile, Listing
from bknb.digest import Digest
from bknb.errors import Range
from bknb.events import BuildEvent, DecisionEvent, Event, Phase, VertexEvent
from bknb.llb.marshal import vertex as make
from bknb.llb.marshal import walk
from bknb.llb.ops import ExecOp, SourceOp
from bknb.llb.vertex import Edge, Vertex
from bknb.record import StepRecord

KINDS = {SourceOp: "image", ExecOp: "exec"}


def chain(*commands: str, base: str = "busybox", platform: str = "linux/amd64", **env: str) -> list[Vertex]:
    """An image and commands on each other, inputs first."""
    state: llb.State = llb.image(base)
    for name, value in env.items():
        state = state.with_env(name, value)
    for command in commands:
        state = state.run(["sh", "-c", command])
    edge = state.edge(platform=platform)
    assert edge is not None
    return list(walk(edge.vertex))


def shell(program: str, *commands: str) -> list[Vertex]:
    """An image and the commands of a shell on each other, inputs first."""
    state: llb.State = llb.image("busybox")
    for command in commands:
        state = state.run([program, "-c", command])
    edge = state.edge(platform="linux/amd64")
    assert edge is not None
    return list(walk(edge.vertex))


def lined(vertices: Sequence[Vertex]) -> list[Event]:
    """Each vertex has a line of its own, the image the first."""
    return [
        VertexEvent(vertex.digest, "", ranges=(Range(number, 0, number, 0),))
        for number, vertex in enumerate(vertices, 1)
    ]


def seen(
    id: str, vertices: Sequence[Vertex], outcomes: str, keys: str, events: Sequence[Event] = (), source: str = "",
    opts: Mapping[str, str] | None = None,
) -> Seen:  # fmt: skip
    """A build; a letter for each step's outcome (d c r s f) and for its key ("-" for none)."""
    words = {"d": "definition", "c": "content", "r": "ran", "s": "skipped", "f": "failed"}
    steps = [
        StepRecord(
            vertex.digest, command=name, stage="x", kind=KINDS[type(vertex.op)], outcome=words[outcome],
            inputs=tuple(e.vertex.digest for e in vertex.inputs), solver_digest="" if key == "-" else f"sha256:{key}",
        )
        for vertex, outcome, key in zip(vertices, outcomes, keys, strict=True)
        for name in [vertex.op.meta.args[-1] if isinstance(vertex.op, ExecOp) and vertex.op.meta else "FROM"]
    ]  # fmt: skip
    begun = BuildEvent(id, 1.0, dockerfile=source, frontend="f/1")
    return Seen.of(id, steps, [begun, *events], [Edge(vertices[-1], 0)], opts)


def causes(found: Explanation) -> list[Cause]:
    """The root causes."""
    return list(found.causes)


def test_a_step_that_was_edited_is_the_cause_of_those_above_it() -> None:
    """The step is named with both texts, what stands on it follows."""
    before = seen("1", chain("a", "b", "c"), "rrrr", "0123")
    after = seen("2", chain("a", "B!", "c"), "ddrr", "0167")
    found = explain(before, after)
    assert causes(found) == [Cause(Kind.INSTRUCTION, "B!", "b", "B!")] or causes(found)[0].kind is Kind.NEW
    assert [one.step.command for one in found.made_run(causes(found)[0])] == ["B!", "c"]
    assert [reason(one) for one in found.steps][-1] == "because of B!"
    assert sentence(found)[0].endswith("It made 2 steps run.")


@pytest.mark.parametrize(
    ("fates", "told"),
    [
        (("evicted by prune",), ["3 results were evicted by prune: 3 steps ran"]),
        (
            ("evicted by prune", "evicted by rule 1"),
            ["3 results were evicted: 3 steps ran", "its result was evicted by prune (2 times)", "its result was evicted by rule 1"],
        ),
    ],
)  # fmt: skip
def test_what_became_of_many_results_is_said_once(fates: tuple[str, ...], told: list[str]) -> None:
    """A cause for each step that is gone, and one line for each fate."""
    steps = [StepRecord(name, f"RUN {name}", outcome="ran", kind="exec") for name in "abc"]
    own = [Cause(Kind.EVICTED, name, after=fate) for name, fate in zip("abc", (fates[0], *fates, fates[0]), strict=False)]
    reasons = [StepReason(step, own=(one,), roots=(one,)) for step, one in zip(steps, own, strict=True)]
    lines = [line.strip() for line in text(Explanation("1", "2", reasons, own)).splitlines()]
    assert [line for line in lines if not line.startswith("•")] == told


def test_an_equal_key_cuts_a_cause_off() -> None:
    """What came out the same passes nothing on, whatever happened above it."""
    before = seen("1", chain("echo one", "b"), "rrr", "012")
    after = seen("2", chain("echo two", "b"), "drd", "092")
    found = explain(before, after)
    (cause,) = causes(found)
    assert [one.step.command for one in found.made_run(cause)] == ["echo two"]


def test_a_step_that_is_not_there_any_more() -> None:
    """What stood on it runs because it was removed."""
    before = seen("1", chain("one thing", "another", "last"), "rrrr", "0123")
    after = seen("2", chain("one thing", "last"), "ddr", "019")
    assert causes(explain(before, after)) == [Cause(Kind.REMOVED, "another")]


def test_steps_in_another_order() -> None:
    """No text was edited: the order is the cause."""
    before = seen("1", chain("first thing", "something else"), "rrr", "012")
    after = seen("2", chain("something else", "first thing"), "drr", "089")
    found = causes(explain(before, after))
    assert found and {cause.kind for cause in found} <= {Kind.FIELD, Kind.NEW, Kind.REMOVED}


def test_another_platform_and_another_image() -> None:
    """Each is a cause of its own kind, with both values."""
    one = seen("1", chain("a"), "rr", "01")
    assert {
        c.kind for c in explain(one, seen("2", chain("a", platform="linux/arm64"), "rr", "89")).causes
    } == {Kind.PLATFORM}
    (cause,) = explain(one, seen("2", chain("a", base="alpine"), "rr", "89")).causes
    assert (cause.kind, cause.before.split(":")[0], cause.after.split(":")[0]) == (
        Kind.IMAGE,
        "busybox",
        "alpine",
    )


def test_a_tag_that_moved_without_the_definition_saying_so() -> None:
    """The op is what it was: the texts that the source's keys were taken of tell the two digests."""
    vertices = chain("a")
    name = vertices[0].op.identifier if isinstance(vertices[0].op, SourceOp) else ""
    digests = [str(Digest.of_text(word)) for word in ("old", "new")]
    texts = {f"sha256:key{n}": f"{name} is {digest}" for n, digest in enumerate(digests)}
    keyed = [
        DecisionEvent(1, vertices[0].digest, Phase.KEY, "keyed", (f"sha256:key{n}",), 1.0) for n in (0, 1)
    ]
    found = explain(
        seen("1", vertices, "rr", "01", keyed[:1]), seen("2", vertices, "rr", "23", keyed[1:]), texts.get
    )
    (cause,) = found.causes
    assert (cause.kind, cause.before, cause.after) == (Kind.IMAGE_MOVED, *digests)


@pytest.mark.parametrize(
    ("outcome", "evicted", "event", "kind"),
    [
        ("f", "", None, Kind.UNFINISHED),
        ("r", "evicted on a day by rule 2", None, Kind.EVICTED),
        ("r", "", ("load", "lost"), Kind.BLOB_MISSING),
        ("r", "", ("key", "ignored"), Kind.NO_CACHE),
        ("r", "", None, Kind.GONE),
    ],
)
def test_nothing_changed_and_it_ran(
    outcome: str, evicted: str, event: tuple[str, str] | None, kind: Kind
) -> None:
    """It is said why the result could not be had, as far as anything is known."""
    vertices = chain("a")
    said = [DecisionEvent(1, vertices[1].digest, Phase(event[0]), event[1], (), 1.0)] if event else []
    before, after = seen("1", vertices, "r" + outcome, "01"), seen("2", vertices, "dr", "01", said)
    found = explain(before, after, evicted=lambda step, old: evicted)
    assert [cause.kind for cause in found.causes] == [kind]
    assert evicted in text(found) and text(found)


def test_a_variable_that_many_steps_see_is_one_cause() -> None:
    """Each step's op has it; it is told once, as the word of the Dockerfile that sets it."""
    source = "FROM busybox\nENV E=1\nRUN a\n"
    before = seen("1", chain("a", "b", E="1"), "rrr", "012", source=source)
    after = seen("2", chain("a", "b", E="2"), "drr", "089", source=source.replace("E=1", "E=2"))
    found = explain(before, after)
    assert causes(found) == [Cause(Kind.ENV, "E", "1", "2")] and len(found.made_run(causes(found)[0])) == 2
    assert phrase(causes(found)[0]) == "ENV E 1 → 2"
    argument = replace(after, opts={"build-arg:E": "2"})
    assert causes(explain(before, argument)) == [Cause(Kind.ARG, "E", "1", "2")]


def test_another_frontend() -> None:
    """The same text became another op, and the frontend is another: that is the cause."""
    source = "FROM busybox\nRUN a\n"
    one, two = chain("a"), chain("a")
    op = two[1].op
    assert isinstance(op, ExecOp) and op.meta is not None
    changed = make(replace(op, meta=replace(op.meta, hostname="h")), two[1].inputs, platform=two[1].platform)
    before = seen("1", one, "rr", "01", source=source)
    after = replace(seen("2", [two[0], changed], "dr", "09", source=source), frontend="f/2")
    assert causes(explain(before, after)) == [Cause(Kind.FRONTEND, "", "f/1", "f/2")]
    (field,) = causes(explain(before, replace(after, frontend="f/1")))
    assert (field.kind, field.subject, field.after) == (Kind.FIELD, "host name", "h")
    assert [change.path for change in changes(one[1], changed)] == ["Exec.meta.hostname"]


def test_another_shell_is_one_cause() -> None:
    """Each RUN below has another command because of it, and none was edited."""
    source = "FROM busybox\nRUN a\nRUN b\n"
    before = seen("1", shell("sh", "a", "b"), "rrr", "012", lined(shell("sh", "a", "b")), source)
    after = seen("2", shell("ash", "a", "b"), "drr", "089", lined(shell("ash", "a", "b")), source)
    found = explain(before, after)
    assert causes(found) == [Cause(Kind.FIELD, "SHELL", '["sh", "-c"]', '["ash", "-c"]')]
    assert len(found.made_run(causes(found)[0])) == 2


def test_only_the_spaces_of_a_command_were_edited() -> None:
    """The two texts are the proof, and it is said that they differ in nothing else."""
    one, two = shell("sh", "echo  a"), shell("sh", "echo a")
    before = seen("1", one, "rr", "01", lined(one), "FROM busybox\nRUN echo  a\n")
    after = seen("2", two, "dr", "09", lined(two), "FROM busybox\nRUN echo a\n")
    (cause,) = causes(explain(before, after))
    assert (cause.kind, cause.before, cause.after) == (Kind.INSTRUCTION, "RUN echo  a", "RUN echo a")
    assert phrase(cause).endswith("was edited (spaces only)")


FILE = ListedFile("/a", 0o100644, size=3, digest="d")


@pytest.mark.parametrize(
    ("now", "kinds"),
    [
        ({"digest": "e"}, [Kind.FILE_CONTENT]),
        ({"mode": 0o100755, "digest": "e"}, [Kind.FILE_MODE]),
        ({"uid": 7, "digest": "e"}, [Kind.FILE_OWNER]),
        ({"xattrs": {"user.a": "1"}, "digest": "e"}, [Kind.FILE_XATTR]),
        ({"mode": 0o100755, "size": 4, "digest": "e"}, [Kind.FILE_MODE, Kind.FILE_CONTENT]),
        ({"mode": 0o040755, "digest": ""}, [Kind.FILE_CONTENT]),
        ({}, []),
    ],
)
def test_what_is_different_in_a_file(now: dict[str, object], kinds: list[Kind]) -> None:
    """A header explains another digest; other bytes are claimed only where they are proven."""
    after = msgspec.structs.replace(FILE, **now)
    assert [c.kind for c in file_causes(Listing((FILE,)), Listing((after,)), ("", ""))] == kinds


def test_a_folder_that_came_is_named_by_its_files() -> None:
    """Only an empty one is named itself."""
    folder, inside = ListedFile("/d", 0o040755), ListedFile("/d/f", 0o100644)
    named = [c.subject for c in file_causes(Listing(), Listing((folder, inside)), ("", ""))]
    assert named == ["d/f"]
    assert [c.subject for c in file_causes(Listing(), Listing((folder,)), ("", ""))] == ["d"]


def test_lists_that_were_cut_claim_nothing_beyond_their_end() -> None:
    """What lies behind the end of either is not known; and the causes of one step are bounded."""
    some = tuple(ListedFile(f"/{n:04}", 0o100644) for n in range(1000))
    assert file_causes(Listing(some[:10], True), Listing(some), ("", "")) == []
    folder = ListedFile("/", 0o040755)
    causes = file_causes(Listing(), Listing((folder, *some)), ("", ""))
    assert len(causes) == MOST_CAUSES


def test_variables_of_a_dockerfile() -> None:
    """ARG and ENV with their lines; a use is a use of the whole name."""
    found = variables("ARG A=1\nFROM x\nARG B\nENV A=2 C=3\nRUN $A\n")
    assert {name: [(one.word, one.line) for one in places] for name, places in found.items()} == {
        "A": [("ARG", 1), ("ENV", 4)], "B": [("ARG", 3)], "C": [("ENV", 4)],
    }  # fmt: skip
    assert uses("a ${B:-x}", "B") and not uses("a $BC ${BC}", "B")
    assert variables("FROM\nRUN <<") == {} == variables("")
