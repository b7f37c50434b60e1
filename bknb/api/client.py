"""A builder and the thread that it lives on."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets as random
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from bknb.api.build import Build
from bknb.api.request import build_request, build_session
from bknb.api.running import RunningBuild
from bknb.builder.local import LocalBuilder
from bknb.builder.thread import SolverThread
from bknb.cache.filters import size
from bknb.config.root import state_folder
from bknb.events import Event
from bknb.llb.load import Loader
from bknb.llb.vertex import Edge
from bknb.options import BuildOptions, parse
from bknb.protocols import Origin, SolveResult
from bknb.settings import DiskSpace, Settings

if TYPE_CHECKING:
    from bknb.api.planned import Plan
    from bknb.api.replayed import Replay

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a person may choose; `Settings` is made from it."""

    root: str = ""
    offline: bool = False
    max_parallelism: int = 0
    runtime: str = "auto"
    snapshotter: str = "auto"
    gc: bool = True
    gc_reserved_space: str = ""
    gc_max_used_space: str = ""
    gc_min_free_space: str = ""

    def settings(self) -> Settings:
        """The settings of a builder.

        Raises:
            StoreError: the state folder cannot be used.
            UsageError: an amount of disk is none.
        """
        folder = state_folder(self.root)
        return Settings(
            root=folder.path, offline=self.offline, note=folder.note, max_parallelism=self.max_parallelism,
            runtime=self.runtime, snapshotter=self.snapshotter, gc=self.gc,
            gc_reserved_space=_space(self.gc_reserved_space), gc_max_used_space=_space(self.gc_max_used_space),
            gc_min_free_space=_space(self.gc_min_free_space),
        )  # fmt: skip


def _space(text: str) -> DiskSpace:
    return DiskSpace(*size(text)) if text else DiskSpace()


class Client:
    """A builder and the thread that it lives on. Opened when it is first needed; closed at exit at the latest."""

    def __init__(self, preferences: Preferences = Preferences()) -> None:
        self.preferences = preferences
        self._thread = SolverThread()
        self._owner: _Owner | None = None
        self._loader = Loader()
        self.id = random.token_hex(8)
        """Tells the builds of this process from those of others."""
        atexit.register(_close, weakref.ref(self))

    def start(
        self, options: BuildOptions, *, dockerfile: str | bytes | None = None, edge: Edge | None = None, llb: bool = False,
        withheld: Sequence[str] = (), origin: Origin = Origin(), environ: Mapping[str, str] | None = None,  # noqa: B008 - frozen
    ) -> RunningBuild:  # fmt: skip
        """Begin a build and return at once.

        Args:
            options: what is wanted.
            dockerfile: the text; None to read the file that the options name.
            edge: with `llb`, the graph to build; None is scratch.
            llb: build `edge` instead of a Dockerfile.
            withheld: patterns that are kept out of the context without telling the LLB.
            origin: who asks, for the record.
            environ: where secrets and logins are looked up; the process's if absent.

        Raises:
            UsageError: the options do not fit together, or name files that are not there.
            MissError: raised when waited for: ``--fail-on-miss``, and a step is not cached.
        """
        environ = dict(os.environ) if environ is None else environ
        session = build_session(options, dockerfile, withheld, environ, llb=llb)
        request = build_request(options, session, edge, llb=llb, origin=origin, dockerfile=dockerfile)
        events: list[Event] = []

        async def run() -> SolveResult:
            builder = await self._open()
            if request.fail_on_miss and not request.compile_only:
                from bknb.api.planned import refuse_misses

                # Beside this thread: a plan asks the builder, which lives here.
                await asyncio.to_thread(refuse_misses, self, request, session)
            return await builder.solve(request, session, events.append)

        return RunningBuild(self, request, self._thread.start(run()), events, options)

    def load(self, definition: bytes) -> Edge | None:
        """The graph of a definition, as ``buildctl build`` reads it; None for scratch. For `start`, as `edge`.

        Raises:
            DefinitionError: it is none, or refused.
        """
        return self._loader.edge(definition)

    def build(self, options: BuildOptions, **arguments: Any) -> Build:
        """Build and wait; arguments as for `start`.

        Raises:
            BuildError: it failed; `result` is what there is of it.
            BuildCancelled: it was interrupted.
        """
        return self.start(options, **arguments).wait()

    def plan(
        self, options: BuildOptions, *, dockerfile: str | bytes | None = None, edge: Edge | None = None, llb: bool = False,
        withheld: Sequence[str] = (), origin: Origin = Origin(), environ: Mapping[str, str] | None = None,  # noqa: B008 - frozen
    ) -> Plan:  # fmt: skip
        """Say what a build would do, and run nothing; arguments as for `start`.

        Raises:
            UsageError: the options do not fit together, or name files that are not there.
            DockerfileError: the Dockerfile is wrong.
            SourceError: a base image cannot be had.
        """
        from bknb.api.planned import make_plan

        environ = dict(os.environ) if environ is None else environ
        session = build_session(options, dockerfile, withheld, environ, llb=llb)
        request = build_request(options, session, edge, llb=llb, origin=origin, dockerfile=dockerfile)
        return make_plan(self, request, session, options.touch)

    def call(self, act: Callable[[LocalBuilder], Awaitable[T]]) -> T:
        """Run a coroutine function of the builder on the solver's thread and wait for its answer."""

        async def run() -> T:
            return await act(await self._open())

        return self._thread.run(run())

    def close(self) -> None:
        """End the builder: its containers, its shim, its connections. The next build opens it again."""
        owner, self._owner = self._owner, None
        if owner is not None:
            self._thread.run(owner.close())
        self._thread.stop()

    async def _open(self) -> LocalBuilder:
        if self._owner is None:
            self._owner = _Owner(self.preferences)
        return await self._owner.builder()


class _Owner:
    """The task that opens the builder and closes it: what it enters has to be left by the same task."""

    def __init__(self, preferences: Preferences) -> None:
        self._preferences = preferences
        self._end = asyncio.Event()
        self._opened: asyncio.Future[LocalBuilder] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._own())

    async def builder(self) -> LocalBuilder:
        """The builder, once it is open.

        Raises:
            StoreError, ExecutorError, UnsupportedError: as `LocalBuilder.open`.
        """
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Close it, and wait for that."""
        self._end.set()
        await asyncio.wait([self._task])

    async def _own(self) -> None:
        try:
            async with LocalBuilder.open(self._preferences.settings()) as builder:
                self._opened.set_result(builder)
                await self._end.wait()
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
                self._opened.exception()  # it may be that nobody asks any more
            else:
                raise


def _close(client: weakref.ref[Client]) -> None:
    found = client()
    if found is not None:
        found.close()


class _Default:
    """Who serves those that name no client; a notebook's is the one of its cells."""

    find: Callable[[], Client] = staticmethod(cache(Client))


def default_client() -> Client:
    """The client of this process for those who name none."""
    return _Default.find()


def set_default_client(find: Callable[[], Client] | None) -> None:
    """Have `find` called for the client of this process; None: one with the settings that nobody changed."""
    _Default.find = staticmethod(cache(Client) if find is None else find)


def build(
    context: str = "", *words: str, dockerfile: str | bytes | None = None, client: Client | None = None
) -> Build:
    """Build and wait.

    Args:
        context: the folder that COPY reads; the current one if empty.
        words: options as on the command line: ``"-t", "demo", "--target", "test"``.
        dockerfile: the Dockerfile's text; read from the context if absent.
        client: whose builder; the process's own if absent.

    Raises:
        UsageError: an option that is not understood.
        BuildError: the build failed; its `result` is what there is of it.
    """
    options = parse([*words, *([context] if context else [])], prog="bknb.build", cell=False)
    return (client or default_client()).build(options, dockerfile=dockerfile)


def plan(
    context: str = "", *words: str, dockerfile: str | bytes | None = None, client: Client | None = None
) -> Plan:
    """Say what a build would do, and run nothing; arguments as for `build`, and ``"--touch", "FILE"``.

    Raises:
        UsageError: an option that is not understood, or a touched file that is not there.
        BknbError: the Dockerfile is wrong, or a base image cannot be had.
    """
    options = parse(["--plan", *words, *([context] if context else [])], prog="bknb.plan", cell=False)
    return (client or default_client()).plan(options, dockerfile=dockerfile)


def replay(context: str = "", *words: str, client: Client | None = None) -> Replay:
    """Tell what builds of the last commits would have found in the cache, without running any of them.

    Args:
        context: a folder of a git repository; the current one if empty.
        words: options as on the command line: ``"-n", "200", "-f", "docker/Dockerfile", "--build-arg", "V={short}"``.
        client: whose registries and history of builds; the process's own if absent.

    Raises:
        UsageError: an option that is not understood, or no such revision.
        SourceError: no repository, or a base image cannot be had.
    """
    from bknb.api.replayed import parse_replay, replayed

    options = parse_replay([*words, *([context] if context else [])], "bknb.replay")
    return replayed(client or default_client(), options)
