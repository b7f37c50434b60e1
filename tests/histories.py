"""Git repositories with a history, written by ``git fast-import``: hundreds of commits in one process."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import need

EPOCH = 1_770_000_000
"""When the first commit was made; each other one follows an hour later."""


@dataclass
class State:
    """The files of a commit: path -> mode and bytes."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def write(self, path: str, text: str, mode: str = "100644") -> None:
        """A file, or a link that points at `text` where the mode is 120000."""
        self.files[path] = mode, text.encode(errors="surrogateescape")

    def remove(self, path: str) -> None:
        """A file, or everything in a folder."""
        self.files = {
            name: one for name, one in self.files.items() if name != path and not name.startswith(f"{path}/")
        }


def make(folder: Path, states: Sequence[tuple[str, Mapping[str, tuple[str, bytes]]]]) -> None:
    """A repository with a commit for each (subject, files)."""
    git(folder, "init", "-q", "-b", "main", str(folder))
    stream = bytearray()
    for number, (subject, files) in enumerate(states):
        when = f"{EPOCH + 3600 * number} +0000".encode()
        stream += (
            b"commit refs/heads/main\ncommitter Test <test@example.com> "
            + when
            + b"\n"
            + _data(subject.encode())
        )
        stream += b"deleteall\n"
        for path, (mode, data) in files.items():
            name = (
                path.encode(errors="surrogateescape")
                .replace(b"\\", rb"\\")
                .replace(b'"', rb"\"")
                .replace(b"\n", rb"\n")
            )
            stream += b"M " + mode.encode() + b' inline "' + name + b'"\n' + _data(data)
    git(folder, "fast-import", "--quiet", "--force", data=bytes(stream))


def _data(data: bytes) -> bytes:
    return b"data %d\n" % len(data) + data + b"\n"


def git(folder: Path, *words: str, data: bytes = b"") -> bytes:
    """Git's answer."""
    folder.mkdir(exist_ok=True, parents=True)
    command = [need("git"), "-C", str(folder), *words]
    done = subprocess.run(command, input=data, capture_output=True, start_new_session=True, umask=0o022)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


DOCKERFILE = """\
# A server, its tests and its pages
ARG BASE=busybox
FROM {base} AS tools
RUN mkdir -p /tools && echo "{tools}" > /tools/version

FROM $BASE AS build
ARG FLAVOUR={flavour}
WORKDIR /app
COPY . .
RUN cat requirements.txt > /installed
RUN cat src/* | wc -c > /out && echo $FLAVOUR >> /flavour
RUN grep -c . src/main.txt > /lines || true

FROM build AS test
COPY tests tests
RUN sh tests/run.sh > /report

FROM $BASE
RUN echo "{user}" > /user
COPY --from=tools /tools /tools
COPY --from=build /out /srv/out
COPY docs/*.md /srv/docs/
COPY --chown=1000:1000 conf/ /srv/conf
RUN ls /srv/docs > /srv/index
COPY --from=test /report /srv/report
RUN --mount=type=bind,source=data,target=/data wc -c /data/* > /srv/sizes || true
"""
IGNORE = ".git\nREADME.md\n**/*.tmp\n{more}"


def project(number: int, seed: int) -> list[tuple[str, Mapping[str, tuple[str, bytes]]]]:
    """So many commits of a project: sources, pages, settings, and now and then the Dockerfile and what it ignores."""
    chance = random.Random(seed)
    words = {"base": "busybox", "tools": "1", "flavour": "plain", "user": "app", "more": "docs\n"}
    state = State()
    for at in range(6):
        state.write(f"src/part{at}.txt", f"part {at}\n")
        state.write(f"docs/page{at}.md", f"page {at}\n")
        state.write(f"data/{at}.bin", "x" * at)
    state.write("src/main.txt", "main\n")
    state.write("requirements.txt", "one\n")
    state.write("tests/run.sh", "wc -l < /out\n")
    state.write("conf/a.conf", "a\n")
    state.write("conf/link", "a.conf", "120000")
    states = []
    for at in range(number):
        subject = (
            chance.choices(list(_EDITS), [weight for weight, _ in _EDITS.values()])[0] if at else "begin"
        )
        if at:
            _EDITS[subject][1](state, words, chance, at)
        state.write("Dockerfile", DOCKERFILE.format(**words))
        state.write(".dockerignore", IGNORE.format(more="" if words["more"] == "-" else "old\n"))
        states.append((f"{subject} {at}", dict(state.files)))
    return states


def _edit_source(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
    # Few words, so that a file becomes again what it was, and so that the sum of all often stays the same.
    state.write(f"src/part{chance.randrange(3)}.txt", f"part {chance.randrange(4)}\n")


def _chmod(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
    path = chance.choice(
        [path for path, (mode, _) in state.files.items() if mode != "120000" and "/" in path]
    )
    mode, data = state.files[path]
    state.files[path] = ("100755" if mode == "100644" else "100644"), data


def _new(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
    folder = chance.choice(["src", "docs", "data", "conf", "old", "src/deep/er"])
    state.write(f"{folder}/new{at}.md", f"new {at}\n")


def _rename(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
    paths = [path for path in state.files if "new" in path]
    if paths:
        path = chance.choice(paths)
        state.files[path + ".tmp" if chance.random() < 0.3 else path + "x.md"] = state.files.pop(path)


def _turn(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
    """A file becomes a folder, or the folder a file."""
    if "data/turn" in state.files:
        state.remove("data/turn")
        state.write("data/turn/inside", "folder\n")
    else:
        state.remove("data/turn")
        state.write("data/turn", "file\n")


def _link(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
    state.write("conf/link", chance.choice(["a.conf", "b.conf", "/etc/passwd", "../docs"]), "120000")


def _word(name: str, *values: str):  # type: ignore[no-untyped-def]
    def edit(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
        words[name] = chance.choice(values)

    return edit


def _write(path: str, *values: str):  # type: ignore[no-untyped-def]
    def edit(state: State, words: dict[str, str], chance: random.Random, at: int) -> None:
        state.write(path, chance.choice(values))

    return edit


_EDITS = {
    "source": (30, _edit_source), "readme": (15, lambda state, words, chance, at: state.write("README.md", str(at))),
    "page": (15, _write("docs/page1.md", "page 1\n", "page one\n", "the page\n")),
    "install": (4, _write("requirements.txt", "one\n", "two\n")), "test": (5, _write("tests/run.sh", "wc -l < /out\n", "wc -c < /out\n")),
    "data": (5, _write("data/0.bin", "", "zero")), "mode": (4, _chmod), "new": (6, _new), "rename": (4, _rename),
    "turn": (3, _turn), "link": (3, _link), "tools": (3, _word("tools", "1", "2")), "flavour": (3, _word("flavour", "plain", "rich")),
    "user": (3, _word("user", "app", "web")), "ignore": (3, _word("more", "docs\n", "-")),
}  # fmt: skip
