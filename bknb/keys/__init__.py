"""How BuildKit's cache names what an op does: pure functions from ops to digests.

`cache_map` gives the cache map of a vertex: a digest of the op itself (its plaintext is kept beside it, for
explanations) and, for each input, which part of it matters. `bknb.keys.source` gives the keys of sources once
they are resolved. The digests are BuildKit's to the last bit (solver/llbsolver/ops, source/*), so that a
cache written by one serves the other.
"""

from __future__ import annotations

from bknb.keys.cachemap import CacheMapSpec, DepSpec, cache_map, op_cache_map
from bknb.keys.selectors import ContentSelector

__all__ = ["CacheMapSpec", "ContentSelector", "DepSpec", "cache_map", "op_cache_map"]
