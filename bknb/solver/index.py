"""Which vertex runs, or has run, what a cache key names (solver/index.go)."""

from __future__ import annotations

from bknb.solver.graph import ActiveVertex


class RunningIndex:
    """The active vertices that run or have run, by the links that lead to their keys."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, int, str, str], dict[ActiveVertex, None]] = {}
        self._of: dict[ActiveVertex, list[tuple[str, int, str, str]]] = {}

    def find(self, digest: str, deps: list[list[tuple[str, str]]]) -> list[ActiveVertex]:
        """Those that every input leads to, the oldest first."""
        common: list[ActiveVertex] | None = None
        for links in _index_links(digest, deps):
            reached: dict[ActiveVertex, None] = {}
            for link in links:
                reached |= self._links.get(link, {})
            common = list(reached) if common is None else [active for active in common if active in reached]
            if not common:
                return []
        return common or []

    def add(self, active: ActiveVertex, digest: str, deps: list[list[tuple[str, str]]]) -> None:
        """This one runs it now."""
        for links in _index_links(digest, deps):
            for link in links:
                self._links.setdefault(link, {})[active] = None
                self._of.setdefault(active, []).append(link)

    def remove(self, active: ActiveVertex) -> None:
        """It failed, was cancelled, or nobody wants it any more."""
        for link in self._of.pop(active, ()):
            users = self._links.get(link)
            if users is not None:
                users.pop(active, None)
                if not users:
                    del self._links[link]


def _index_links(digest: str, deps: list[list[tuple[str, str]]]) -> list[list[tuple[str, int, str, str]]]:
    if not deps:
        return [[("", 0, digest, "")]]
    return [[(key, index, digest, selector) for key, selector in pairs] for index, pairs in enumerate(deps)]
