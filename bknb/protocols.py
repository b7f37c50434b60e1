"""Every contract of bknb, in the order in which a build meets them. Read this file first.

Values are frozen dataclasses; contracts are Protocols, implemented structurally. Siblings of one floor never
import each other: they meet here, and are joined by the floors above.

The way of a build: a `Frontend` turns text into a graph and asks a `Bridge` for what it needs to know; the
solver asks a `Worker` for the `Operation` of each vertex and a `CacheStore` for what was done before;
operations make `Ref`s out of `Snapshotter` and `ContentStore` with the help of the `Shim` and its
`Executor`; a `Session` is the way back to whoever asked for the build; an `Exporter` turns the last Ref into
an image.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from bknb.digest import Digest
from bknb.errors import BknbError, Range
from bknb.events import Emit
from bknb.llb.ops import HostIP, Meta, NetMode, SecurityMode
from bknb.llb.vertex import Edge, LinuxResources, Vertex
from bknb.oci.types import Descriptor as Descriptor
from bknb.platforms import Platform

# --- the shim: the only process that mounts, writes below a root, and starts containers -----------------------


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount as data, in the words of mount(2). Only the shim mounts.

    Attributes:
        type: ``overlay``, ``bind`` or ``tmpfs``.
        source: a directory of the host for ``bind``; "" otherwise.
        options: ``ro``, ``rbind``, ``size=N``...; for ``overlay`` the shim reads ``lower=PATH`` (repeated,
            topmost first), ``upper=PATH`` and ``work=PATH``, each a single path, so that no separator needs
            escaping and a chain may be longer than a page of mount options.
    """

    type: str
    source: str = ""
    options: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the shim reads it."""
        return {"type": self.type, "source": self.source, "options": list(self.options)}


Mounts = tuple[Mount, ...]
"""What makes one directory tree: mounted in order, one on the other."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What this machine lets us do; found out once, said by ``doctor``.

    Attributes:
        tier: ``root``, ``user`` (a user namespace), ``none`` (no namespaces) or ``foreign`` (no Linux).
        runtime: name of what runs a step: ``crun``, ``runc``, ``bubblewrap``, ``proot`` or "".
        runtime_path: where it is.
        overlay: overlayfs can be mounted on the state folder.
        cgroups: a cgroup can be made for a step.
        id_range: how many uids there are in the namespace (1 without newuidmap, 2**32-1 as root).
        notes: one line each: what is missing, and the package or command that brings it.
    """

    tier: str
    runtime: str = ""
    runtime_path: str = ""
    runtime_version: str = ""
    overlay: bool = False
    cgroups: bool = False
    id_range: int = 1
    notes: tuple[str, ...] = ()


class Shim(Protocol):
    """The kernel's end of the shim process (`bknb.executor.shim`); its ops are listed in `bknb/shim/`."""

    @property
    def isolation(self) -> Isolation: ...

    async def call(self, op: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Have one op done. Arguments and result are JSON values; `fds` are handed over, not closed here.

        Cancelling the call cancels the op, and returns when it has ended.

        Raises:
            PathError, SnapshotError, ExecutorError, UnsupportedError: as the op's docstring says.
        """


@dataclass(frozen=True, slots=True)
class ProcessMount:
    """A tree inside of a container. `selector` is a path in the tree, resolved beneath its root.

    `stub` mounts need a place to be mounted on; what was made for it is removed again afterwards.
    `owner_mode`: for secrets: (uid, gid, mode) of the file; its bytes are in `data` and live on a tmpfs.
    """

    dest: str
    mounts: Mounts = ()
    selector: str = ""
    readonly: bool = False
    data: bytes | None = None
    owner_mode: tuple[int, int, int] = (0, 0, 0)
    socket: str = ""
    """Path of an agent's socket on the host, for ssh mounts."""


@dataclass(frozen=True, slots=True)
class Process:
    """One container: what runs, over what, seeing what.

    Attributes:
        id: unique name of the container.
        meta: arguments, env, cwd, user (a name is looked up inside of the root), hosts, hostname, ulimits.
        root: the tree that is "/".
        mounts: further trees, in the order in which they are mounted.
        env: added to meta.env: proxies and secrets.
        nameservers: text of /etc/resolv.conf, None for the host's.
        shm_size: bytes of /dev/shm.
    """

    id: str
    meta: Meta
    root: Mounts
    root_readonly: bool = False
    mounts: tuple[ProcessMount, ...] = ()
    env: tuple[str, ...] = ()
    network: NetMode = NetMode.UNSET
    security: SecurityMode = SecurityMode.SANDBOX
    resources: LinuxResources | None = None
    extra_hosts: tuple[HostIP, ...] = ()
    resolv_conf: str | None = None
    shm_size: int = 64 << 20
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: code, CPU seconds (user + system), peak memory in bytes, killed for memory."""

    code: int
    cpu: float = 0.0
    peak_memory: int = 0
    oom: bool = False


Output = Callable[[int, bytes], None]
"""Takes (stream, data) as a process writes it: 1 is stdout, 2 is stderr."""


class Executor(Protocol):
    """Runs processes in containers."""

    async def probe(self) -> Isolation:
        """What this machine lets us do, with the runtime that was found to work."""

    async def run(self, process: Process, output: Output, *, stdin: bytes = b"") -> ExitStatus:
        """Run to the end. Cancelling kills the container and returns when it is gone.

        Raises:
            ExecutorError: it could not be started.
        """


# --- content and file systems ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob of a content store; `size` in bytes, times in unix seconds."""

    digest: Digest
    size: int
    created: float = 0.0


class BlobWriter(Protocol):
    """An unfinished blob. Leaving its context without commit keeps nothing."""

    offset: int

    def write(self, data: bytes | memoryview) -> None: ...

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        """Put it in the store, durably.

        Raises:
            ContentError: the bytes have another digest or size.
        """

    def __enter__(self) -> BlobWriter: ...

    def __exit__(self, *error: object) -> None: ...


class ContentStore(Protocol):
    """Immutable bytes by digest, on disk."""

    def info(self, digest: Digest) -> BlobInfo | None: ...

    def read(self, digest: Digest) -> bytes:
        """A small blob, whole (manifests, configs).

        Raises:
            ContentError: it is not there, or larger than 16 MiB.
        """

    def open(self, digest: Digest) -> int:
        """A file descriptor for reading, positioned at 0; the caller closes it.

        Raises:
            ContentError: it is not there.
        """

    def path(self, digest: Digest) -> str:
        """Where the blob lies; for handing to other programs."""

    def write(self) -> BlobWriter: ...

    def put(self, data: bytes) -> Digest:
        """Store a small blob."""

    def delete(self, digest: Digest) -> None: ...

    def walk(self) -> Sequence[BlobInfo]: ...


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot: `kind` is ``active`` or ``committed``; parents bottom first (one, save for merges)."""

    name: str
    kind: str
    parents: tuple[str, ...] = ()
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Disk that a snapshot alone takes."""

    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class LayerDirectory:
    """One layer on disk, as a snapshotter keeps it.

    Attributes:
        path: what the step added, changed and, as whiteouts, removed.
        lower: the directories that it was written on, bottom first.
        marks: how whiteouts are spelled (`bknb.shim.marks`).
    """

    path: str
    lower: tuple[str, ...]
    marks: str


class Snapshotter(Protocol):
    """File system states; containerd's verbs. Names are given by the caller."""

    name: str

    async def prepare(self, name: str, parent: str = "") -> Mounts:
        """An active, writable snapshot on a committed parent ("" is empty)."""

    async def view(self, name: str) -> Mounts:
        """Mounts for reading a committed snapshot. They may be mounted any number of times."""

    async def mounts(self, name: str) -> Mounts:
        """Mounts of an active snapshot, again."""

    async def commit(self, name: str, active: str) -> Usage:
        """Make an active snapshot immutable, under a new name."""

    async def prepare_folder(self, name: str, base: str = "") -> Mounts:
        """An active snapshot for cache mounts: a copy of its base, mounted any number of times, never committed.

        It stays until it is removed, over restarts too.
        """

    async def layer(self, name: str) -> LayerDirectory | None:
        """The layer that a committed snapshot adds; None for a merge, and for a difference to an ancestor."""

    async def merge(self, name: str, parents: Sequence[str]) -> None:
        """A committed snapshot: the layers of each parent laid over those of the ones before."""

    async def diff(self, name: str, lower: str, upper: str) -> None:
        """A committed snapshot holding what `upper` has over `lower`, deletions included, for merging."""

    async def stat(self, name: str) -> SnapshotInfo | None: ...

    async def usage(self, name: str) -> Usage: ...

    async def remove(self, name: str) -> None:
        """Remove it, with its files. A snapshot that others stand on is hidden and goes with the last."""

    async def walk(self) -> Sequence[SnapshotInfo]: ...


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer as a blob: `diff_id` is the digest of its tar, `compressor` what made the bytes.

    `created` (unix seconds) and `description` are those of the layer's record: an image's history tells them.
    """

    descriptor: Descriptor
    diff_id: Digest
    compressor: str = ""
    created: float | None = None
    description: str = ""


class Layers(Protocol):
    """Makes blobs of layer directories, and the other way round (`bknb.layers`)."""

    async def create(
        self, directory: LayerDirectory, compression: Compression, progress: Progress | None = None
    ) -> LayerBlob:
        """A layer directory as a blob in the content store."""

    async def apply(self, blob: LayerBlob, mounts: Mounts, progress: Progress | None = None) -> None:
        """Unpack a blob of the content store over a tree.

        Raises:
            ContentError: it is not there, damaged, or has another diff_id.
        """

    async def convert(
        self, blob: LayerBlob, compression: Compression, progress: Progress | None = None
    ) -> LayerBlob:
        """The same layer in another compression."""


class Ref(Protocol):
    """A counted hold on an immutable result. An output that is empty (scratch) is None, not a Ref.

    Each Ref is released once; what is released last may be pruned.
    """

    @property
    def id(self) -> str:
        """The id of the record that it holds; lasts over restarts."""

    def clone(self) -> Ref: ...

    async def release(self) -> None: ...

    async def mounts(self) -> Mounts:
        """For reading; pulls and unpacks what is still lazy."""

    async def size(self) -> int:
        """Bytes that this result adds to its parents."""


@runtime_checkable
class MutableRef(Protocol):
    """A snapshot that is being written."""

    @property
    def id(self) -> str: ...

    async def mounts(self) -> Mounts: ...

    async def commit(self) -> Ref:
        """Make it immutable; the MutableRef is used up."""

    async def discard(self) -> None:
        """Throw it away. After commit or discard this does nothing."""


class RefStore(Protocol):
    """Results on disk: records in sqlite, files in the snapshotter, blobs in the content store."""

    async def new(self, parent: Ref | None, *, description: str, kind: str = "regular") -> MutableRef:
        """Begin a result on top of another. `kind` is BuildKit's record type (``source.local`` ...)."""

    async def get(self, id: str) -> Ref | None:
        """A hold on a record, or None if it or what it needs is gone."""

    async def from_layers(self, layers: Sequence[LayerBlob], fetch: Fetch, *, description: str) -> Ref | None:
        """A lazy result: the layers are fetched and unpacked when its mounts are asked for."""

    async def merge(self, refs: Sequence[Ref | None], *, description: str) -> Ref | None: ...

    async def diff(self, lower: Ref | None, upper: Ref | None, *, description: str) -> Ref | None: ...

    async def layers(
        self, ref: Ref | None, compression: Compression, *, progress: Progress | None = None
    ) -> tuple[LayerBlob, ...]:
        """The result as layer blobs, bottom first; made where they are missing, once."""

    def cache_mount(
        self, key: str, base: Ref | None, sharing: str, *, description: str, job: str = ""
    ) -> AbstractAsyncContextManager[Mounts]:
        """The files of a cache mount, writable, for as long as the context lasts.

        `sharing` is ``shared`` (any number at once), ``private`` (a second user gets its own) or ``locked``
        (a second user waits, over kernels too). A new one starts with the files of `base`.
        """

    async def layer_mounts(self, ref: Ref | None) -> tuple[str, ...]:
        """Ids of the layer records of a result, bottom first."""


Progress = Callable[[str, int, int], None]
"""Called with (name of the thing, done, total), in bytes; total 0 is unknown."""

Fetch = Callable[[Descriptor, Progress | None], Awaitable[None]]
"""Brings a blob into the content store."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How layers are written: ``gzip``, ``zstd`` or ``uncompressed``; None is the compressor's default level."""

    type: str = "gzip"
    level: int | None = None
    force: bool = False


# --- the solver ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dep:
    """How one input of a vertex enters its key.

    Attributes:
        selector: narrows the definition key of the input to a part of it; None for the whole.
        content: computes the input's content key from its result; None where content does not matter.
        preprocess: prepares a lazy input before the op runs; None where there is nothing to do.
        plaintext: what `selector` is the digest of, for explanations.
    """

    selector: Digest | None = None
    content: Callable[[Job, Ref | None], Awaitable[Digest]] | None = None
    preprocess: Callable[[Job, Ref | None], Awaitable[None]] | None = None
    plaintext: str = ""


@dataclass(frozen=True, slots=True)
class CacheMap:
    """How a vertex is keyed: its own digest, and one `Dep` for each input.

    `plaintext` is the preimage of the digest. `final` is False for a cheap map that a better one follows.
    """

    digest: Digest
    deps: tuple[Dep, ...] = ()
    plaintext: str = ""
    final: bool = True


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One result of one cache key.

    Attributes:
        key: the key that it was found by.
        result: what `Worker.load` is given; "" is an output that is empty (scratch).
        created: unix seconds; of several the newest is taken.
        remote: name of the cache that it comes from, "" for the local one.
        load: how a remote result is made into a Ref; None leaves it to the worker.
    """

    key: str
    result: str
    created: float = 0.0
    remote: str = ""
    load: Callable[[], Awaitable[Ref | None]] | None = None


class CacheStore(Protocol):
    """What was done before: keys, the links between them, and their results (solver/cachestorage.go).

    A key is text. A link says: a step with this cache map digest, whose input number `input` has this key (seen
    through this selector, "" for none), has in its output number `output` that key. So a step is found without
    realising any input: it is what the links of all of its inputs agree on. Everything is synchronous and short.
    """

    def refresh(self) -> None:
        """See what other kernels have written since."""

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        """Keys that a link leads to."""

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Results of a key, newest first."""

    def connect(
        self, sources: Sequence[tuple[str, str]], input: int, output: int, digest: str
    ) -> frozenset[str]:
        """All targets of several (key, selector) pairs of one input, linked to each of the pairs from now on."""

    def save(
        self,
        digest: str,
        output: int,
        deps: Sequence[Sequence[tuple[str, str]]],
        result: str,
        *,
        vertex: str = "",
    ) -> str:
        """Keep a result durably; returns its key. A step that only volatile keys lead to is not kept.

        Raises:
            StoreError: it cannot be written.
        """

    def forget(self, result: str) -> None:
        """A result is gone; keys that lead nowhere any more go with it."""

    def note(self, digest: str, plaintext: str) -> None:
        """Remember what a digest is taken of, for explanations; bounded."""

    def plaintext(self, digest: str) -> str | None:
        """What a digest was taken of, if that is still known."""


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """A folder of the client.

    Attributes:
        path: absolute.
        withheld: patterns (of .dockerignore's kind) that the session keeps back without telling the LLB.
        shared_key: names the folder across builds, so that only changes are copied.
        files: not None for a folder that exists in memory only: its files by name, and no others.
    """

    path: str
    withheld: tuple[str, ...] = ()
    shared_key: str = ""
    files: Mapping[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry is told. An identity token goes in `token`."""

    username: str = ""
    password: str = ""
    token: str = ""


class Session(Protocol):
    """The way back to the client: a step asks it for files and secrets."""

    @property
    def id(self) -> str: ...

    async def local(self, name: str) -> LocalDirectory | None: ...

    async def secret(self, id: str) -> bytes | None: ...

    async def ssh_socket(self, id: str) -> str | None:
        """Path of the agent's socket."""

    async def credentials(self, host: str) -> Credentials | None: ...


class Job(Protocol):
    """One request being served, as an operation sees it."""

    @property
    def id(self) -> str: ...

    @property
    def session(self) -> Session: ...

    @property
    def emit(self) -> Emit: ...

    def annotate(
        self, *, note: str | None = None, size: int | None = None, result: str | None = None
    ) -> None:
        """Add to what is shown of the vertex: a remark, the bytes that its result adds, the digest of the result."""

    def waiting(self, cause: str) -> AbstractContextManager[None]:
        """Say what the operation waits for: ``lock pull session``."""

    async def solve(self, edge: Edge) -> Ref | None:
        """Build an edge that the operation depends on; the caller releases the Ref."""


class Operation(Protocol):
    """A vertex with behaviour."""

    @property
    def cache_map(self) -> CacheMap | None:
        """The map of an op that is keyed by its definition alone; None for a source."""

    def cache_maps(self, job: Job) -> AsyncIterator[CacheMap]:
        """The maps of a source, cheap first, each asked for only when the one before did not hit."""

    async def exec(self, job: Job, inputs: Sequence[Ref | None]) -> Sequence[Ref | None]:
        """Do it. One result for each output; the caller releases the inputs and the outputs.

        Raises:
            ExitError, SourceError, PathError...: the solver wraps them in a StepError.
        """


class Worker(Protocol):
    """Gives ops their behaviour, and results their life after a restart."""

    @property
    def platforms(self) -> tuple[Platform, ...]: ...

    def resolve(self, vertex: Vertex) -> Operation:
        """The operation of a vertex.

        Raises:
            DefinitionError: an op that this worker does not know.
        """

    async def load(self, result: str) -> Ref | None:
        """The Ref that a cache record names, or None if it is gone."""


# --- frontends -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageConfigAnswer:
    """What a look-up of an image found.

    `reference` is the name that the graph shall use, `config` the image config's JSON bytes, `digest` that of
    the manifest or index (None where there is none).
    """

    reference: str
    digest: Digest | None
    config: bytes
    note: str = ""


@dataclass(frozen=True, slots=True)
class SourceMetaAnswer:
    """What a look-up of a git or http source found."""

    identifier: str
    git_commit: bytes | None = None
    http_last_modified: float | None = None


class Bridge(Protocol):
    """What a frontend may ask of the build that it serves."""

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Platforms that the worker runs, the native one first."""

    @property
    def session_id(self) -> str: ...

    @property
    def emit(self) -> Emit: ...

    async def resolve_image_config(
        self,
        reference: str,
        *,
        platform: Platform | None,
        resolve_mode: str,
        log_name: str,
        oci_store: str = "",
    ) -> ImageConfigAnswer:
        """Look up an image's config in its registry, or in the client's OCI layout of that name."""

    async def resolve_source_meta(
        self, identifier: str, attrs: Mapping[str, str], *, log_name: str
    ) -> SourceMetaAnswer: ...

    async def solve(self, edge: Edge) -> Ref | None:
        """Build a part of the graph now: for files that the frontend reads."""

    async def read_file(self, ref: Ref | None, path: str, *, limit: int = 16 << 20) -> bytes | None:
        """A file of a result, or None if it is not there."""

    async def stat_file(self, ref: Ref | None, path: str) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class FrontendRequest:
    """`opts` are exactly what ``buildctl build --opt k=v`` sends; `inputs` are named definitions."""

    opts: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Edge] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VertexInfo:
    """Where a vertex stands in its Dockerfile."""

    stage: str
    command: str
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class SkippedStage:
    """A stage that the target does not need, as (instruction text, range) pairs."""

    name: str
    instructions: tuple[tuple[str, Range], ...] = ()


@dataclass(frozen=True, slots=True)
class PlatformResult:
    """What a frontend made for one platform. `edge` None is scratch; `image_config` is exact JSON text."""

    platform: Platform | None
    edge: Edge | None
    image_config: str = ""
    base_image_config: str = ""
    epoch: int | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """The Dockerfile asks for another frontend (``# syntax=``)."""

    source: str
    opts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FrontendResult:
    """Everything that a frontend found out. `metadata` holds the answers of subrequests too."""

    results: tuple[PlatformResult, ...] = ()
    warnings: tuple[Any, ...] = ()
    vertices: Mapping[Digest, VertexInfo] = field(default_factory=dict)
    skipped: tuple[SkippedStage, ...] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    forward: Forward | None = None
    filename: str = ""
    source: bytes = b""


class Frontend(Protocol):
    """Turns a request into graphs."""

    name: str

    async def solve(self, request: FrontendRequest, bridge: Bridge) -> FrontendResult:
        """Compile.

        Raises:
            DockerfileError: the input is wrong.
        """


# --- results ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExportInput:
    """One platform's result on its way out; `base_image_config` tells an epoch which history it may not touch."""

    ref: Ref | None
    platform: Platform | None
    image_config: str
    epoch: int | None = None
    base_image_config: str = ""


class Exporter(Protocol):
    """Writes a result for others. Two steps, so that nothing half-made is ever published.

    `export` writes locally and returns what publishes it; the answer of that is the exporter's response
    (``containerimage.digest`` and so on, BuildKit's keys).
    """

    name: str

    async def export(
        self, inputs: Sequence[ExportInput], job: Job
    ) -> Callable[[], Awaitable[Mapping[str, str]]]: ...


class Limiter(Protocol):
    """Slots for parallel work (``max-parallelism``); no limit unless there is one."""

    @property
    def full(self) -> bool:
        """Whether whoever asks for a slot now has to wait."""

    def slot(self) -> AbstractAsyncContextManager[None]: ...


# --- builders ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One output that was asked for, in BuildKit's words (FACTS: exporters and their attributes)."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a build, for its record: a notebook's cell, or a command."""

    notebook: str = ""
    cell: str = ""
    kernel: str = ""
    options: str = ""
    """The words, values of secrets and build arguments that look like one taken out."""
    context: str = ""


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """A build.

    Attributes:
        frontend: ``dockerfile.v0``, or "" to build `edge`.
        opts: the frontend's options, as ``buildctl build --opt k=v`` sends them.
        edge: what to build where there is no frontend; None is scratch.
        exports: where the result goes; none is fine.
        max_parallelism: steps of this build that may run at once; None for the builder's own limit.
        entitlements: what this build may ask for, beyond the builder's own.
        title: what people call it.
        compile_only: stop when the graph is known.
    """

    frontend: str = ""
    opts: Mapping[str, str] = field(default_factory=dict)
    edge: Edge | None = None
    exports: tuple[ExportRequest, ...] = ()
    max_parallelism: int | None = None
    entitlements: frozenset[str] = frozenset()
    title: str = ""
    origin: Origin = Origin()
    compile_only: bool = False


@dataclass(frozen=True, slots=True)
class SolveResult:
    """A finished build; one that failed is a result too, with what there is of it.

    Attributes:
        id: that of its record.
        frontend: everything that was compiled.
        exports: one response for each export, in order.
        results: by vertex, the record ids of its outputs ("" for an empty one), as far as they are known.
        error: why it failed, or None. A StepError's Refs are released already; `failed` names them.
        failed: record ids of what the failed step's mounts held, by output, then of its inputs.
    """

    id: str
    frontend: FrontendResult
    exports: tuple[Mapping[str, str], ...] = ()
    results: Mapping[Digest, tuple[str, ...]] = field(default_factory=dict)
    error: BknbError | None = None
    failed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


class Builder(Protocol):
    """What a notebook talks to: the one in this kernel, or a buildkitd elsewhere."""

    name: str

    async def solve(self, request: SolveRequest, session: Session, emit: Emit) -> SolveResult:
        """Build. Cancelling ends everything that this build alone had started."""

    async def aclose(self) -> None:
        """End everything that was started. What was built stays."""
