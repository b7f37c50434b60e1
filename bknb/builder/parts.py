"""Every mechanism of the builder in the kernel, opened in order and closed in reverse."""

from __future__ import annotations

import asyncio
import importlib
import platform as host
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bknb.builder.foreign import no_linux, no_runtime
from bknb.cache.refs import DiskRefStore
from bknb.cache.store import SqliteCacheStore
from bknb.cache.tombstones import Tombstones
from bknb.content.images import ImageStore
from bknb.content.store import DiskContentStore
from bknb.executor.run import ShimExecutor
from bknb.executor.shim import ShimProcess
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.history import History, Recorder
from bknb.layers import ShimLayers
from bknb.layers.compress import compressor
from bknb.platforms import Platform
from bknb.protocols import Compression, Executor, Exporter, ExportRequest, Frontend, Shim
from bknb.registry.client import RegistryClient
from bknb.settings import HostSettings, Settings
from bknb.snapshot import LayeredSnapshotter, open_snapshotter
from bknb.solver import Slots, Solver
from bknb.source.image import ImageSource
from bknb.source.local import LocalSource
from bknb.worker.batch import FileBatch
from bknb.worker.content import ContentHasher
from bknb.worker.worker import LocalWorker

FRONTEND_VERSION = "dockerfile/1.26"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a build works with."""

    settings: Settings
    content: DiskContentStore
    shim: Shim
    executor: Executor
    layers: ShimLayers
    refs: DiskRefStore
    snapshotter: LayeredSnapshotter
    images: ImageSource
    local: LocalSource
    image_store: ImageStore
    store: SqliteCacheStore
    tombstones: Tombstones
    worker: LocalWorker
    solver: Solver
    history: History
    recorder: Recorder
    client: RegistryClient
    frontends: Mapping[str, Frontend]
    frontend_version: str = FRONTEND_VERSION

    def exporter(self, request: ExportRequest) -> Exporter:
        """The exporter for one output.

        Raises:
            UnsupportedError: there is none of this type.
        """
        from bknb.exporter import open_exporter

        return open_exporter(request, self)


async def open_parts(settings: Settings, stack: AsyncExitStack) -> Parts:
    """Open everything; `stack` closes it.

    Raises:
        StoreError: the state folder cannot be used.
        ExecutorError: the shim cannot be started.
    """
    root = Path(settings.root)
    content = DiskContentStore(root / "content")
    shim, executor = await _open_shim(settings, stack)
    snapshotter = await open_snapshotter(root / "snapshots", shim, settings.snapshotter)
    stack.push_async_callback(snapshotter.aclose)
    layers = ShimLayers(shim, content)
    stack.callback(layers.close)
    refs = await DiskRefStore.open(root / "refs", snapshotter, content, layers)
    stack.push_async_callback(refs.aclose)
    if settings.offline:
        settings = await _offline(settings, root, stack)
    client = await stack.enter_async_context(
        RegistryClient(content, settings.registries, concurrency=settings.max_registry_concurrency)
    )
    image_store = ImageStore(root / "images.db")
    stack.callback(image_store.close)
    platform = Platform.host()
    images = ImageSource(refs, content, client, image_store, platform)
    local = LocalSource(refs, shim, str(root / "contexts"))
    stack.push_async_callback(local.aclose)
    store = SqliteCacheStore(root / "cache.db")
    stack.callback(store.close)
    tombstones = Tombstones(root / "tombstones.db")
    stack.callback(tombstones.close)
    hasher = ContentHasher(shim, local.tree, store.note_later)
    worker = LocalWorker(
        settings=settings,
        refs=refs,
        shim=shim,
        executor=executor,
        sources=(images, local),
        hasher=hasher,
        files=await stack.enter_async_context(FileBatch(refs, shim)),
        platforms=(platform,),
    )
    solver = await stack.enter_async_context(
        Solver(worker, store, limiter=Slots(settings.max_parallelism or None), sizes=refs.sizes)
    )
    history = History(root / "history.db")
    stack.callback(history.close)
    frontend = DockerfileFrontend()
    return Parts(
        settings=settings,
        content=content,
        shim=shim,
        executor=executor,
        layers=layers,
        refs=refs,
        snapshotter=snapshotter,
        images=images,
        local=local,
        image_store=image_store,
        store=store,
        tombstones=tombstones,
        worker=worker,
        solver=solver,
        history=history,
        recorder=Recorder(
            history,
            driver=snapshotter.name,
            runtime=lambda: shim.isolation.runtime,
            compressor=compressor(Compression()).name,
        ),
        client=client,
        frontends={frontend.name: frontend},
    )


async def _open_shim(settings: Settings, stack: AsyncExitStack) -> tuple[Shim, Executor]:
    """The shim and what runs steps; where nothing shall or can run, what says so when a step would."""
    if settings.runtime == "none" or host.system() != "Linux":
        foreign = no_runtime() if settings.runtime == "none" else no_linux(host.system())
        return foreign, foreign
    shim = ShimProcess(Path(settings.root))
    starting = asyncio.create_task(shim.start())
    await asyncio.sleep(0)
    importlib.import_module("aiohttp")  # half of what a first pull takes; the process comes up meanwhile
    await starting
    await stack.enter_async_context(shim)
    return shim, await stack.enter_async_context(ShimExecutor(shim, settings.runtime))


async def _offline(settings: Settings, root: Path, stack: AsyncExitStack) -> Settings:
    """Serve docker.io from this process, and from nowhere else."""
    from bknb.registry.seed import seed
    from bknb.registry.server import Access, RegistryServer

    content = DiskContentStore(root / "offline" / "content")
    # Read only: nobody else on this machine may put an image where docker.io is looked for.
    mirror = RegistryServer(root / "offline" / "repositories", content, access=Access.PULL)
    server = await stack.enter_async_context(mirror)
    repository = server.repositories.repository("library/busybox")
    if repository.tag("latest") is None:
        seed(content, repository)
    only = HostSettings(mirrors=(server.host,), exclusive=True)
    return replace(settings, registries={**settings.registries, "docker.io": only})
