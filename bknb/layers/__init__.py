"""Layer directories as OCI blobs, and blobs as layer directories.

::

    create:   shim ── tar, by pipe ──> hash (diff_id) ──> compress ──> hash (digest) ──> content store
    apply:    content store ──> decompress ──> hash (diff_id) ── by pipe ──> shim

One pass, nothing on disk in between, in two threads besides the shim: the libraries release the interpreter's
lock. `ShimLayers` is the `protocols.Layers` of this; `compress` holds the codecs, `pipeline` the threads, and `tar`
rewrites times.
"""

from bknb.layers.blobs import ShimLayers

__all__ = ["ShimLayers"]
