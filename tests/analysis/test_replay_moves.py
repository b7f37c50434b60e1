"""Which changes of order keep what a build means: what is proposed, and what is left alone, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bknb.analysis.replay.git import Blob
from bknb.analysis.replay.installs import read
from bknb.analysis.replay.moves import Move, apply, find
from bknb.frontend.dockerfile import ast
from bknb.frontend.dockerfile.parser import parse

NODE = {"package.json": '{"dependencies":{"a":"^1"}}', "package-lock.json": "{}", "src/a.js": ""}


def moves(dockerfile: str, files: Mapping[str, str]) -> list[Move]:
    """What is proposed for a Dockerfile in a project."""
    return find(dockerfile.encode(), *world(files))


def world(files: Mapping[str, str]):  # type: ignore[no-untyped-def]
    """Blobs by path, and what reads them."""
    return {path: Blob("100644", path) for path in files}, lambda blob: files[blob.id].encode()


def installed(instruction: str) -> tuple[tuple[str, ...], list[str]] | None:
    """What a RUN installs: names of package managers, manifests."""
    run = parse(f"FROM a\n{instruction}\n").stages[0].commands[0]
    assert isinstance(run, ast.Run)
    found = read(run)
    return None if found is None else (found.names, [manifest.path for manifest in found.manifests])


KNOWN = {
    "RUN npm ci": (("npm",), ["package.json", "package-lock.json", ".npmrc"]),
    "RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev": (
        ("npm",),
        ["package.json", "package-lock.json", ".npmrc"],
    ),
    'RUN ["npm", "ci"]': (("npm",), ["package.json", "package-lock.json", ".npmrc"]),
    "RUN yarn --frozen-lockfile": (
        ("yarn",),
        ["package.json", "yarn.lock", ".npmrc", ".yarnrc", ".yarnrc.yml"],
    ),
    "RUN pnpm install --frozen-lockfile": (("pnpm",), ["package.json", "pnpm-lock.yaml", ".npmrc"]),
    "RUN npm install -g typescript@5.1": (("npm",), []),
    "RUN apt-get update \\\n && apt-get install -y \\\n  gcc libc6-dev=2.36-9 \\\n && rm -rf /var/lib/apt/lists/*": (
        ("apt-get",),
        [],
    ),
    "RUN DEBIAN_FRONTEND=noninteractive apt-get install -qq git": (("apt-get",), []),
    "RUN set -ex && apk add --no-cache git": (("apk",), []),
    "RUN dnf install -y gcc && dnf clean all": (("dnf",), []),
    "RUN pip install --no-cache-dir -r requirements.txt": (("pip",), ["requirements.txt"]),
    "RUN python -m pip install -U pip && pip install -r req/prod.txt -c req/limits.txt": (
        ("pip",),
        ["req/prod.txt", "req/limits.txt"],
    ),
    "RUN pip install flask==3.0": (("pip",), []),
    "RUN go mod download": (("go",), ["go.mod", "go.sum"]),
    "RUN bundle install --jobs=4": (("bundle",), ["Gemfile", "Gemfile.lock", ".ruby-version"]),
    "RUN poetry install --no-root": (("poetry",), ["pyproject.toml", "poetry.lock"]),
    "RUN uv sync --frozen --no-install-project": (("uv",), ["pyproject.toml", "uv.lock", ".python-version"]),
    "RUN composer install --no-scripts --no-autoloader": (("composer",), ["composer.json", "composer.lock"]),
    "RUN cargo fetch --locked": (("cargo",), ["Cargo.toml", "Cargo.lock"]),
}
UNKNOWN = [
    "RUN npm ci && npm run build", "RUN npm install ./local", "RUN npm ci --prefix web", "RUN npm install left-pad && ls", "RUN npm test",
    "RUN pip install .", "RUN pip install -e .", "RUN pip install ./x.whl", "RUN pip install -r requirements.txt -f wheels",
    "RUN pip install -r ../requirements.txt", "RUN pip install -r https://x/req.txt", "RUN apt-get install -y ./x.deb",
    "RUN apt-get install -y $PACKAGES", "RUN curl https://x | sh", "RUN apk add x; make", "RUN apk add x &", "RUN rm -rf /app && apk add x",
    "RUN apt-get update", "RUN poetry install", "RUN uv sync", "RUN composer install", "RUN cargo build", "RUN go build ./...",
    "RUN apk add $(cat packages)", "RUN apk add `cat packages`", "RUN apk add < packages", "RUN <<EOF\nnpm ci\nEOF",
    "RUN --mount=type=bind,target=/src npm ci", "RUN --mount=target=/src npm ci", "RUN echo 'npm ci", "RUN xargs apk add", "RUN [\"sh\", \"-c\", \"npm ci\"]",
    "RUN cp .npmrc /root && npm ci", "RUN bundle install --path vendor/x",
]  # fmt: skip


@pytest.mark.parametrize("instruction", KNOWN)
def test_known_installs(instruction: str) -> None:
    """All that such a RUN reads of a project is known."""
    assert installed(instruction) == KNOWN[instruction]


@pytest.mark.parametrize("instruction", UNKNOWN)
def test_unknown_commands(instruction: str) -> None:
    """Anything else may read anything."""
    assert installed(instruction) is None


def test_an_install_comes_before_the_sources() -> None:
    """Its manifests are copied first, comments go along, flags of owner and mode too."""
    text = "# syntax=docker/dockerfile:1\nFROM node\nWORKDIR /app\n# everything\nCOPY --chown=1:1 . .\n# packages\nRUN npm ci\nRUN npm run build\n"
    (move,) = moves(text, NODE)
    assert move.lines == (
        "# syntax=docker/dockerfile:1", "FROM node", "WORKDIR /app", "COPY --chown=1:1 package.json package-lock.json ./", "# packages", "RUN npm ci",
        "# everything", "COPY --chown=1:1 . .", "RUN npm run build",
    )  # fmt: skip
    assert "nothing of the project but package.json, package-lock.json" in move.because
    assert moves("\n".join(move.lines), NODE) == []  # and then there is nothing more to move


def test_several_installs_move_in_their_order() -> None:
    """With what they are run with; the COPY comes right behind the last of them."""
    text = "FROM python\nCOPY . /srv\nWORKDIR /srv\nENV A=1\nLABEL l=1\nRUN apt-get update && apt-get install -y gcc\nRUN pip install -r req/a.txt\nRUN make\n"
    (move,) = moves(text, {"req/a.txt": "flask\n", "a.py": ""})
    assert move.name == ("install", "stage-0", "apt-get", "pip")
    assert move.lines == (
        "FROM python", "WORKDIR /srv", "ENV A=1", "RUN apt-get update && apt-get install -y gcc", "COPY req/a.txt ./req/",
        "RUN pip install -r req/a.txt", "COPY . /srv", "LABEL l=1", "RUN make",
    )  # fmt: skip


def test_a_project_in_a_folder() -> None:
    """The manifest is copied from where it lies to where the install runs."""
    web = {f"web/{path}": text for path, text in NODE.items()}
    for text in (
        "FROM node\nWORKDIR /app\nCOPY web .\nRUN npm ci\n",
        "FROM node\nCOPY . /app\nWORKDIR /app/web\nRUN npm ci\n",
    ):
        (move,) = moves(text, web)
        assert "COPY web/package.json web/package-lock.json ./" in move.lines


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("COPY . .\nRUN npm ci", NODE),  # where that is, only the image knows
        ("WORKDIR /\nCOPY . .\nRUN npm ci", NODE),  # it may write over what the install reads
        ("WORKDIR /etc/x\nCOPY . .\nRUN apk add git", NODE),
        ("WORKDIR /app\nCOPY . .\nRUN ls\nRUN npm ci", NODE),  # who knows what that does
        ("WORKDIR /app\nCOPY . .\nWORKDIR /other\nRUN npm ci", NODE),  # it runs elsewhere
        ("WORKDIR /app\nCOPY . .\nWORKDIR sub\nRUN apk add git", NODE),  # the COPY would go elsewhere
        ("WORKDIR $X\nCOPY . .\nRUN npm ci", NODE),
        ("WORKDIR /app\nCOPY --exclude=x . .\nRUN npm ci", NODE),
        ("WORKDIR /app\nCOPY --from=other . .\nRUN npm ci", NODE),
        ("WORKDIR /app\nCOPY src src\nRUN npm ci", NODE),  # the manifest comes from elsewhere
        ("WORKDIR /app\nCOPY . .\nRUN npm ci", {"package.json": NODE["package.json"]}),  # no lock file
        (
            "WORKDIR /app\nCOPY . .\nRUN npm ci",
            {**NODE, "node_modules/x/y": ""},
        ),  # would be laid over what it makes
        ("WORKDIR /app\nCOPY . .\nRUN npm ci", {**NODE, "npm-shrinkwrap.json": ""}),
        (
            "WORKDIR /app\nCOPY . .\nRUN npm ci",
            {**NODE, "package.json": '{"scripts":{"postinstall":"node x"}}'},
        ),
        ("WORKDIR /app\nCOPY . .\nRUN npm ci", {**NODE, "package.json": '{"dependencies":{"a":"file:./a"}}'}),
        ("WORKDIR /app\nCOPY . .\nRUN npm ci", {**NODE, "package.json": '{"workspaces":["a"]}'}),
        ("WORKDIR /app\nCOPY . .\nRUN npm ci", {**NODE, "package.json": "[" * 10_000}),
        ("WORKDIR /app\nCOPY . .\nRUN pip install -r r.txt", {"r.txt": "-r other.txt\n"}),
        ("WORKDIR /app\nCOPY . .\nRUN pip install -r r.txt", {"r.txt": "own @ file:///app\n"}),
        ("WORKDIR /app\nCOPY . .\nRUN go mod download", {"go.mod": "replace x => ./x\n"}),
        ("WORKDIR /app\nCOPY . .\nRUN go mod download", {"go.mod": "", "go.work": ""}),
        (
            "WORKDIR /app\nCOPY . .\nRUN cargo fetch",
            {"Cargo.toml": "[package]\nname='x'\n", "Cargo.lock": ""},
        ),
        ("WORKDIR /app\nCOPY . .\nRUN bundle install", {"Gemfile": "gemspec\n"}),
    ],
)
def test_what_may_be_another_build_is_left_alone(text: str, files: Mapping[str, str]) -> None:
    """Nothing is moved where anything is not certain."""
    assert moves(f"FROM x\n{text}\n", files) == []


def test_scripts_that_are_not_run_do_not_matter() -> None:
    """With --ignore-scripts the manifest may have them; cargo takes one that names its own targets."""
    scripts = {**NODE, "package.json": '{"scripts":{"postinstall":"node x"}}'}
    assert moves("FROM x\nWORKDIR /app\nCOPY . .\nRUN npm ci --ignore-scripts\n", scripts) != []
    cargo = {
        "Cargo.toml": "[package]\nname='x'\n[[bin]]\nname='x'\npath='src/x.rs'\n[dependencies]\na='1'\n",
        "Cargo.lock": "",
    }
    assert moves("FROM x\nWORKDIR /app\nCOPY . .\nRUN cargo fetch\n", cargo) != []


def test_an_arg_moves_to_its_first_use() -> None:
    """Or to the end of its stage; an instruction that speaks of it holds it, an ENV or a heredoc as well."""

    def moved(text: str) -> list[tuple[str, ...]]:
        return [move.lines for move in moves(text, {}) if move.name[0] == "arg"]

    assert moved("FROM a\nARG V=1\nRUN x\nRUN echo $V\n") == [("FROM a", "RUN x", "ARG V=1", "RUN echo $V")]
    assert moved("FROM a\n# why\nARG V\nRUN x\nCMD y\nFROM b\n") == [
        ("FROM a", "RUN x", "CMD y", "# why", "ARG V", "FROM b")
    ]
    for held in (
        "RUN echo ${V}",
        "ENV W=$V",
        "RUN <<E\necho $V\nE",
        "COPY <<E /x\n$V\nE",
        "WORKDIR /$V",
        "ONBUILD RUN x",
    ):
        assert moved(f"FROM a\nARG V\n{held}\nRUN x\n") == []
    assert moved("FROM a\nARG V\nARG W=$V\nRUN x\n") == [("FROM a", "ARG V", "RUN x", "ARG W=$V")]
    assert moved("FROM a\nARG V\nCOPY a b\nENV X=1\n") == []  # no RUN has it in its environment


def test_a_change_is_found_again_in_other_versions() -> None:
    """By name: in a Dockerfile of another commit it is the same change, or none."""
    text = "FROM node AS web\nWORKDIR /app\nCOPY . .\nRUN npm ci\n"
    (move,) = moves(text, NODE)
    other = text.replace("FROM node AS web", "FROM node:20 AS web\nRUN before")
    files, content = world(NODE)
    assert b"COPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .\n" in apply(
        move.name, other.encode(), files, content
    )
    for unfit in (b"FROM node\nRUN x\n", b"FORM x", b"", text.replace("web", "other").encode()):
        assert apply(move.name, unfit, files, content) == unfit


def test_lines_stay_what_they_are() -> None:
    """Bytes that are no UTF-8, and a file without a last line's end; Windows' line ends are made Unix's."""
    files, content = world(NODE)
    text = b"FROM node\r\nLABEL a=\xff\r\nWORKDIR /app\r\nCOPY . .\r\nRUN npm ci"
    (move,) = find(text, files, content)
    assert apply(move.name, text, files, content) == (
        b"FROM node\nLABEL a=\xff\nWORKDIR /app\nCOPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .\n"
    )
