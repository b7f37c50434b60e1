"""What the store holds, measured: the facts that pruning decides on, and what is shown of them.

Sizes are bytes on disk, and each byte counts once: a blob that several records share belongs to the first, and one
that the name of an image keeps to that image, because no pruning of records frees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bknb.builder.parts import Parts
from bknb.cache.chain import layer_chain
from bknb.cache.gc import Disk, Fact
from bknb.cache.records import Record, RecordTable
from bknb.content.images import NamedImage
from bknb.content.store import DiskContentStore
from bknb.digest import Digest
from bknb.errors import BknbError
from bknb.oci.types import Descriptor, Index, parse_document

_BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class _Shelved:
    """A named image: all blobs that it consists of, and the layers of each of its manifests, bottom first."""

    image: NamedImage
    blobs: Sequence[Digest]
    manifests: Sequence[Sequence[Digest]]


@dataclass(frozen=True, slots=True)
class Survey:
    """All that the store holds: records, and for each named image what only its name keeps, whatever is pruned."""

    facts: tuple[Fact, ...]
    images: tuple[Fact, ...]
    disk: Disk


async def survey(parts: Parts) -> Survey:
    """Everything that the store holds, measured now. Sizes are bytes on disk."""
    refs = parts.refs
    await refs.measure()
    shelf = [_shelved(parts.content, image) for image in parts.image_store.walk()]
    mine = {id for id in parts.local.idle() if refs.count(id) == 1} - refs.records.held_elsewhere()
    # In a thread, through a connection of its own: 10,000 records take a third of a second.
    return await asyncio.to_thread(_survey, parts, shelf, refs.records.held() - mine)


def _survey(parts: Parts, shelf: Sequence[_Shelved], held: set[str]) -> Survey:
    sizes = {info.digest: blocks(info.size) for info in parts.content.walk()}
    images = [  # what they keep is taken out of `sizes`: no pruning of records frees it
        Fact(
            shelved.image.target.digest.short, "internal", sum(sizes.pop(digest, 0) for digest in shelved.blobs),
            shelved.image.updated, shelved.image.updated, 0, f"image {shelved.image.name}", image=shelved.image.name,
        )
        for shelved in shelf
    ]  # fmt: skip
    with closing(RecordTable(Path(parts.settings.root) / "refs" / f"{parts.snapshotter.name}.db", "")) as table:
        records = {record.id: record for record in table.all()}
        digests, parents = table.digests(), table.parents()
    named = _named(shelf, records, digests)
    facts = []
    for record in records.values():
        size = (record.size or 0) if record.snapshot else 0
        size += sum(sizes.pop(digest, 0) for digest in digests.get(record.id, ()))  # each blob counts once
        facts.append(
            Fact(
                record.id, record.type, size, record.created, record.used, record.uses, record.description,
                tuple(parents.get(record.id, ())),
                record.kind == "folder", record.id in held, named.get(record.id, ""),
            )
        )  # fmt: skip
    return Survey(tuple(facts), tuple(images), _disk(Path(parts.settings.root)))


def _shelved(content: DiskContentStore, image: NamedImage) -> _Shelved:
    manifests = [_layers_of(content, manifest, config=False) for manifest in _documents(content, image.target)]
    return _Shelved(image, blobs_of(content, image.target), [layers for layers in manifests if layers])


def blobs_of(content: DiskContentStore, target: Descriptor) -> list[Digest]:
    """Every blob that an image consists of, as far as they are known here."""
    found = [target.digest]
    for manifest in _documents(content, target):
        found.append(manifest.digest)
        found += _layers_of(content, manifest)
    return list(dict.fromkeys(found))


def _documents(content: DiskContentStore, target: Descriptor) -> Iterator[Descriptor]:
    """The manifests of an image."""
    todo, seen = [target], set[Digest]()
    while todo:
        descriptor = todo.pop(0)
        if descriptor.digest in seen or content.info(descriptor.digest) is None:
            continue
        seen.add(descriptor.digest)
        with contextlib.suppress(ValueError, BknbError):
            document = parse_document(content.read(descriptor.digest), descriptor.media_type)
            if isinstance(document, Index):
                todo += document.manifests
        yield descriptor


def _layers_of(content: DiskContentStore, manifest: Descriptor, *, config: bool = True) -> list[Digest]:
    """Config and layers of a manifest, bottom first."""
    with contextlib.suppress(ValueError, BknbError):
        document = parse_document(content.read(manifest.digest), manifest.media_type)
        if not isinstance(document, Index):
            layers = [layer.digest for layer in document.layers]
            return [document.config.digest, *layers] if config else layers
    return []


def _named(
    shelf: Sequence[_Shelved], records: Mapping[str, Record], digests: Mapping[str, Sequence[Digest]]
) -> dict[str, str]:
    """The records that named images have as their layers, with all below them (snapshot/imagerefchecker)."""
    by_digest: dict[Digest, list[str]] = {}
    for id, found in digests.items():
        for digest in found:
            by_digest.setdefault(digest, []).append(id)
    named: dict[str, str] = {}
    for shelved in shelf:
        for layers in shelved.manifests:
            for id in by_digest.get(layers[-1], ()):
                if _is_made_of(id, layers, records, digests):
                    _mark(named, id, shelved.image.name, records)
    return named


def _is_made_of(
    id: str, layers: Sequence[Digest], records: Mapping[str, Record], digests: Mapping[str, Sequence[Digest]]
) -> bool:
    """Whether the layers of a record are these."""
    try:
        chain = layer_chain(records.__getitem__, id)
    except KeyError:
        return False
    return len(chain) == len(layers) and all(
        digest in digests.get(layer, ()) for layer, digest in zip(chain, layers, strict=True)
    )


def _mark(named: dict[str, str], id: str, name: str, records: Mapping[str, Record]) -> None:
    """A record and all that it stands on."""
    todo = [id]
    while todo:
        id = todo.pop()
        if id not in named and id in records:
            named[id] = name
            todo += [parent for parent in records[id].parents if parent is not None]


def _disk(path: Path) -> Disk:
    found = os.statvfs(path)
    return Disk(found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize)


def blocks(size: int) -> int:
    """Bytes that so many bytes take on disk."""
    return -(-size // _BLOCK) * _BLOCK
