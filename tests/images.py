"""Small images made by code, whole in a content store: what tests push, pull and export."""

from __future__ import annotations

import gzip
import io
import tarfile

from bknb.digest import Digest
from bknb.oci import canonical
from bknb.oci.mutate import manifest_for
from bknb.oci.types import OCI_INDEX, OCI_LAYER, Descriptor, Index
from bknb.platforms import Platform
from bknb.protocols import ContentStore


def layer(files: dict[str, bytes], *, time: int = 0) -> tuple[bytes, Digest]:
    """A gzip layer and its diff id."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0), Digest.of(buffer.getvalue())


def make_image(
    store: ContentStore, *layers: dict[str, bytes], platform: str = "linux/amd64", oci: bool = True
) -> Descriptor:
    """An image of some files, whole in a store."""
    where, descriptors, diff_ids = Platform.parse(platform), [], []
    for files in layers:
        data, diff_id = layer(files)
        descriptors.append(Descriptor(OCI_LAYER + "+gzip", store.put(data), len(data)))
        diff_ids.append(diff_id)
    config = canonical.dumps(
        {
            "architecture": where.architecture, "os": where.os,
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )  # fmt: skip
    manifest = manifest_for(config, descriptors, oci=oci)
    store.put(config)
    raw = manifest.encode()
    return Descriptor(manifest.media_type, store.put(raw), len(raw), platform=where)


def make_index(store: ContentStore, *images: Descriptor) -> Descriptor:
    """An index of images of a store."""
    raw = Index(OCI_INDEX, images).encode()
    return Descriptor(OCI_INDEX, store.put(raw), len(raw))
