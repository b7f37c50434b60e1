"""An image as an OCI layout (image-spec image-layout.md), in a tar or a folder.

The tar is that of containerd's archive exporter, which BuildKit uses: entries sorted by name, no times, no
owners, so one image gives the same bytes each time; with docker's ``manifest.json`` for ``docker load``.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from bknb.digest import Digest
from bknb.errors import ContentError
from bknb.oci import canonical
from bknb.oci.types import OCI_INDEX, Descriptor, Index, Manifest, parse_document
from bknb.protocols import ContentStore, Progress
from bknb.reference import Reference

NAME: Final = "io.containerd.image.name"
REF_NAME: Final = "org.opencontainers.image.ref.name"
_BLOCK: Final = tarfile.BLOCKSIZE
_MOST: Final = 1 << 30
_OTHERWISE: Final = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)
)
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


def named(target: Descriptor, names: Sequence[str]) -> tuple[Descriptor, ...]:
    """The entries of a layout's index for an image: one for each name, else one without."""
    if not names:
        return (target,)
    entries = []
    for name in names:
        reference = Reference.parse(name)
        annotations = {
            **target.annotations,
            NAME: name,
            REF_NAME: reference.tag or str(reference.digest or ""),
        }
        entries.append(replace(target, annotations=annotations))
    return tuple(entries)


def blobs_of(content: ContentStore, target: Descriptor) -> dict[Digest, int]:
    """Every blob of an image with its size: indexes, manifests, configs, layers.

    Raises:
        ContentError: one of them is not in the store.
    """
    found: dict[Digest, int] = {}
    pending = [target]
    while pending:
        described = pending.pop()
        if described.digest in found:
            continue
        info = content.info(described.digest)
        if info is None:
            raise ContentError(f"blob {described.digest} of the image is not in the store")
        found[described.digest] = info.size
        try:
            document = parse_document(content.read(described.digest), described.media_type)
        except ValueError as error:
            raise ContentError(f"{described.digest} is no image: {error}") from None
        if isinstance(document, Index):
            pending += document.manifests
            continue
        for blob in (document.config, *document.layers):
            info = content.info(blob.digest)
            if info is None and not blob.urls:
                raise ContentError(f"blob {blob.digest} of the image is not in the store")
            if info is not None:
                found[blob.digest] = info.size
    return found


def layout_index(target: Descriptor, names: Sequence[str]) -> bytes:
    """The layout's ``index.json``."""
    entries = [entry.to_json() for entry in named(target, names)]
    return canonical.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def docker_manifest(content: ContentStore, target: Descriptor, names: Sequence[str]) -> bytes:
    """``manifest.json``, which ``docker load`` reads."""
    manifest = Manifest.parse(content.read(target.digest), target.media_type)
    tags = [Reference.parse(name).familiar for name in names] or None
    layers = [_place(layer.digest) for layer in manifest.layers]
    return canonical.dumps(
        [{"Config": _place(manifest.config.digest), "RepoTags": tags, "Layers": layers or None}]
    )


def write_tar(
    out: IO[bytes],
    content: ContentStore,
    target: Descriptor,
    names: Sequence[str],
    *,
    further: dict[str, bytes] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the archive. Blocks; meant for a thread.

    Raises:
        ContentError: a blob is not in the store.
        OSError: the file cannot be written.
    """
    blobs = blobs_of(content, target)
    small = {"oci-layout": (_LAYOUT, 0o444), "index.json": (layout_index(target, names), 0o644)}
    small |= {name: (data, 0o644) for name, data in (further or {}).items()}
    places = {_place(digest): digest for digest in blobs}
    folders = {"blobs/", *(f"blobs/{digest.algorithm}/" for digest in blobs)}
    for name in sorted({*small, *places, *folders}):
        if name in folders:
            out.write(_header(name, tarfile.DIRTYPE, 0o755, 0))
        elif name in small:
            data, mode = small[name]
            out.write(_header(name, tarfile.REGTYPE, mode, len(data)) + data + bytes(-len(data) % _BLOCK))
        else:
            digest = places[name]
            out.write(_header(name, tarfile.REGTYPE, 0o444, blobs[digest]))
            with open(content.open(digest), "rb", buffering=0) as blob:
                copy(blob.fileno(), out, blobs[digest])
            out.write(bytes(-blobs[digest] % _BLOCK))
            if progress is not None:
                progress(digest, blobs[digest], blobs[digest])
    out.write(bytes(2 * _BLOCK))


def copy(source: int, out: IO[bytes], size: int) -> None:
    """Copy `size` bytes of a file to the end of another one, in the kernel where it can.

    Raises:
        ContentError: the file is shorter.
        OSError: it cannot be written.
    """
    out.flush()
    target, left = out.fileno(), size
    moves = [_in_the_kernel, os.sendfile, _through_here]
    while left:
        try:
            # The arguments of sendfile: to, from, offset, count.
            done = moves[0](target, source, size - left, min(left, _MOST))
        except OSError as error:
            if len(moves) == 1 or error.errno not in _OTHERWISE:
                raise
            del moves[0]
            continue
        if not done:
            raise ContentError("a blob is shorter than its size says")
        left -= done


def _in_the_kernel(target: int, source: int, offset: int, count: int) -> int:
    return os.copy_file_range(source, target, count, offset)


def _through_here(target: int, source: int, offset: int, count: int) -> int:
    data = memoryview(os.pread(source, min(count, 1 << 20), offset))
    done = 0
    while done < len(data):
        done += os.write(target, data[done:])
    return done


def write_folder(
    folder: Path,
    content: ContentStore,
    target: Descriptor,
    names: Sequence[str],
    progress: Progress | None = None,
) -> None:
    """Put the image into a layout folder, beside what is there; its own names are taken over. Blocks.

    Raises:
        ContentError: a blob is not in the store.
        OSError: the folder cannot be written.
    """
    blobs = blobs_of(content, target)
    folder.mkdir(parents=True, exist_ok=True)
    for digest, size in blobs.items():
        place = folder / _place(digest)
        if not (place.is_file() and place.stat().st_size == size):
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_name(f".{place.name}.{os.getpid()}")
            with open(content.open(digest), "rb", buffering=0) as blob, open(beside, "wb") as out:
                copy(blob.fileno(), out, size)
            os.chmod(beside, 0o644)
            os.replace(beside, place)
        if progress is not None:
            progress(digest, size, size)
    kept = [entry for entry in _entries_of(folder) if not _replaced(entry, target, names)]
    entries = [*(entry.to_json() for entry in kept), *(entry.to_json() for entry in named(target, names))]
    index = canonical.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    for name, data in (("oci-layout", _LAYOUT), ("index.json", index)):
        beside = folder / f".{name}.{os.getpid()}"
        beside.write_bytes(data)
        os.replace(beside, folder / name)


def _entries_of(folder: Path) -> Iterator[Descriptor]:
    try:
        yield from Index.parse((folder / "index.json").read_bytes(), OCI_INDEX).manifests
    except (FileNotFoundError, ValueError):
        return


def _replaced(entry: Descriptor, target: Descriptor, names: Sequence[str]) -> bool:
    name = entry.annotations.get(NAME, "")
    return name in names if name else entry.digest == target.digest


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _header(name: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    return info.tobuf(tarfile.PAX_FORMAT)
