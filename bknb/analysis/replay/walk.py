"""Walking a history: each commit is predicted on what those before it would have left in the cache.

Several Dockerfiles go along side by side, the one of the repository and changed ones: they share the trees, so
that a file is read and a folder is digested once for all of them.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bknb.analysis.predict import Foreseen, Prediction, predict
from bknb.analysis.replay.compile import IGNORE, SESSION, Compiled, Compiler, Images
from bknb.analysis.replay.git import Blob, Commit, Repository
from bknb.analysis.replay.model import Cell, Column, Outcome, Timeline
from bknb.analysis.replay.rows import Rows
from bknb.analysis.replay.tree import ContextTree, Digests
from bknb.analysis.shadow import ShadowStore
from bknb.digest import Digest
from bknb.errors import BknbError, BuildCancelled, DockerfileError, PathError, SourceError, UsageError
from bknb.keys import ContentSelector
from bknb.keys.cachekey import VOLATILE
from bknb.keys.source import source_digest
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.oci.image import config_key, manifest_key
from bknb.platforms import Platform
from bknb.protocols import CacheMap, Job
from bknb.session import LocalSession

LARGEST: Final = 16 << 20
"""Bytes of a Dockerfile."""
_KEPT_TREES: Final = 4
_OUTCOMES: Final[Mapping[Foreseen, Outcome]] = {
    Foreseen.RUN: Outcome.RAN, Foreseen.UNKNOWN: Outcome.UNKNOWN, Foreseen.CACHED: Outcome.CACHED,
}  # fmt: skip
"""Of several vertices of one instruction the first of these counts."""

Rewrite = Callable[[bytes, Mapping[str, Blob]], bytes]
"""A change of a Dockerfile, given its text and the files of the commit; the text itself where it does not apply."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is replayed.

    Attributes:
        filename: the Dockerfile, relative to the context.
        opts: the frontend's options; in build arguments ``{commit}``, ``{short}`` and ``{time}`` stand for the full
            id, its first eight digits and the unix time of the commit that is built.
        platform: what is built for.
    """

    filename: str = "Dockerfile"
    opts: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=Platform.host)

    def at(self, commit: Commit) -> Mapping[str, str]:
        """The options at one commit."""
        values = {"{commit}": commit.id, "{short}": commit.short, "{time}": str(commit.time)}
        found = dict(self.opts)
        for name, text in self.opts.items():
            if name.startswith("build-arg:"):
                for word, value in values.items():
                    text = text.replace(word, value)
                found[name] = text
        return found


class Walk:
    """A history with everything that is read of it.

    Args:
        repository: open.
        commits: oldest first.
        question: what is replayed.
        images: configs of base images.
        stopped: whether nobody waits for it any more; asked at each commit.
    """

    def __init__(
        self, repository: Repository, commits: Sequence[Commit], question: Question, images: Images,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        if not commits:
            raise UsageError("there are no commits to replay")
        self._repository = repository
        self._commits = commits
        self.question = question
        self._images = images
        self._stopped = stopped
        self._compiler = Compiler(images, question.platform, posixpath.basename(question.filename))
        self._session = LocalSession({}, {}, {}, {}, id=SESSION)
        self._digests = Digests(repository)
        self._trees: dict[tuple[str, ...], ContextTree] = {}
        self._known: dict[str, bytes | None] = {}
        self.files: dict[str, Blob] = {}
        """Those of the commit that the walk has come to."""
        self.newest: Compiled | None = None
        """The newest of the repository's own Dockerfiles that could be compiled."""
        self.texts: dict[bytes, None] = {}
        """All of the repository's own Dockerfiles, oldest first."""

    async def timelines(self, rewrites: Sequence[Rewrite | None]) -> tuple[list[Timeline], list[int]]:
        """Walk all commits, with several Dockerfiles at once; None is the repository's own.

        Returns:
            A timeline for each, and the number of commits in which it is not the repository's own.
        """
        followers = [_Follower(rewrite) for rewrite in rewrites]
        changes = self._repository.changes(self._commits)
        self.files = self._repository.files(self._commits[0])
        self._trees.clear()
        for number, commit in enumerate(self._commits):
            if self._stopped():
                raise BuildCancelled("Replay stopped.", clean=True)
            if number:
                self._go_on(changes[number - 1])
            await self._visit(commit, number, followers)
        failure = self._images.failure()
        if failure is not None and all(column.error for column in followers[0].columns):
            raise failure
        return [follower.timeline() for follower in followers], [follower.changed for follower in followers]

    def _go_on(self, changes: Sequence[tuple[str, Blob | None]]) -> None:
        for path, blob in changes:
            if blob is None:
                self.files.pop(path, None)
            else:
                self.files[path] = blob
        for tree in self._trees.values():
            tree.change(changes)

    def _missing(self) -> str:
        """That there is no Dockerfile, and where the commit has one of that name."""
        wanted = self.question.filename
        name = wanted.rpartition("/")[2]
        found = sorted(path for path in self.files if path.rpartition("/")[2] == name)[:3]
        return f"there is no {wanted}" + (f" (-f may say {' or '.join(found)})" if found else "")

    async def _visit(self, commit: Commit, number: int, followers: Sequence[_Follower]) -> None:
        text, ignore = self._texts(lambda path: self._read(commit, path))
        known: dict[tuple[object, ...], Digest | PathError] = {}
        for follower in followers:
            try:
                if text is None:
                    raise DockerfileError(self._missing())
                own = follower.rewrite(text, self.files) if follower.rewrite is not None else text
                follower.changed += own != text
                compiled = await self._compiler.compile(own, ignore, self.question.at(commit))
                if follower.rewrite is None:
                    self.newest = compiled
                    self.texts[text] = None
                facts = _Facts(number, self, compiled, known)
                follower.take(commit, compiled, await self._predict(compiled, facts, follower))
            except BknbError as error:
                follower.fail(commit, str(error))

    def dockerfile(self, commit: Commit) -> bytes | None:
        """The text of a commit's Dockerfile, None where it has none."""
        return self._texts(lambda path: self._repository.read(commit, path, LARGEST))[0]

    def _texts(self, read: Callable[[str], bytes | None]) -> tuple[bytes | None, Mapping[str, bytes]]:
        """The Dockerfile and the ignore files, where there are any."""
        name = self.question.filename
        text = read(name)
        if text is None and posixpath.basename(name) == "Dockerfile":
            text = read(posixpath.join(posixpath.dirname(name), "dockerfile"))
        found = {f"{posixpath.basename(name)}{IGNORE}": read(name + IGNORE), IGNORE: read(IGNORE)}
        return text, {name: data for name, data in found.items() if data is not None}

    def _read(self, commit: Commit, path: str) -> bytes | None:
        """A file of the commit that the walk has come to; git is asked only for what it has not said before."""
        blob = self.files.get(path)
        if blob is not None and blob.mode.startswith("100"):
            if blob.id not in self._known:
                self._known[blob.id] = self._repository.content(blob, LARGEST)
            return self._known[blob.id]
        above = {path[:at] for at, char in enumerate(path) if char == "/"}
        if blob is None and not path.startswith("..") and above.isdisjoint(self.files):
            return None
        return self._repository.read(commit, path, LARGEST)  # a link, or outside of the context

    async def _predict(self, compiled: Compiled, facts: _Facts, follower: _Follower) -> Prediction:
        if compiled.edge is None:
            return Prediction()
        return await predict(
            [compiled.edge], follower.store, facts, platform=self.question.platform, session=self._session,
            map_of=lambda vertex: compiled.maps[vertex.digest],
        )  # fmt: skip

    # --- what a prediction asks -----------------------------------------------------------------------------

    def tree(self, exclude: tuple[str, ...]) -> ContextTree:
        """The files of the commit that the walk has come to, without those that are excluded."""
        tree = self._trees.pop(exclude, None) or ContextTree(self._digests, self.files, exclude)
        self._trees[exclude] = tree
        if len(self._trees) > _KEPT_TREES:
            del self._trees[next(iter(self._trees))]
        return tree

    def image_keys(self, vertex: Vertex, op: SourceOp) -> tuple[str, str]:
        """The keys of a base image: by manifest and by layers, as a build has them (source/containerimage/pull.go)."""
        name = op.identifier.removeprefix("docker-image://")
        platform = vertex.platform or self.question.platform
        answer = self._images.find(name, platform, op.attrs.get("image.resolvemode", "default"))
        limit = int(op.attrs["image.layerlimit"]) if op.attrs.get("image.layerlimit", "").isdigit() else None
        first = manifest_key(answer.digest or Digest.of(answer.config), platform, limit)
        try:
            return first, config_key(answer.config, limit) or first
        except ValueError as error:
            raise SourceError(f"{name}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Facts:
    """The world as it was at one commit. Sources elsewhere are taken to have stayed as they are."""

    number: int
    walk: Walk
    compiled: Compiled
    known: dict[tuple[object, ...], Digest | PathError]

    async def keys(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """The cache maps of a source."""
        op = vertex.op
        assert isinstance(op, SourceOp)
        if op.identifier.startswith("local://"):
            yield CacheMap(Digest(f"{VOLATILE}{SESSION}-{self.number}-{vertex.digest}"))
        elif op.identifier.startswith("docker-image://"):
            first, second = self.walk.image_keys(vertex, op)
            yield CacheMap(source_digest(first), final=False)
            yield CacheMap(source_digest(second))
        else:
            yield CacheMap(source_digest(f"{op.identifier} {sorted(op.attrs.items())}"))

    async def content(
        self, vertex: Vertex, result: str, selectors: Sequence[ContentSelector]
    ) -> Digest | None:
        """The content key of files of the commit; None for what a step writes."""
        if not isinstance(vertex.op, SourceOp) or not vertex.op.identifier.startswith("local://"):
            return None
        key = (self.compiled.exclude, tuple(selectors))
        if key not in self.known:
            try:
                self.known[key] = self.walk.tree(self.compiled.exclude).digest(selectors)
            except PathError as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, PathError):
            raise found
        return found

    def missing(self, results: Collection[str]) -> Collection[str]:
        """Nothing is pruned in a replay."""
        return ()


class _Follower:
    """One Dockerfile on its way through the history, with the cache that it fills."""

    def __init__(self, rewrite: Rewrite | None) -> None:
        self.rewrite = rewrite
        self.store = ShadowStore()
        self.rows = Rows()
        self.changed = 0
        self.columns: list[Column] = []
        self._cells: list[dict[int, Cell]] = []

    def take(self, commit: Commit, compiled: Compiled, found: Prediction) -> None:
        """What a commit has come to."""
        if found.error is not None:
            self.fail(commit, str(found.error))
            return
        cells = {}
        for number, step in zip(self.rows.place(compiled.steps), compiled.steps, strict=True):
            verdicts = [found.verdicts[digest] for digest in step.vertices if digest in found.verdicts]
            for foreseen, outcome in _OUTCOMES.items():
                one = next((verdict for verdict in verdicts if verdict.outcome is foreseen), None)
                if one is not None:
                    cells[number] = Cell(outcome, one.by, step.command)
                    break
        self._cells.append(cells)
        self.columns.append(Column(commit))

    def fail(self, commit: Commit, error: str) -> None:
        """A commit that cannot be built."""
        self._cells.append({})
        self.columns.append(Column(commit, error=error))

    def timeline(self) -> Timeline:
        """Everything, with a cell for each row."""
        order, rows = self.rows.ordered()
        columns = [
            Column(column.commit, tuple(cells.get(number) for number in order), column.error)
            for column, cells in zip(self.columns, self._cells, strict=True)
        ]
        return Timeline(tuple(rows), tuple(columns))
