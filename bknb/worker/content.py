"""The content keys of inputs: which bytes a step really reads.

The hashes of a context come with it. Of any other result the tree is listed once and kept; a file is read only when
a key needs its digest, and then by the shim, since only it sees every file.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable, Sequence

from bknb.cache.contenthash import Entry, Tree, scratch_digest
from bknb.cache.listing import MAX_FILES, Listing
from bknb.digest import Digest
from bknb.keys import ContentSelector
from bknb.protocols import Ref, Shim

_KEPT = 64
"""Trees that are kept in memory."""


class ContentHasher:
    """Computes content keys.

    Args:
        shim: lists and hashes files.
        known: gives the tree of a result whose hashes are known already, or None.
        note: told of each key, and how to make the text that says what it was taken of.
    """

    def __init__(
        self,
        shim: Shim,
        known: Callable[[Ref], Tree | None],
        note: Callable[[str, Callable[[], str]], None] = lambda digest, make: None,
    ) -> None:
        self._shim = shim
        self._known = known
        self._note = note
        self._trees: OrderedDict[str, Tree] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    def came_with_hashes(self, ref: Ref) -> bool:
        """Whether a result is a context: the hashes of its files are known from when they were copied."""
        return self._known(ref) is not None

    async def digest(self, ref: Ref | None, selectors: Sequence[ContentSelector]) -> Digest:
        """The content key of an input; no selectors mean the whole of it.

        Raises:
            PathError: a path that a step names is not there.
        """
        if ref is None:
            return scratch_digest(selectors)
        known = self._known(ref)
        if known is not None:
            return self._digest(known, selectors)
        lock = self._locks.setdefault(ref.id, asyncio.Lock())
        async with lock:
            try:
                tree = self._trees.get(ref.id) or await self._list(ref)
                self._trees[ref.id] = tree
                self._trees.move_to_end(ref.id)
                while missing := tree.missing(selectors):
                    tree.learn(await self._hash(ref, missing))
                return self._digest(tree, selectors)
            finally:
                while len(self._trees) > _KEPT:
                    self._locks.pop(self._trees.popitem(last=False)[0], None)

    def _digest(self, tree: Tree, selectors: Sequence[ContentSelector]) -> Digest:
        """The key, and for who asks later why it is another: which files it stands for."""
        digest = tree.digest(selectors)
        self._note(digest, lambda: Listing.of(tree.files(selectors, MAX_FILES + 1)).to_text())
        return digest

    async def _list(self, ref: Ref) -> Tree:
        """Every path of a result, without digests."""
        entries = await self._shim.call("views.scan", mounts=[m.to_json() for m in await ref.mounts()])
        return Tree.of((path, _entry(fields)) for path, *fields in entries)

    async def _hash(self, ref: Ref, missing: dict[str, bytes]) -> dict[str, str]:
        files = [[path, base64.b64encode(header).decode()] for path, header in missing.items()]
        digests: dict[str, str] = await self._shim.call(
            "views.hash", mounts=[m.to_json() for m in await ref.mounts()], files=files
        )
        return digests


def _entry(fields: Sequence[object]) -> Entry:
    mode, uid, gid, size, linkname, xattrs = fields
    assert isinstance(mode, int) and isinstance(uid, int) and isinstance(gid, int) and isinstance(size, int)
    assert isinstance(linkname, str) and isinstance(xattrs, dict)
    return Entry(
        mode,
        uid,
        gid,
        size,
        linkname,
        xattrs={name: bytes.fromhex(value) for name, value in xattrs.items()} or None,
    )
