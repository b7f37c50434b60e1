"""``local://`` sources through a builder: filters, what is copied again, other kernels, kills, links."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bknb import llb
from bknb.api import Build, Client, Preferences
from bknb.errors import BuildError
from bknb.events import VertexEvent
from bknb.executor.shim import ShimProcess
from bknb.options import parse
from tests.bench.peer import Peer, peer

pytestmark = pytest.mark.root


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A builder with an empty store."""
    client = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    yield client
    client.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder with everything that filters tell apart."""
    folder = tmp_path / "context"
    for path in (
        "a.txt", "b.md", "src/a.c", "src/b.o", "src/sub/c.c", "src/sub/deep/d.o", "docs/x.md", "docs/keep/y.md",
        "node_modules/m/i.js", "real/file", "real/more/f", "x.d/one", "y.d/one", "y.d/two", "empty/.keep",
    ):  # fmt: skip
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / "bare").mkdir()
    for link, target in (
        ("link", "real"), ("abs", "/real/file"), ("out", "../../etc/hostname"), ("two.txt", "a.txt"), ("loop", "loop"),
        ("z.d", "real"), ("to-docs", "src/../docs"), ("src/up", "../b.md"), ("dangling", "nothing/here"),
    ):  # fmt: skip
        (folder / link).symlink_to(target)
    return folder


FILTERS: dict[str, dict[str, Sequence[str]]] = {
    "everything": {},
    "include a folder": {"include": ["src"]},
    "include wildcards": {"include": ["**/*.c", "*.md"]},
    "include a file in a folder": {"include": ["src/sub/c.c", "docs/keep"]},
    "include and exclude": {"include": ["src", "docs"], "exclude": ["**/*.o", "docs/x.md"]},
    "include what was excluded": {"include": ["src/**"], "exclude": ["src", "!src/sub"]},
    "exclude with exceptions": {"exclude": ["*", "!src", "src/sub", "!src/sub/deep"]},
    "exclude all but one": {"exclude": ["**", "!docs/keep/y.md"]},
    "exclude nested": {"exclude": ["node_modules", "**/*.o", "docs", "!docs/keep"]},
    "include negated": {"include": ["src", "!src/sub"]},
    "include nothing that is there": {"include": ["no/such", "nor?this"]},
    "follow a link": {"follow_paths": ["link"]},
    "follow through a link": {"follow_paths": ["link/file"]},
    "follow an absolute link": {"follow_paths": ["abs"]},
    "follow out of the folder": {"follow_paths": ["out"]},
    "follow a loop": {"follow_paths": ["loop", "dangling"]},
    "follow wildcards": {"follow_paths": ["*.txt"]},
    "follow wildcards in a folder": {"follow_paths": ["*.d/one"]},
    "follow wildcards without links": {"follow_paths": ["[xy].d/one"]},
    "follow a link in a folder": {"follow_paths": ["src/up", "to-docs/keep"]},
    "follow all": {"follow_paths": ["src", "."]},
    "follow beside include": {"include": ["docs"], "follow_paths": ["abs", "docs/keep"]},
    "follow beside exclude": {"follow_paths": ["src", "link"], "exclude": ["**/*.o", "real/more"]},
    "follow the same twice": {"follow_paths": ["link/file", "link/more"]},
}


def local(name: str) -> llb.State:
    """The context as one of the filters has it."""
    return llb.local("context", **FILTERS[name])  # type: ignore[arg-type]


def taken(client: Client, context: Path, name: str) -> set[str]:
    """The paths that bknb takes."""
    done = client.build(parse([str(context)], cell=False), edge=local(name).edge(), llb=True)
    return {str(file.path).strip("/") for file in done.files.walk() if str(file.path) != "/"}


@pytest.fixture(scope="module")
def buildkit() -> Iterator[Peer]:
    """A daemon of this module's own."""
    with peer("127.0.0.1:1") as found:
        assert found is not None
        yield found


@pytest.mark.peer
@pytest.mark.parametrize("name", FILTERS)
def test_filters_take_what_buildkit_takes(
    name: str, client: Client, context: Path, buildkit: Peer, tmp_path: Path
) -> None:
    """Include, exclude and follow paths: the same paths, with the folders above them."""
    out = tmp_path / "out"
    subprocess.run(
        ["buildctl", "--addr", buildkit.address, "build", "--progress=plain", "--no-cache", "--local",
         f"context={context}", "--output", f"type=local,dest={out}"],
        input=local(name).marshal().to_bytes(), check=True, capture_output=True, start_new_session=True,
    )  # fmt: skip
    theirs = {str(path.relative_to(out)) for path in out.rglob("*")} if out.exists() else set()
    assert taken(client, context, name) == theirs


def notes(build: Build) -> list[str]:
    """What the steps that looked at a context say."""
    return sorted({e.note for e in build.events if isinstance(e, VertexEvent) and e.note.startswith("looked at")})


def copies(client: Client, context: Path, *names: str) -> Build:
    """A build that copies several parts of one folder."""
    state = llb.scratch()
    for number, name in enumerate(names):
        state = state.file(llb.copy(local(name), "/", f"/{number}", create_dest=True, contents_only=True))
    return client.build(parse([str(context)], cell=False), edge=state.edge(), llb=True)


def test_filters_of_one_build_do_not_undo_each_other(client: Client, context: Path) -> None:
    """Two parts of a folder: each is copied once, and then only what changed in it; the second begins with the first."""
    both = ("include a folder", "exclude nested")
    copies(client, context, *both)
    assert notes(copies(client, context, *both)) == [
        "looked at 20 files, copied none", "looked at 5 files, copied none",
    ]  # fmt: skip
    (context / "src" / "a.c").write_text("changed")
    (context / "a.txt").write_text("changed too")
    done = copies(client, context, *both)
    assert notes(done) == ["looked at 20 files, copied 2 (18 B)", "looked at 5 files, copied 1 (7 B)"]
    assert done.files.text("/0/src/a.c") == done.files.text("/1/src/a.c") == "changed"
    assert not done.files.exists("/0/a.txt") and not done.files.exists("/1/docs/x.md")


def test_what_is_looked_at_and_copied_is_said(client: Client, context: Path) -> None:
    """The first time all of it, then nothing, then what changed, what came and what went."""

    def build() -> list[str]:
        done = client.build(parse([str(context)], cell=False), dockerfile="FROM scratch\nCOPY src /s\n")
        return notes(done)

    assert build() == ["looked at 5 files, copied 5 (41 B)"]
    assert build() == ["looked at 5 files, copied none"]
    (context / "a.txt").write_text("nobody copies this one")
    assert build() == ["looked at 5 files, copied none"]
    (context / "src" / "b.o").write_text("12345")
    (context / "src" / "new").write_text("123")
    (context / "src" / "up").unlink()
    assert build() == ["looked at 5 files, copied 2 (8 B), removed 1"]


def test_a_link_that_points_elsewhere_is_followed_there(client: Client, context: Path) -> None:
    """What it points at now was left out of the context that is gone on with; what it pointed at goes."""
    (context / "src" / "over").symlink_to("../a.txt")

    def build() -> str:
        done = client.build(parse([str(context)], cell=False), dockerfile="FROM scratch\nCOPY src/over /there\n")
        return done.files.text("/there")

    for name in ("a.txt", "b.md", "docs/x.md", "a.txt"):
        (context / "src" / "over").unlink()
        (context / "src" / "over").symlink_to(f"../{name}")
        (context / name).write_text(name)
        assert build() == name


def test_another_kernel_goes_on(client: Client, context: Path, tmp_path: Path) -> None:
    """What one kernel copied another one knows, and so do both when they build in turn."""
    other = Client(Preferences(root=str(tmp_path / "state"), offline=True))
    try:
        words, text = parse([str(context)], cell=False), "FROM scratch\nCOPY . /all\n"
        client.build(words, dockerfile=text)
        assert notes(other.build(words, dockerfile=text)) == ["looked at 24 files, copied none"]
        for number in range(4):
            (context / "a.txt").write_text(f"{number}")
            one, two = (client, other) if number % 2 else (other, client)
            for each in (one, two, one):
                assert each.build(words, dockerfile=text).files.text("/all/a.txt") == f"{number}"
    finally:
        other.close()


def test_a_shim_that_was_killed_is_told_what_there_was(client: Client, context: Path) -> None:
    """Its successor compares with what the kernel has written down."""
    words, text = parse([str(context)], cell=False), "FROM scratch\nCOPY . /all\n"
    client.build(words, dockerfile=text)
    pid = client.call(_shim_of)
    os.kill(pid, signal.SIGKILL)
    (context / "a.txt").write_text("2")
    with contextlib.suppress(BuildError):  # it may be noticed in the middle of a request
        client.build(words, dockerfile="FROM scratch\nCOPY src /src\n")
    done = client.build(words, dockerfile=text)
    assert notes(done) == ["looked at 24 files, copied 1 (1 B)"] and done.files.text("/all/a.txt") == "2"


async def _shim_of(builder: Any) -> int:
    return int(builder.parts.shim.pid)


def test_a_folder_that_changes_all_the_time_is_copied_anew(client: Client, context: Path) -> None:
    """What lies below a context does not grow without end."""
    words, text = parse([str(context)], cell=False), "FROM scratch\nCOPY big /\n"
    depths = []
    for number in range(6):
        (context / "big").write_bytes(os.urandom(20_000_000) + b"%d" % number)
        client.build(words, dockerfile=text)
        depths.append(client.call(_depth))
    assert max(depths) <= 5 and depths[-1] < 5


async def _depth(builder: Any) -> int:
    return max(context.state.depth for context in builder.parts.local._contexts.values())


KILLED = """
import asyncio, os, sys
from bknb.api import Client, Preferences
from bknb.executor.shim import ShimProcess
from bknb.options import parse
root, context, when = sys.argv[1], sys.argv[2], int(sys.argv[3])
call, count = ShimProcess.call, 0
def passed():
    global count
    count += 1
    if count == when:
        os.kill(os.getpid(), 9)
async def counted(shim, op, **arguments):
    if op.startswith(("contexts.", "files.", "trees.")):
        asked = asyncio.ensure_future(call(shim, op, **arguments))
        await asyncio.sleep(0)
        passed()
        answer = await asked
        passed()
        return answer
    return await call(shim, op, **arguments)
ShimProcess.call = counted
Client(Preferences(root=root, offline=True)).build(parse([context], cell=False), dockerfile="FROM scratch\\nCOPY . /all\\n")
print("done")
"""


def test_killed_during_and_after_every_request(client: Client, context: Path, tmp_path: Path) -> None:
    """A kernel killed while the shim works for it, or just after, leaves what another one builds rightly from."""
    words, text = parse([str(context)], cell=False), "FROM scratch\nCOPY . /all\n"
    for when in range(1, 60):
        (context / "a.txt").write_text(f"{when}")
        (context / f"new{when % 3}").write_text(f"{when}")
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "state"), str(context), str(when)],
            capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        (context / "b.md").write_text(f"{when}")
        built = client.build(words, dockerfile=text)
        for name in ("a.txt", "b.md", f"new{when % 3}"):
            assert built.files.text(f"/all/{name}") == f"{when}"
        if done.stdout == "done\n":
            break
    assert when > 8  # look, sync, seal, apply, seal


def test_files_of_a_copy_are_links_under_one_path_only(client: Client, context: Path) -> None:
    """What COPY takes is on the disk once; a second path gets files of its own, and no file looks like two names."""
    dockerfile = (
        "FROM scratch AS a\nWORKDIR /app\nCOPY . .\nFROM a AS b\nCOPY . /other\n"
        "FROM scratch\nCOPY --from=b / /\n"
    )
    words = parse([str(context)], cell=False)
    done = client.build(words, dockerfile=dockerfile)
    stats = {str(file.path): file for file in done.files.walk()}
    assert "/app/src/a.c" in stats and "/other/src/a.c" in stats
    layers = client.call(_layers)
    assert len(layers) == 5 and len({path.stat().st_ino for path in layers}) == 4  # of the context, and /app's
    again = client.build(words, dockerfile=dockerfile)
    assert {step.outcome for step in again.steps if step.command.startswith("COPY")} <= {"content", "definition"}


async def _layers(builder: Any) -> list[Path]:
    root = Path(builder.parts.settings.root)
    return [path for path in root.glob("**/layers/*/fs/**/c.c") if path.is_file()]


def test_a_context_stays_as_long_as_what_links_to_it(client: Client, context: Path) -> None:
    """Its bytes count once; it goes with the last result that has files of it."""
    (context / "src" / "large").write_bytes(os.urandom(1 << 20))
    client.build(parse([str(context)], cell=False), dockerfile="FROM scratch\nCOPY . /all\n")
    facts = client.call(_facts)
    assert 1 << 20 <= sum(fact.size for fact in facts) < 3 << 19
    context_of = next(fact for fact in facts if fact.type == "source.local")
    assert [fact.type for fact in facts if context_of.id in fact.parents] == ["regular"]


async def _facts(builder: Any) -> Any:
    return (await builder.collector.survey()).facts


def test_a_result_that_links_is_written_to_like_any_other(
    client: Client, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps on top change copies: the context, and what else links to it, keep their bytes, modes and owners."""
    (context / "Dockerfile").write_text(
        "FROM busybox\nCOPY . /all\nRUN echo more >> /all/src/a.c && chmod 777 /all/src/sub/c.c && chown 1:2 /all/a.txt\n"
    )
    words = parse([str(context)], cell=False)
    first = client.build(words, dockerfile="FROM busybox\nCOPY . /all\n")
    changed = client.build(words)
    assert changed.files.text("/all/src/a.c") == "src/a.cmore\n"
    again = client.build(words, dockerfile="FROM busybox\nCOPY . /all\nRUN true\n")
    for build in (first, again):
        assert build.files.text("/all/src/a.c") == "src/a.c"
        assert build.files.stat("/all/src/sub/c.c").mode & 0o777 == 0o644
        assert build.files.stat("/all/a.txt").uid == 0
    calls: list[str] = []
    call = ShimProcess.call

    async def counted(shim: ShimProcess, op: str, **arguments: Any) -> Any:
        calls.append(op)
        return await call(shim, op, **arguments)

    monkeypatch.setattr(ShimProcess, "call", counted)
    client.build(words)
    assert [op for op in calls if op.startswith(("contexts", "files", "trees"))] == ["contexts.look"]
