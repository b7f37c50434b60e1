"""``docker-image://``: images of registries, and of this store.

Nothing is downloaded but documents until a step needs files: a result is lazy, and its layers are fetched
when its mounts are asked for. An image has two cache keys, the second one better (its manifest, and its
layers; source/containerimage/pull.go), so that the same layers under another manifest still hit.

A name that ``-t`` gave means the image in this store, before any registry is asked; ``--pull`` asks it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

from bknb.content.images import ImageStore
from bknb.digest import Digest
from bknb.errors import ContentError, InvalidReference, RegistryError, SourceError
from bknb.events import StatusEvent
from bknb.keys.resolved import Resolved
from bknb.keys.source import source_digest
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex
from bknb.oci.image import Image, config_key, manifest_key, offered, select
from bknb.oci.types import (
    LAYER_TYPES,
    MAX_DOCUMENT,
    Descriptor,
    Index,
    Manifest,
    compression_of,
    parse_document,
)
from bknb.platforms import Platform
from bknb.protocols import (
    CacheMap,
    ContentStore,
    Fetch,
    ImageConfigAnswer,
    Job,
    LayerBlob,
    Progress,
    Ref,
    RefStore,
)
from bknb.reference import Reference
from bknb.registry.auth import AskCredentials
from bknb.registry.client import RegistryClient

SCHEME: Final = "docker-image"
OURS: Final = "from this store"
_MODES: Final = frozenset(("default", "pull", "local"))
_PROGRESS: Final = 0.1
_DEPTH: Final = 3
_REMEMBERED: Final = 256


@runtime_checkable
class Annotates(Protocol):
    """A job that can add a remark to what people see of the step."""

    def annotate(self, *, note: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image as far as its documents: what the name meant, the one platform's image, and who said so."""

    reference: Reference
    target: Descriptor
    manifest: Descriptor
    image: Image
    note: str = ""

    def layers(self, limit: int | None = None) -> tuple[LayerBlob, ...]:
        """The layers, bottom first."""
        return tuple(
            LayerBlob(descriptor, diff_id, compression_of(descriptor.media_type))
            for descriptor, diff_id in self.image.layers[:limit]
        )


@dataclass(slots=True)
class _Look:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holders: int = 0
    found: Pulled | None = None
    failure: Exception | None = None


class ImageSource:
    """Resolves and pulls images.

    Args:
        refs: where results are made.
        content: where documents and layers land.
        client: speaks to registries.
        images: names of this store.
        platform: what is meant where an op does not say.
    """

    schemes: tuple[str, ...] = (SCHEME,)

    def __init__(
        self,
        refs: RefStore,
        content: ContentStore,
        client: RegistryClient,
        images: ImageStore,
        platform: Platform | None = None,
    ) -> None:
        self._refs = refs
        self._content = content
        self._client = client
        self._images = images
        self._platform = platform or Platform.host()
        self._looks: dict[tuple[str, Platform, str], _Look] = {}
        # Documents never change under their digest: a warm kernel reads each of them once.
        self._read: dict[tuple[Digest, Platform], tuple[Descriptor, Image]] = {}
        self._targets: dict[Digest, Descriptor] = {}

    async def resolve_image_config(
        self, job: Job, reference: str, *, platform: Platform | None, resolve_mode: str
    ) -> ImageConfigAnswer:
        """An image's config, for a frontend.

        Raises:
            SourceError: not a name, no image for the platform, or it cannot be had.
        """
        pulled = await self.pull(job, reference, platform or self._platform, resolve_mode)
        return ImageConfigAnswer(reference, pulled.target.digest, pulled.image.config.raw, pulled.note)

    async def cache_maps(self, vertex: Vertex, job: Job) -> AsyncIterator[CacheMap]:
        """By manifest, then by layers.

        Raises:
            SourceError: as `pull`.
        """
        op, limit = _source(vertex), _limit(vertex)
        platform = (vertex.platform or self._platform).normalize()
        name, started = f"resolve {op.identifier.removeprefix(f'{SCHEME}://')}", time.time()
        job.emit(StatusEvent(vertex.digest, name, 0, 0, started, started=started))
        pulled = await self._pulled(vertex, job)
        now = time.time()
        job.emit(StatusEvent(vertex.digest, name, 0, 0, now, started=started, completed=now))
        _annotate(job, pulled.note)
        first = manifest_key(pulled.target.digest, platform, limit)
        yield CacheMap(
            source_digest(first),
            plaintext=Resolved(op.identifier, pulled.target.digest).to_text(),
            final=False,
        )
        try:
            second = config_key(pulled.image.config.raw, limit) or first
        except ValueError as error:
            raise SourceError(f"{pulled.reference.familiar}: {error}") from None
        yield CacheMap(source_digest(second), plaintext=f"layers of {op.identifier}: {second}")

    async def snapshot(self, vertex: Vertex, job: Job) -> Ref | None:
        """The image's files, lazily: None for an image without layers.

        Raises:
            SourceError: as `pull`.
        """
        pulled = await self._pulled(vertex, job)
        layers = pulled.layers(_limit(vertex))
        if not layers:
            return None
        fetch = self._fetch(vertex, job, pulled)
        return await self._refs.from_layers(layers, fetch, description=f"pulled from {pulled.reference}")

    async def pull(self, job: Job, name: str, platform: Platform, mode: str = "default") -> Pulled:
        """All documents of an image, once for all who ask for it at the same time.

        Args:
            job: whose credentials are used.
            name: as people write it.
            platform: which image of an index.
            mode: ``default`` and ``local``: names of this store first; ``pull``: only the registry counts.

        Raises:
            SourceError: not a name, no image for the platform, or it cannot be had.
        """
        mode = mode or "default"
        if mode not in _MODES:
            raise SourceError(f"invalid resolvemode: {mode}")
        try:
            reference = Reference.parse(name)
        except InvalidReference as error:
            raise SourceError(f"{name[:200]!r} is not an image name: {error}") from None
        key = (str(reference), platform.normalize(), mode)
        look = self._looks.setdefault(key, _Look())
        look.holders += 1
        try:
            async with look.lock:
                if look.failure is not None:
                    raise look.failure
                if look.found is None:
                    try:
                        look.found = await self._look(job.session.credentials, reference, platform, mode)
                    except (RegistryError, ContentError, ValueError) as error:
                        # What a registry sends is its doing; a RegistryError names the image already.
                        text = (
                            str(error)
                            if isinstance(error, RegistryError)
                            else f"{reference.familiar}: {error}"
                        )
                        look.failure = SourceError(text)
                        raise look.failure from None
                    except SourceError as error:
                        look.failure = error
                        raise
                return look.found
        finally:
            look.holders -= 1
            if not look.holders and self._looks.get(key) is look:
                del self._looks[key]

    async def _look(self, ask: AskCredentials, reference: Reference, platform: Platform, mode: str) -> Pulled:
        target, note = await self._resolve(ask, reference, mode)
        key = (target.digest, platform.normalize())
        if key not in self._read:
            if len(self._read) >= _REMEMBERED:
                self._read.clear()
                self._targets.clear()
            self._read[key] = await self._documents(ask, reference, target, platform)
            self._targets[target.digest] = target
        return Pulled(reference, target, *self._read[key], note)

    async def _documents(
        self, ask: AskCredentials, reference: Reference, target: Descriptor, platform: Platform
    ) -> tuple[Descriptor, Image]:
        chosen = target
        document = parse_document(
            await self._client.fetch_document(reference, target, ask), target.media_type
        )
        for _ in range(_DEPTH):
            if isinstance(document, Manifest):
                break
            chosen = self._select(reference, document, platform)
            data = await self._client.fetch_document(reference, chosen, ask)
            document = parse_document(data, chosen.media_type)
        if not isinstance(document, Manifest):
            raise ValueError(f"an index of indexes, more than {_DEPTH} deep")
        if document.config.size > MAX_DOCUMENT:
            raise ValueError(f"an image config of {document.config.size} bytes: the limit is {MAX_DOCUMENT}")
        await self._client.fetch(reference, document.config, ask=ask)
        config = self._content.read(document.config.digest)
        unknown = next((layer for layer in document.layers if layer.media_type not in LAYER_TYPES), None)
        if unknown is not None:
            raise ValueError(f"not an image: it has a layer of type {unknown.media_type[:80]!r}")
        return chosen, Image.parse(document.raw, config, document.media_type)

    async def _resolve(self, ask: AskCredentials, reference: Reference, mode: str) -> tuple[Descriptor, str]:
        if mode != "pull":
            tagged = replace(reference, tag=reference.tag or "latest", digest=None)
            named = self._images.get(str(tagged))
            meant = named is not None and reference.digest in (None, named.target.digest)
            if named is not None and meant and self._content.info(named.target.digest) is not None:
                return named.target, OURS
        if reference.digest is not None and reference.digest in self._targets:
            return self._targets[reference.digest], ""
        if reference.digest is not None and (known := self._content.info(reference.digest)) is not None:
            kind = parse_document(self._content.read(reference.digest)).media_type
            return Descriptor(kind, reference.digest, known.size), ""
        found = await self._client.resolve(reference, ask)
        return found.descriptor, found.note

    def _select(self, reference: Reference, index: Index, platform: Platform) -> Descriptor:
        chosen = select(index, platform)
        if chosen is None:
            has = offered(index)
            raise SourceError(
                f"{reference.familiar}: no match for platform {platform} in manifest: it has {has}"
            )
        return chosen

    async def _pulled(self, vertex: Vertex, job: Job) -> Pulled:
        op = _source(vertex)
        name = op.identifier.removeprefix(f"{SCHEME}://")
        mode = op.attrs.get("image.resolvemode", "default")
        pulled = await self.pull(job, name, vertex.platform or self._platform, mode)
        limit, checksum = _limit(vertex), op.attrs.get("image.checksum", "")
        if checksum and pulled.target.digest != checksum:
            raise SourceError(
                f"image digest {pulled.target.digest} for {name} does not match expected checksum {checksum}"
            )
        if limit is not None and limit > len(pulled.image.layers):
            count = len(pulled.image.layers)
            raise SourceError(
                f"layer limit {limit} is greater than the number of layers in the image {count}"
            )
        return pulled

    def _fetch(self, vertex: Vertex, job: Job, pulled: Pulled) -> Fetch:
        session = job.session

        async def fetch(descriptor: Descriptor, progress: Progress | None) -> None:
            report = _Report(vertex.digest, job, progress)
            try:
                await self._client.fetch(pulled.reference, descriptor, report, session.credentials)
            except (RegistryError, ContentError) as error:
                raise SourceError(str(error)) from None
            report.end(descriptor)

        return fetch


class _Report:
    """Progress of one layer: events for people, not more than ten a second."""

    def __init__(self, vertex: Digest, job: Job, further: Progress | None) -> None:
        self._vertex, self._job, self._further = vertex, job, further
        self._started = time.time()
        self._last = 0.0
        self._clock: Callable[[], float] = time.time

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._further is not None:
            self._further(name, done, total)
        now = self._clock()
        if now - self._last >= _PROGRESS:
            self._last = now
            self._emit(name, done, total, now, None)

    def end(self, descriptor: Descriptor) -> None:
        """It is there, whoever brought it."""
        now = self._clock()
        self._emit(descriptor.digest, descriptor.size, descriptor.size, now, now)

    def _emit(self, name: str, done: int, total: int, now: float, completed: float | None) -> None:
        self._job.emit(
            StatusEvent(self._vertex, name, done, total, now, started=self._started, completed=completed)
        )


def _source(vertex: Vertex) -> SourceOp:
    if not isinstance(vertex.op, SourceOp):
        raise SourceError(f"vertex {vertex.digest} is no source")
    return vertex.op


def _limit(vertex: Vertex) -> int | None:
    text = _source(vertex).attrs.get("image.layerlimit")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) == int(text)):
        raise SourceError(f"invalid layer limit {text[:80]!r}")
    return int(text)


def _annotate(job: Job, note: str) -> None:
    if note and isinstance(job, Annotates):
        job.annotate(note=note)
