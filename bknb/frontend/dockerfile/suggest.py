"""`(did you mean X?)` as BuildKit finds X: the nearest name within two edits (util/suggest/error.go)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import lower, upper

_MAX_DISTANCE = 2


def search_in_order(value: str, options: Iterable[str]) -> str:
    """The nearest option, the first of them if several are; "" if none is near or the value is one of them.

    >>> [search_in_order("bnd", ["bind", "bend"]), search_in_order("bind", ["bend", "bind"])]
    ['bind', '']
    """
    near = _nearest(value, options)
    return near[0] if near else ""


def search(value: str, options: Iterable[str], *, case_sensitive: bool = True) -> str:
    """The nearest option, where BuildKit has them in no order and takes any of several.

    Here it is the one that looks most like the value.

    >>> search("RNU", ["ENV", "RUN"]), search("rnu", ["ENV", "RUN"], case_sensitive=False)
    ('RUN', 'run')
    """
    wanted = value if case_sensitive else lower(value)
    near = _nearest(wanted, options if case_sensitive else map(lower, options))
    if not near:
        return ""
    found = near[0]
    if len(near) > 1:  # how alike they look costs more to tell than how far apart they are
        found = max(near, key=lambda name: difflib.SequenceMatcher(None, wanted, name).ratio())
    return found if case_sensitive else _same_case(found, value)


def _nearest(wanted: str, options: Iterable[str]) -> list[str]:
    near: list[str] = []
    fewest = _MAX_DISTANCE
    for name in options:
        if name == wanted:
            return []
        if abs(len(name) - len(wanted)) > fewest:
            continue
        edits = distance(wanted, name)
        if edits < fewest:
            near, fewest = [name], edits
        elif edits == fewest:
            near.append(name)
    return near


def with_suggestion(message: str, found: str) -> DockerfileError:
    """An error, with the nearest name in its text if there is one."""
    return DockerfileError(f"{message} (did you mean {found}?)" if found else message, suggestion=found)


def distance(one: str, other: str) -> int:
    """Levenshtein's distance.

    >>> distance("from", "form"), distance("", "ab")
    (2, 2)
    """
    row = list(range(len(other) + 1))
    for index, char in enumerate(one, 1):
        previous, row[0] = row[0], index
        for column, target in enumerate(other, 1):
            previous, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, previous + (char != target)),
            )
    return row[-1]


def _same_case(name: str, model: str) -> str:
    if model == lower(model):
        return lower(name)
    return upper(name) if model == upper(model) else name
