"""A worker without containers: keys and content hashes are the real ones, trees are dicts.

What a step makes is a pure function of what it reads, so a build takes milliseconds. `World` is what lies outside: the
context, registries, git and web servers, all of them in memory, to be changed between two builds.
"""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from bknb import keys
from bknb.cache.contenthash import Entry, Tree
from bknb.cache.entries import clean
from bknb.cache.store import SqliteCacheStore
from bknb.digest import Digest
from bknb.errors import ExitError, SourceError
from bknb.keys.resolved import Resolved
from bknb.keys.source import GitSource, HttpSource, LocalSource, source_digest
from bknb.llb import ops
from bknb.llb.veil import Veil
from bknb.llb.vertex import Vertex
from bknb.oci.image import config_key, manifest_key
from bknb.platforms import Platform
from bknb.protocols import (
    CacheMap,
    Dep,
    Job,
    Mounts,
    Ref,
)
from bknb.worker.content import ContentHasher

AMD64 = Platform("linux", "amd64")


@dataclass(frozen=True)
class LightFile:
    """One path: `mode` with its type; `data` of a file, `link` of a symlink."""

    mode: int = stat.S_IFREG | 0o644
    data: bytes = b""
    link: str = ""
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def entry(self) -> Entry:
        """As the content hash reads it, header and bytes hashed already."""
        known = self.mode, self.uid, self.gid, len(self.data), self.link
        xattrs = dict(self.xattrs) or None
        whole = Digest.of(Entry(*known, xattrs=xattrs).header + self.data)
        return Entry(*known, xattrs=xattrs, digest=whole if stat.S_ISREG(self.mode) else "")


FOLDER = LightFile(stat.S_IFDIR | 0o755)
Files = Mapping[str, LightFile]


def with_folders(files: Files) -> dict[str, LightFile]:
    """The same with every folder that a path lies in."""
    found = dict(files)
    for path in files:
        parts = path.strip("/").split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            found.setdefault("/" + "/".join(parts[:depth]), FOLDER)
    return found


@dataclass
class World:
    """What lies outside of a builder.

    Attributes:
        context: the files of the client's folder.
        images: name -> how often it was pushed: each push is another digest.
        commits: address of a repository -> commit that its branch is at.
        bodies: address -> bytes; `modified` when they were last touched, in unix seconds.
        broken: instructions that fail when they run.
    """

    context: dict[str, LightFile] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    modified: dict[str, float] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def image(self, name: str, platform: Platform) -> tuple[Digest, bytes]:
        """The manifest's digest and the config of an image."""
        short = name.removeprefix("docker.io/").removeprefix("library/").partition("@")[0]
        text = f"{short} {self.images.get(short, 0)} {platform}"
        config = {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest.of_text(f"layer {text}")]},
        }
        return Digest.of_text(f"manifest {short} {self.images.get(short, 0)}"), json.dumps(config).encode()


class LightRef:
    """A counted hold on a tree."""

    def __init__(self, id: str, files: Files, tree: Tree) -> None:
        self.id = id
        self.files = files
        self.tree = tree

    def clone(self) -> LightRef:
        return LightRef(self.id, self.files, self.tree)

    async def release(self) -> None: ...

    async def mounts(self) -> Mounts:
        return ()

    async def size(self) -> int:
        return sum(len(file.data) for file in self.files.values())


class LightWorker:
    """Implements `protocols.Worker`.

    Attributes:
        results: record id -> files; what is taken out is gone as a pruned snapshot is.
    """

    platforms = (AMD64, Platform("linux", "arm64"))

    def __init__(self, world: World, store: SqliteCacheStore, prefix: str) -> None:
        self.world = world
        self.results: dict[str, LightRef] = {}
        self.hasher = ContentHasher(None, lambda ref: ref.tree, store.note_later)  # type: ignore[arg-type, attr-defined]
        self._prefix = prefix
        self._count = 0

    def granted(self, job: str, entitlements: frozenset[str], veil: Veil) -> nullcontext[None]:
        return nullcontext()

    def resolve(self, vertex: Vertex) -> LightOperation:
        return LightOperation(self, vertex)

    def missing(self, results: Collection[str]) -> Collection[str]:
        return [result for result in results if result not in self.results]

    async def load(self, result: str) -> Ref | None:
        found = self.results.get(result)
        return found.clone() if found is not None else None

    def keep(self, files: Files) -> LightRef:
        """A new result."""
        whole = with_folders(files)
        tree = Tree.of((path, file.entry()) for path, file in sorted(whole.items()))
        self._count += 1
        made = LightRef(f"{self._prefix}{self._count}", whole, tree)
        self.results[made.id] = made
        return made.clone()

    # --- sources ------------------------------------------------------------------------------------------

    def source(self, vertex: Vertex, session: str) -> tuple[tuple[CacheMap, ...], Files]:
        """The cache maps of a source, cheap first, and its files."""
        op, world = vertex.op, self.world
        assert isinstance(op, ops.SourceOp)
        scheme, _, name = op.identifier.partition("://")
        match scheme:
            case "local":
                key = LocalSource.parse(op.identifier, op.attrs).key(session)
                return (CacheMap(source_digest(key), plaintext=key),), world.context
            case "docker-image":
                return self._image(op.identifier, name, vertex.platform or AMD64)
            case "git":
                commit = world.commits[name.partition("#")[0]]
                key = GitSource.parse(op.identifier, op.attrs).key(commit, "refs/heads/main")
                text = Resolved(op.identifier, commit).to_text()
                return (CacheMap(source_digest(key), plaintext=text),), {
                    "/repo": LightFile(data=commit.encode())
                }
            case "https":
                if op.identifier not in world.bodies:
                    raise SourceError(f"{op.identifier}: 404")
                body, modified = world.bodies[op.identifier], world.modified.get(op.identifier)
                http = HttpSource.parse(op.identifier, op.attrs)
                rest = f"modified {modified:.0f}" if modified is not None else ""
                text = Resolved(op.identifier, Digest.of(body), rest).to_text()
                key = http.key(http.name(), Digest.of(body), modified)
                return (CacheMap(source_digest(key), plaintext=text),), {
                    f"/{http.name()}": LightFile(data=body)
                }
            case _:
                raise SourceError(f"no {scheme} here")

    def _image(self, identifier: str, name: str, platform: Platform) -> tuple[tuple[CacheMap, ...], Files]:
        digest, config = self.world.image(name, platform)
        first, second = manifest_key(digest, platform), config_key(config)
        assert second is not None
        text = Resolved(identifier, digest).to_text()
        maps = (
            CacheMap(source_digest(first), plaintext=text, final=False),
            CacheMap(source_digest(second), plaintext=f"layers of {identifier}: {second}"),
        )
        return maps, {"/bin/sh": LightFile(data=config)}


class LightOperation:
    """One vertex: its real cache map, and a result that is a function of what it reads."""

    def __init__(self, worker: LightWorker, vertex: Vertex) -> None:
        self.worker = worker
        self.vertex = vertex
        self.spec = None if isinstance(vertex.op, ops.SourceOp) else keys.cache_map(vertex, AMD64)

    @property
    def cache_map(self) -> CacheMap | None:
        if self.spec is None:
            return None
        return CacheMap(self.spec.digest, tuple(map(self._dep, self.spec.deps)), self.spec.plaintext)

    def _dep(self, spec: keys.DepSpec) -> Dep:
        async def content(job: Job, ref: Ref | None) -> Digest:
            return await self.worker.hasher.digest(ref, spec.content or ())

        return Dep(spec.selector, content if spec.content is not None else None, None, "\0".join(spec.paths))

    async def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        for each in self.worker.source(self.vertex, job.session.id)[0]:
            yield each

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        trees = [ref.files if isinstance(ref, LightRef) else {} for ref in inputs]
        match self.vertex.op:
            case ops.SourceOp():
                made = self.worker.source(self.vertex, job.session.id)[1]
            case ops.FileOp(actions):
                made = _filed(actions, trees)
            case ops.ExecOp() as op:
                made = self._run(op, trees)
            case other:
                raise AssertionError(other)
        return [self.worker.keep(made)]

    def _run(self, op: ops.ExecOp, trees: Sequence[Files]) -> Files:
        """The root with a file that says what ran over what; named by the step, so that two do not collide."""
        assert op.meta is not None
        command = op.meta.args[-1]
        if command in self.worker.world.broken:
            raise ExitError(f"{command}: exit code 1", 1)
        root = next(
            trees[mount.input] if mount.input >= 0 else {} for mount in op.mounts if mount.dest == "/"
        )
        read = "".join(f"{path}{file}" for tree in trees for path, file in sorted(tree.items()))
        name = f"/ran/{Digest.of_text(command).hex[:8]}"
        return {**root, name: LightFile(data=Digest.of_text(f"{op} {read}").encode())}


def _filed(actions: Sequence[ops.FileAction], trees: Sequence[Files]) -> Files:
    """What file actions leave; a copy takes a path with all below it, wherever it lies."""
    states: list[Files] = list(trees)
    for entry in actions:
        files = dict(states[entry.input]) if entry.input >= 0 else {}
        match entry.action:
            case ops.CopyAction(src, dest):
                taken = states[entry.secondary_input]
                whole = clean(src)
                for path, file in taken.items():
                    if path == whole or path.startswith(f"{whole}/"):
                        files[f"{clean(dest)}/{path.removeprefix(whole).lstrip('/')}".rstrip("/") or "/"] = (
                            file
                        )
            case ops.MkDirAction(path, mode):
                files[clean(path)] = LightFile(stat.S_IFDIR | mode)
            case ops.MkFileAction(path, mode, data):
                files[clean(path)] = LightFile(stat.S_IFREG | mode, data)
            case other:
                raise AssertionError(other)
        states.append({path: file for path, file in files.items() if path != "/"})
    return states[-1]
