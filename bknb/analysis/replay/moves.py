"""Changes of a Dockerfile's order that keep what the build means.

Two are known, both because the cache goes by position: *an install before the sources* (a package manager reads its
manifest, and a COPY of everything in front of it makes it run for every edit), and *an ARG lower* (its value is in
the environment of every RUN below it). What is proposed is an edit of lines; whether it saves anything is measured
by replaying the edited file, and is not guessed here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bknb.analysis.replay.args import arg_moves
from bknb.analysis.replay.edits import Move, block_of, lines_of, tree_of
from bknb.analysis.replay.git import Blob
from bknb.analysis.replay.installs import Install, read
from bknb.frontend.dockerfile import ast

ReadFile = Callable[[Blob], bytes | None]
"""The bytes of a small file, None where there are none or too many."""

_ASIDE: Final = (
    ast.Label, ast.Expose, ast.Cmd, ast.Entrypoint, ast.Maintainer, ast.Stopsignal, ast.Healthcheck,
)  # fmt: skip
"""They only write into the image's config: where they stand does not matter."""
_ALONG: Final = (ast.Arg, ast.Env, ast.Workdir, ast.User, ast.Shell)
"""What a RUN is run with: these go where it goes."""
_OWNED: Final = tuple("/ /etc /usr /var /root /bin /sbin /lib /lib64 /run /dev /proc /sys /tmp".split())
_PROJECTS: Final = tuple(
    "/usr/src /usr/local/src /usr/app /usr/local/app /var/www /var/app /var/task".split()
)
"""Below folders of the system: where projects are kept all the same."""


def find(dockerfile: bytes, files: Mapping[str, Blob], content: ReadFile) -> list[Move]:
    """The changes that are possible.

    Args:
        dockerfile: its text.
        files: those of the commit, by path.
        content: reads one of them.
    """
    tree = tree_of(dockerfile)
    if tree.errors:
        return []
    lines = lines_of(dockerfile)
    found: list[Move] = []
    for number, stage in enumerate(tree.stages):
        name = stage.head.name or f"stage-{number}"
        found += _installs(name, stage, lines, files, content)
        found += arg_moves(name, stage, lines)
    return found


def apply(name: tuple[str, ...], dockerfile: bytes, files: Mapping[str, Blob], content: ReadFile) -> bytes:
    """The Dockerfile with a change, or as it is where that change is not possible."""
    for move in find(dockerfile, files, content):
        if move.name == name:
            return "\n".join((*move.lines, "")).encode(errors="surrogateescape")
    return dockerfile


@dataclass(frozen=True, slots=True)
class _Passed:
    """A COPY from the context that an install would come before: folder of the context, and where it goes."""

    command: ast.Copy | ast.Add
    source: str
    target: str


def _installs(
    stage_name: str, stage: ast.Stage, lines: Sequence[str], files: Mapping[str, Blob], content: ReadFile
) -> list[Move]:
    workdir = ""
    for number, command in enumerate(stage.commands):
        if isinstance(command, ast.Workdir):
            workdir = (
                posixpath.normpath(posixpath.join(workdir, command.path)) if "$" not in command.path else ""
            )
        elif isinstance(command, ast.Copy | ast.Add) and _passed(command, workdir) is not None:
            move = _Attempt(stage_name, stage.commands, lines, files, content).move(number, workdir)
            if move is not None:
                return [move]  # of one stage the first: what is below it may be found once that is done
    return []


def _passed(command: ast.Copy | ast.Add, workdir: str) -> _Passed | None:
    """A COPY of one folder of the context to a place that is known; None for any other."""
    plain = isinstance(command, ast.Add) or (not command.from_ and not command.parents)
    if not plain or command.files or command.exclude or len(command.sources) != 1:
        return None
    source, target = command.sources[0], posixpath.normpath(posixpath.join(workdir, command.dest))
    if set("$*?[") & set(source + command.dest) or "://" in source or not target.startswith("/"):
        return None
    folder = posixpath.normpath(source.lstrip("/") or ".")
    return _Passed(command, "" if folder == "." else folder, target)


class _Attempt:
    """Moving installs of one stage above one COPY."""

    def __init__(
        self,
        stage: str,
        commands: Sequence[ast.Command],
        lines: Sequence[str],
        files: Mapping[str, Blob],
        content: ReadFile,
    ) -> None:
        self._stage = stage
        self._commands = commands
        self._lines = lines
        self._files = files
        self._content = content

    def move(self, number: int, workdir: str) -> Move | None:
        """The change that brings the installs below a COPY above it; None where there are none, or it is another build."""
        passed: list[_Passed] = []
        along: list[ast.Command] = []
        taken: list[ast.Command] = []
        copies: dict[int, list[str]] = {}
        install = Install()
        for command in self._commands[number:]:
            if isinstance(command, ast.Copy | ast.Add):
                one = _passed(command, workdir)
                if one is None:
                    break
                passed.append(one)
            elif isinstance(command, _ALONG):
                along.append(command)
                if isinstance(command, ast.Workdir):
                    workdir = posixpath.normpath(posixpath.join(workdir, command.path))
                if "$" in command.text and isinstance(command, ast.Workdir):
                    break
            elif isinstance(command, ast.Run) and (read_ := read(command)) is not None:
                found = self._copies(read_, passed, workdir)
                if found is None:
                    break
                copies[command.start_line] = found
                taken += [*along, command]
                along = []
                install += read_
            elif not isinstance(command, _ASIDE):
                break
        if not taken or not self._keeps(passed, taken):
            return None
        return self._made(passed[0].command, taken, copies, install)

    def _keeps(self, passed: Sequence[_Passed], taken: Sequence[ast.Command]) -> bool:
        """Whether the COPYs mean the same behind what is taken above them, and the other way round."""
        relative = any(not one.command.dest.startswith("/") for one in passed)
        if relative and any(isinstance(command, ast.Workdir) for command in taken):
            return False
        if any("$" in one.command.text for one in passed):
            return False
        system = any(
            one.target == owned or (owned != "/" and one.target.startswith(owned + "/"))
            for one in passed
            for owned in _OWNED
            if not one.target.startswith(_PROJECTS)
        )
        return not system

    def _copies(self, install: Install, passed: Sequence[_Passed], workdir: str) -> list[str] | None:
        """The COPY instructions that an install needs; None where it would be another build."""
        if not install.manifests:
            return []
        home = next((one for one in reversed(passed) if _below(workdir, one.target) is not None), None)
        if home is None:
            return None
        inside = posixpath.join(home.source, _below(workdir, home.target) or "")
        folder = posixpath.normpath(inside) if inside else ""
        if any(self._holds(posixpath.join(folder, gone)) for gone in (*install.makes, *install.without)):
            return None
        by_target: dict[str, list[str]] = {}
        for manifest in install.manifests:
            path = posixpath.join(folder, manifest.path)
            blob = self._files.get(path)
            if blob is None or not blob.mode.startswith("100"):
                if manifest.required or blob is not None:
                    return None
                continue
            text = (self._content(blob) or b"").decode(errors="replace")
            if manifest.check is not None and not manifest.check(text):
                return None
            by_target.setdefault(posixpath.dirname(manifest.path), []).append(path)
        if any(re.search(r"\s", path) for paths in by_target.values() for path in paths):
            return None
        flags = " ".join(re.findall(r"--(?:chown|chmod)=\S+", home.command.text))
        head = f"COPY {flags}".rstrip()
        targets = {target: f"./{target}/" if target else "./" for target in by_target}
        return [f"{head} {' '.join(paths)} {targets[target]}" for target, paths in by_target.items()]

    def _holds(self, path: str) -> bool:
        """Whether a path is in the project, as a file or as a folder."""
        return path in self._files or any(other.startswith(path + "/") for other in self._files)

    def _made(
        self, first: ast.Command, taken: Sequence[ast.Command], copies: Mapping[int, Sequence[str]], install: Install
    ) -> Move:  # fmt: skip
        at = block_of(first, self._lines).start
        moved: list[str] = []
        gone: set[int] = set()
        for command in taken:
            block = block_of(command, self._lines)
            gone.update(block)
            moved += [*copies.get(command.start_line, ()), *(self._lines[line] for line in block)]
        rest = [line for number, line in enumerate(self._lines) if number >= at and number not in gone]
        words = [word for made in copies.values() for line in made for word in line.split()[1:-1]]
        manifests = list(dict.fromkeys(word for word in words if not word.startswith("--")))
        title = f"Copy {' and '.join(manifests)} first"
        if not manifests:
            title = f"{_short(next(one.text for one in taken if isinstance(one, ast.Run)))} before the sources are copied"
        verb, they = ("reads", "it makes") if len(install.names) == 1 else ("read", "they make")
        but = f" but {', '.join(manifests)}" if manifests else ""
        because = f"{' and '.join(install.names)} {verb} nothing of the project{but}, and what {they} is not in the context"
        lines = (*self._lines[:at], *moved, *rest)
        return Move(("install", self._stage, *install.names), title, because, lines)


def _below(path: str, folder: str) -> str | None:
    """The part of a path below a folder, "" for the folder itself; None where it is elsewhere."""
    if not path.startswith("/"):
        return None
    if path == folder:
        return ""
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def _short(text: str) -> str:
    flat = " ".join(text.replace("\\\n", " ").split())
    return flat if len(flat) <= 60 else flat[:59] + "…"
