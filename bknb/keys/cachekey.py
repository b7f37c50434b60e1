"""Names of cache keys: what a step's result is found by (solver/cachekey.go, cachemanager.go).

A step without inputs is keyed by its own digest. One with inputs has a key for each way in which it was
reached: links lead from the keys of its inputs to it. So its name only has to be unique; here it is derived
from the first way, and two kernels that do the same work come to the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from bknb.digest import Digest

VOLATILE = "random:"
"""How names begin that no later build can come to: a session's files before they are looked at."""

CONTENT = -1
"""Output number in the name of a content digest."""


@lru_cache(1 << 16)
def root_key(digest: str, output: int) -> str:
    """The key of an output that has no inputs, or of content (output -1).

    >>> root_key("random:ab", 0)
    'random:ab'
    >>> root_key("sha256:ab", 0)[:15]
    'sha256:6f38cc8e'
    """
    return digest if digest.startswith(VOLATILE) else Digest.of_text(f"{digest}@{output}")


def derived_key(digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A new name for a step with inputs.

    Args:
        digest: of its cache map.
        output: which one.
        deps: for each input its (key, selector) pairs.

    Returns:
        A volatile name when an input has none but volatile keys.
    """
    parts = [f"{digest}@{output}"]
    volatile = False
    for pairs in deps:
        lasting = [pair for pair in pairs if not pair[0].startswith(VOLATILE)]
        volatile = volatile or not lasting
        parts.append(":".join(min(lasting or pairs, default=("", ""))))
    name = Digest.of_text("\0".join(parts))
    return VOLATILE + name.hex if volatile else name
