"""A cache store in memory: a real one's shadow, or one that a replay fills as it goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from bknb.keys.cachekey import VOLATILE, derived_key, root_key
from bknb.protocols import CacheRecord, CacheStore

PLANNED: Final = "planned:"
"""How ids of results begin that nobody has made."""

_Link = tuple[str, int, int, str, str]


class CacheIndex(CacheStore, Protocol):
    """A cache store that can also be asked what a step has led to at all."""

    def keyed(self, digest: str, output: int) -> frozenset[str]:
        """Every key of steps with this cache map, whatever their inputs were."""

    def leads_on(self, key: str) -> bool:
        """Whether any link starts from a key."""

    def keys_of(self, result: str) -> tuple[str, ...]:
        """The keys that lead to a result."""


class ShadowStore:
    """A `CacheIndex` that writes to memory only.

    Args:
        base: what is known beforehand; it is read and never written. None for a store of its own.
    """

    def __init__(self, base: CacheIndex | None = None) -> None:
        self._base = base
        self._links: dict[_Link, frozenset[str]] = {}
        self._records: dict[str, dict[str, CacheRecord]] = {}
        self._keyed: dict[tuple[str, int], frozenset[str]] = {}
        self._sources: set[str] = set()
        self._gone: set[str] = set()
        self._dead: set[str] = set()
        self._texts: dict[str, str] = {}
        self._suspects: dict[str, set[str]] = {}
        self._made = 0

    def new_result(self) -> str:
        """An id for a result that would be made; unique in this store."""
        self._made += 1
        return f"{PLANNED}{self._made}"

    # --- questions ---

    def refresh(self) -> None:
        """See what others have written to the base."""
        if self._base is not None:
            self._base.refresh()

    def targets(self, key: str, input: int, output: int, digest: str, selector: str) -> frozenset[str]:
        """Keys that a link leads to."""
        found = self._links.get((key, input, output, digest, selector), frozenset())
        if self._base is not None:
            found |= self._base.targets(key, input, output, digest, selector)
        return found - self._dead if self._dead else found

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Results of a key, newest first."""
        own = tuple(reversed(self._records.get(key, {}).values()))
        base = self._base.records(key) if self._base is not None else ()
        return own + tuple(record for record in base if record.result not in self._gone)

    def keyed(self, digest: str, output: int) -> frozenset[str]:
        """Every key of steps with this cache map, whatever their inputs were."""
        found = self._keyed.get((digest, output), frozenset())
        if self._base is not None:
            found |= self._base.keyed(digest, output)
        return found - self._dead

    def leads_on(self, key: str) -> bool:
        """Whether any link starts from a key."""
        return key in self._sources or (self._base is not None and self._base.leads_on(key))

    def keys_of(self, result: str) -> tuple[str, ...]:
        """The keys that lead to a result."""
        own = tuple(key for key, records in self._records.items() if result in records)
        return own if self._base is None else (*own, *self._base.keys_of(result))

    def suspects(self, keys: Iterable[str]) -> frozenset[str]:
        """Keys of which nobody knows whether they are one with some of these."""
        found = frozenset[str]().union(*(self._suspects[key] for key in keys if key in self._suspects))
        return found.difference(keys)

    def plaintext(self, digest: str) -> str | None:
        """What a digest was taken of, if that is known."""
        known = self._texts.get(digest)
        return self._base.plaintext(digest) if known is None and self._base is not None else known

    # --- changes ---

    def connect(
        self, sources: Sequence[tuple[str, str]], input: int, output: int, digest: str
    ) -> frozenset[str]:
        """All targets of several (key, selector) pairs of one input, linked to each of them from now on."""
        found = frozenset[str]().union(*(self.targets(k, input, output, digest, s) for k, s in sources))
        for key, selector in sources:
            self._link((key, input, output, digest, selector), found)
        return found

    def save(
        self,
        digest: str,
        output: int,
        deps: Sequence[Sequence[tuple[str, str]]],
        result: str,
        *,
        vertex: str = "",
    ) -> str:
        """Keep a result; returns its key, an existing one where all inputs lead to it."""
        key = self.link(digest, output, deps, vertex=vertex)
        if key.startswith(VOLATILE):
            return key
        records = self._records.setdefault(key, {})
        records.pop(result, None)
        records[result] = CacheRecord(key, result)
        return key

    def link(
        self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]], *, vertex: str = ""
    ) -> str:
        """As `save`, without a result."""
        key = self._resolve(digest, output, deps)
        if key.startswith(VOLATILE):
            return key
        self._keyed[digest, output] = self._keyed.get((digest, output), frozenset()) | {key}
        self._dead.discard(key)
        for index, pairs in enumerate(deps):
            for source, selector in pairs:
                self._link((source, index, output, digest, selector), frozenset([key]))
        return key

    def _resolve(self, digest: str, output: int, deps: Sequence[Sequence[tuple[str, str]]]) -> str:
        if not deps:
            return root_key(digest, output)
        reached = [
            frozenset[str]().union(*(self.targets(key, index, output, digest, sel) for key, sel in pairs))
            for index, pairs in enumerate(deps)
        ]
        return min(frozenset.intersection(*reached), default="") or derived_key(digest, output, deps)

    def _link(self, link: _Link, targets: frozenset[str]) -> None:
        if targets and not link[0].startswith(VOLATILE):
            self._links[link] = self._links.get(link, frozenset()) | targets
            self._sources.add(link[0])

    def suspect(self, keys: Iterable[str]) -> None:
        """Some of these keys may be one: which, only a build would show. A later prediction has to know."""
        every = set(keys)
        every.update(*(self._suspects[key] for key in keys if key in self._suspects))
        for key in every:
            self._suspects[key] = every

    def forget(self, result: str) -> None:
        """A result is gone; keys that lead nowhere any more are not led to."""
        self._gone.add(result)
        keys = self.keys_of(result)
        for key in keys:
            self._records.get(key, {}).pop(result, None)
        self._dead.update(key for key in keys if not self.records(key) and not self.leads_on(key))

    def note(self, digest: str, plaintext: str) -> None:
        """Remember what a digest is taken of."""
        self._texts.setdefault(digest, plaintext)
