"""Random Dockerfiles and random edits: after each, the same steps are cached as in BuildKit."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bknb.api import Client, Preferences
from bknb.errors import BuildError
from bknb.options import parse
from tests.bench.peer import Peer, peer
from tests.bench.rows import Mirror
from tests.peer.test_side_by_side import step, theirs_cached

pytestmark = [pytest.mark.peer, pytest.mark.root]

FILES = ("a.txt", "b.txt", "src/c.txt", "src/d.md", "src/deep/e.txt", "lib/f.txt")
WORDS = ("one", "two", "three")


@dataclass(frozen=True)
class State:
    """What is built: a Dockerfile's stages, each with its lines; files with text and mode; patterns to ignore."""

    stages: tuple[tuple[str, ...], ...]
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def write(self, folder: Path, host: str) -> None:
        """Make a folder what this says; the modes of folders are always the same."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lines = ["ARG TOP=1"]
        for number, stage in enumerate(self.stages):
            lines += [f"FROM {host}/library/busybox AS s{number}", *stage]
        (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
        (folder / ".dockerignore").write_text(
            "\n".join(("Dockerfile", ".dockerignore", *self.ignored)) + "\n"
        )
        for name, (text, mode) in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)


def lines_of(chance: random.Random, stage: int) -> list[str]:
    """Some instructions; what they write is known from what they read."""
    number = chance.randrange(100)
    word = chance.choice(WORDS)
    earlier = [f"s{before}" for before in range(stage)]
    made: list[Callable[[], str]] = [
        lambda: f"RUN echo {word} > /made{number}",
        lambda: "RUN find / -xdev -name '*.txt' | sort > /list",
        lambda: "RUN cat /*.txt /in/*.txt 2>/dev/null | wc -l > /count",
        lambda: "RUN ls / > /list",
        lambda: f"RUN rm -rf /in/{chance.choice(FILES)} && mkdir -p /in/new{number}",
        lambda: (
            f"COPY {chance.choice(('a.txt', 'b.txt', '*.txt', 'src', 'src/', 'lib', '.', 'src/*.md', 'src/deep'))} /in/"
        ),
        lambda: f"COPY --link {chance.choice(('a.txt', 'src', 'lib/f.txt'))} /linked{number % 3}/",
        lambda: "COPY --exclude=*.md src /in/src",
        lambda: "COPY --parents src/deep/e.txt lib /in/",
        lambda: f"COPY --chmod=0{chance.choice(('640', '755'))} --chown=3:4 a.txt /owned",
        lambda: f"COPY <<E /doc{number % 3}\n{word}\nE",
        lambda: f"ADD {chance.choice(('b.txt', 'lib'))} /added/",
        lambda: f"ENV E{number % 3}={word}",
        lambda: f"ARG A{number % 3}={word}",
        lambda: "ARG TOP",
        lambda: f"WORKDIR /w{number % 3}",
        lambda: f"LABEL l={word}",
        lambda: f"USER {number % 2}",
        lambda: "RUN --mount=target=/ctx cat /ctx/a.txt /ctx/b.txt > /tmp/ctx 2>/dev/null || true",
        lambda: "RUN --mount=target=/ctx,source=src ls -R /ctx > /tmp/src 2>/dev/null || true",
        lambda: f"RUN --mount=type=cache,target=/cache echo {word} > /cache/x",
        lambda: f"RUN --mount=type=tmpfs,target=/t --network=none echo {word} > /t/x",
    ]
    if earlier:
        of = chance.choice(earlier)
        made += 2 * [
            lambda: f"COPY --from={of} /bin/sh /etc/passw[d] /from{number % 3}/",
            lambda: f"COPY --from={of} /tmp /from{number % 3}/",
            lambda: f"COPY --link --from={of} /etc /linked/etc",
            lambda: f"RUN --mount=from={of},target=/other ls /other > /tmp/other{number % 3}",
            lambda: f"RUN --mount=from={of},target=/other,source=tmp,rw ls /other > /tmp/part",
        ]  # fmt: skip
    return chance.choice(made)().split("\x00")


def begin(chance: random.Random) -> State:
    """A first state."""
    stages = []
    for stage in range(chance.randrange(2, 5)):
        lines = [line for _ in range(chance.randrange(2, 6)) for line in lines_of(chance, stage)]
        if stage:
            lines.append(f"COPY --from=s{stage - 1} /tmp /chain")
        stages.append(tuple(lines))
    files = {name: (f"{chance.choice(WORDS)}\n", 0o644) for name in FILES}
    return State(tuple(stages), files)


def edited(chance: random.Random, state: State, past: list[State]) -> tuple[str, State]:
    """Another state, and what was done."""
    kind = chance.choice(
        (
            "text",
            "text",
            "add",
            "remove",
            "mode",
            "nothing",
            "line",
            "line",
            "insert",
            "drop",
            "swap",
            "ignore",
            "back",
        )
    )
    files, stages = dict(state.files), [list(stage) for stage in state.stages]
    stage = chance.randrange(len(stages))
    place = chance.randrange(len(stages[stage]))
    name = chance.choice(sorted(files)) if files else ""
    match kind:
        case "text" if name:
            files[name] = (f"{chance.choice(WORDS)} {chance.randrange(3)}\n", files[name][1])
        case "add":
            files[f"src/n{chance.randrange(3)}.txt"] = ("new\n", 0o644)
        case "remove" if name.startswith(("src/n", "lib")):
            del files[name]
        case "mode" if name:
            files[name] = (files[name][0], chance.choice((0o600, 0o755)))
        case "line":
            stages[stage][place] = lines_of(chance, stage)[0]
        case "insert":
            stages[stage].insert(place, lines_of(chance, stage)[0])
        case "drop" if len(stages[stage]) > 1:
            del stages[stage][place]
        case "swap" if place:
            stages[stage][place - 1 : place + 1] = reversed(stages[stage][place - 1 : place + 1])
        case "ignore":
            return kind, replace(state, ignored=chance.choice(((), ("src/deep",), ("**/*.md",), ("lib",))))
        case "back":
            return kind, chance.choice(past)
    return kind, State(tuple(map(tuple, stages)), files, state.ignored)


Answers = list[tuple[str, bool]]
"""Instructions and whether they were cached, sorted; without their stage, since a step that stages share has one name."""


def theirs_of(daemon: Peer, context: Path) -> Answers | None:
    """What BuildKit had cached; None where the build failed."""
    try:
        return sorted(
            (name.partition("] ")[2], cached) for name, cached in theirs_cached(daemon, context).items()
        )
    except subprocess.CalledProcessError:
        return None


def ours_of(client: Client, context: Path) -> Answers | None:
    """What bknb had cached of the steps that were needed; None where the build failed."""
    try:
        build = client.build(parse([str(context)], cell=False))
    except BuildError:
        return None
    needed = [s for s in build.steps if step(s.name) and s.outcome != "skipped"]
    return sorted((s.name.partition("] ")[2], s.view.state.cached) for s in needed)


def walk(mirror: Mirror, tmp_path: Path, seed: int, builds: int) -> None:
    """Build and edit so many times; say all that differs."""
    chance = random.Random(seed)
    state = begin(chance)
    past = [state]
    context = tmp_path / "context"
    client = Client(Preferences(root=str(tmp_path / "state")))
    try:
        with peer(mirror.host) as daemon:
            assert daemon is not None
            kind = "first"
            for number in range(builds):
                state.write(context, mirror.host)
                theirs, ours = theirs_of(daemon, context), ours_of(client, context)
                assert (number, kind, ours) == (number, kind, theirs), (context / "Dockerfile").read_text()
                kind, state = edited(chance, state, past)
                past.append(state)
    finally:
        client.close()


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 100))]
)
def test_random_walks(mirror: Mirror, tmp_path: Path, seed: int) -> None:
    """One Dockerfile and its edits, ten builds in a row."""
    walk(mirror, tmp_path, seed, 10)
