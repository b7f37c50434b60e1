"""Immutable bytes by digest, on disk.

::

    ROOT/blobs/sha256/HEX    whole blobs, read-only
    ROOT/ingest/NAME         blobs being written, each locked by its writer

A blob appears under its digest by rename, after its bytes are on the disk: nobody ever sees half a blob, and
several kernels may write the same one. What a killed writer left in ``ingest`` is removed at the next start.
"""

from bknb.content.store import DiskContentStore

__all__ = ["DiskContentStore"]
