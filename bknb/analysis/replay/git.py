"""A git repository as a replay reads it: commits, trees and blobs, asked of git's plumbing, nothing checked out.

Three kinds of questions, each with as few processes as git allows: one lists the commits, one tells all changes
between neighbours, and one stays and hands out blobs for as long as the repository is open. The repository may be
anybody's: none of its hooks, filters or helpers run, and nothing is fetched for a clone that lacks objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Final, Self

from bknb.errors import SourceError, UsageError

MOST_FILES: Final = 1_000_000
"""Paths of one commit."""
MOST_COMMITS: Final = 10_000
_AT_ONCE: Final = 256
"""Blobs asked for before the first answer is read: the questions fit into a pipe, so that git never waits for us."""
_CHUNK: Final = 1 << 20
_UNSET: Final = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX",
)  # fmt: skip
"""Set inside of a hook, and then about another repository."""
_SAFE: Final = (
    "--no-optional-locks",
    "--literal-pathspecs",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "protocol.allow=never",
)


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its full id, when it was made (unix seconds), and the first line of what it says."""

    id: str
    time: int = 0
    subject: str = ""

    @property
    def short(self) -> str:
        """The beginning of its id."""
        return self.id[:8]


@dataclass(frozen=True, slots=True)
class Blob:
    """What a path of a tree is: git's mode (``100644``, ``100755``, ``120000``, ``160000``) and the id of its content."""

    mode: str
    id: str


Change = tuple[str, Blob | None]
"""A path and what it is from now on; None where it is gone."""


class Repository:
    """One repository, and the folder in it that is the context. Used within ``with``.

    Args:
        folder: any folder of a work tree, or a bare repository.

    Raises:
        SourceError: no repository, or no git.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(os.path.expanduser(folder))
        if not os.path.isdir(self.folder):
            raise SourceError(f"{folder} is not a folder: say the git repository whose history is replayed")
        self._environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
        self._environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
        found = self._text("rev-parse", "--show-prefix").rstrip("\n")
        self.prefix: str = found
        """The context's folder in the repository, with a slash at its end; "" for the top."""
        self._blobs: _Blobs | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._blobs is not None:
            self._blobs.close()
            self._blobs = None

    # --- commits ------------------------------------------------------------------------------------------

    def commits(self, number: int, head: str = "HEAD") -> tuple[Commit, ...]:
        """The last so many commits on the first parents' line, oldest first.

        Raises:
            UsageError: no such revision.
        """
        if not 0 < number <= MOST_COMMITS:
            raise UsageError(f"{number} commits cannot be replayed: say 1 to {MOST_COMMITS}")
        return tuple(reversed(self._log(head, "--first-parent", f"--max-count={number}")))

    def revisions(self, names: Sequence[str]) -> tuple[Commit, ...]:
        """The commits of some revisions, in the order in which they are named.

        Raises:
            UsageError: no such revision.
        """
        return tuple(self._log(name, "--max-count=1")[0] for name in names)

    def _log(self, head: str, *words: str) -> list[Commit]:
        if not head or not head.isprintable() or head[0] in "-^" or ".." in head:
            raise UsageError(f"{head[:80]!r} is no revision")
        done = self._run(
            "rev-list",
            "--format=%H %ct %s",
            "--encoding=UTF-8",
            *words,
            f"{head}^{{commit}}",
            "--",
            check=False,
        )
        if done.returncode:
            if self._run("rev-parse", "--verify", "--quiet", "HEAD", check=False).returncode:
                raise SourceError(f"{self.folder} has no commits yet")
            raise UsageError(f"{head[:80]!r} is no revision of {self.folder}")
        found = []
        for line in done.stdout.decode(errors="replace").split("\n"):
            if line and not line.startswith("commit "):
                id, time, subject = line.split(" ", 2)
                found.append(Commit(id, int(time), subject))
        return found

    # --- trees --------------------------------------------------------------------------------------------

    def files(self, commit: Commit) -> dict[str, Blob]:
        """Every path below the context's folder, relative to it.

        Raises:
            SourceError: it cannot be read, or there are too many.
        """
        below = ("--", self.prefix) if self.prefix else ()
        output = self._run("ls-tree", "-r", "-z", "--full-tree", commit.id, *below).stdout
        found = {}
        for entry in output.split(b"\0")[:-1]:
            head, _, path = entry.partition(b"\t")
            mode, _, id = head.decode().split(" ")
            found[self._relative(path)] = Blob(mode, id)
        if len(found) > MOST_FILES:
            raise SourceError(
                f"commit {commit.short} has {len(found):,} files: at most {MOST_FILES:,} are replayed"
            )
        return found

    def changes(self, commits: Sequence[Commit]) -> list[list[Change]]:
        """For each commit but the first what differs from the one before it in the list."""
        found: list[list[Change]] = [[] for _ in commits[1:]]
        left = list(enumerate(itertools.pairwise(commits)))
        while left:  # git names only the later one of a pair, so each commit is that once in a process
            asked: dict[str, int] = {}
            pairs, again = [], []
            for number, (before, after) in left:
                if after.id in asked:
                    again.append((number, (before, after)))
                else:
                    asked[after.id] = number
                    pairs.append(f"{after.id} {before.id}\n")
            for id, changes in self._compare("".join(pairs)):
                found[asked[id]] = changes
            left = again
        return found

    def _compare(self, pairs: str) -> Iterator[tuple[str, list[Change]]]:
        """The id of each later commit that differs, and how."""
        words = ("diff-tree", "--stdin", "-r", "-z", "--raw", "--no-renames", "--full-index", "--no-relative")
        below = ("--", ".") if self.prefix else ()  # relative to the folder that git works in
        output = self._run(*words, *below, input=pairs.encode()).stdout
        fields = iter(output.split(b"\0")[:-1])
        id, changes = "", list[Change]()
        for field in fields:
            if not field.startswith(b":"):
                if id:
                    yield id, changes
                id, changes = field.decode().strip(), []
                continue
            _, mode, _, blob, status = field.decode().split(" ")
            changes.append((self._relative(next(fields)), None if status == "D" else Blob(mode, blob)))
        if id:
            yield id, changes

    def _relative(self, path: bytes) -> str:
        return os.fsdecode(path)[len(self.prefix) :]

    # --- blobs --------------------------------------------------------------------------------------------

    def read(self, commit: Commit, path: str, limit: int) -> bytes | None:
        """A file below the context's folder, links followed inside of the repository; None if there is none.

        Raises:
            SourceError: it is larger than `limit` bytes.
        """
        if "\n" in path or "\0" in path:
            return None
        name = os.path.normpath(self.prefix + path)
        if name.startswith("../"):
            return None
        return self._open().read(f"{commit.id}:{name}", limit)

    def content(self, blob: Blob, limit: int) -> bytes | None:
        """The bytes of a blob, None where it is no blob.

        Raises:
            SourceError: there are more than `limit`, or git does not have them.
        """
        return self._open().read(blob.id, limit)

    def digests(self, wanted: Sequence[Blob], header: Callable[[Blob, int], bytes]) -> Iterator[str]:
        """For each blob the sha256 of its header, which is given its size in bytes, and its bytes; in hex.

        Raises:
            SourceError: git does not have one of them.
        """
        return self._open().digests(wanted, header)

    def _open(self) -> _Blobs:
        if self._blobs is None:
            command = [*self._git(), "cat-file", "--batch", "--follow-symlinks"]
            self._blobs = _Blobs(command, self._environment)
        return self._blobs

    # --- processes ----------------------------------------------------------------------------------------

    def _git(self) -> Sequence[str]:
        return ("git", *_SAFE, "-C", self.folder)

    def _text(self, *words: str) -> str:
        return os.fsdecode(self._run(*words).stdout)

    def _run(self, *words: str, input: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
        try:
            done = subprocess.run(
                [*self._git(), *words],
                input=input,
                capture_output=True,
                env=self._environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise SourceError("a replay asks git, which is not there: apt-get install git") from None
        if check and done.returncode:
            said = done.stderr.decode(errors="replace").strip().split("\n")[0].removeprefix("fatal: ")
            raise SourceError(f"{self.folder}: git says: {said[:300]}")
        return done


class _Blobs:
    """``git cat-file --batch``: one process for all blobs."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(environment),
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._questions: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._questions.close()

    def read(self, name: str, limit: int) -> bytes | None:
        """A small blob by id or as COMMIT:PATH; None where there is none."""
        self._ask([name])
        size = self._head(name)
        if size is None:
            return None
        data = b"".join(self._chunks(size, limit))
        if size > limit:
            raise SourceError(
                f"{name.partition(':')[2] or name} is {size:,} bytes: at most {limit:,} are read"
            )
        return data

    def digests(self, wanted: Sequence[Blob], header: Callable[[Blob, int], bytes]) -> Iterator[str]:
        """As `Repository.digests`."""
        for start in range(0, len(wanted), _AT_ONCE):
            batch = wanted[start : start + _AT_ONCE]
            self._ask([blob.id for blob in batch])
            for blob in batch:
                size = self._head(blob.id)
                if size is None:
                    raise SourceError(f"git does not have the bytes of {blob.id}: is this a partial clone?")
                hashed = hashlib.sha256(header(blob, size))
                for chunk in self._chunks(size, size):
                    hashed.update(chunk)
                yield hashed.hexdigest()

    def _ask(self, names: Sequence[str]) -> None:
        try:
            self._questions.write("".join(f"{name}\n" for name in names).encode(errors="surrogateescape"))
            self._questions.flush()
        except OSError:
            raise SourceError("git cat-file ended: is this repository whole?") from None

    def _head(self, name: str) -> int | None:
        """The size of what comes; None where nothing does."""
        line = self._answers.readline()
        if not line:
            raise SourceError(f"git cat-file ended at {name}: is this repository whole?")
        words = line.rstrip(b"\n").split(b" ")
        if words[-1] in (b"missing", b"ambiguous"):
            return None
        if words[0] in (b"symlink", b"notdir", b"loop", b"dangling"):  # each followed by what it is about
            self._skip(int(words[1]))
            return None
        if words[1] != b"blob":
            self._skip(int(words[2]))
            return None
        return int(words[2])

    def _skip(self, size: int) -> None:
        for _ in self._chunks(size, 0):
            pass

    def _chunks(self, size: int, limit: int) -> Iterator[bytes]:
        """The bytes that come and the newline behind them; those beyond a limit are read and dropped."""
        left = size
        while left:
            chunk = self._answers.read(min(left, _CHUNK))
            if not chunk:
                raise SourceError("git cat-file ended within a file: is this repository whole?")
            left -= len(chunk)
            if size <= limit:
                yield chunk
        self._answers.read(1)
