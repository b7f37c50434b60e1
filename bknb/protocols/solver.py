"""What solves: cache maps, cache records, and the operations of the vertices of a graph."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from bknb.digest import Digest
from bknb.events import Emit
from bknb.llb.vertex import Edge, Vertex
from bknb.platforms import Platform
from bknb.protocols.storage import Ref


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

    def link(
        self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]], *, vertex: str = ""
    ) -> str:
        """As `save` without a result: another cache has it, and what stands on it shall be found here."""

    def forget(self, result: str) -> None:
        """A result is gone; keys that lead nowhere any more go with it."""

    def note(self, digest: str, plaintext: str) -> None:
        """Remember what a digest is taken of, for explanations; bounded."""

    def plaintext(self, digest: str) -> str | None:
        """What a digest was taken of, if that is still known."""


class CacheSource(Protocol):
    """Another cache that a build may take results from (``--cache-from``): read only, and asked last.

    It is opened when a build needs a result that the local cache does not lead to, so a cached build asks
    nobody. Its keys are its own affair, save for those of steps without inputs and of content
    (`keys.cachekey.root_key`), from which its links start. A record's `load` gives a lazy Ref: files are brought
    when a step needs them. What was loaded is kept in the local cache, with all keys that led to it.
    """

    name: str

    async def open(self) -> None:
        """Bring its index here; called before the first question.

        Raises:
            BknbError: it cannot be reached, or understood; the build goes on without it.
        """

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        """Keys that a link leads to; as `CacheStore.targets`."""

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Results of a key, newest first; each names this cache in `remote` and has a `load`."""

    def forget(self, result: str) -> None:
        """A result could not be loaded: it is not offered again."""


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

    def missing(self, results: Collection[str]) -> Collection[str]:
        """Those of some results that `load` would not find; nothing is done for them."""

    async def load(self, result: str) -> Ref | None:
        """The Ref that a cache record names, or None if it is gone."""
