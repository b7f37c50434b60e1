"""`(did you mean X?)` as BuildKit finds X: the nearest name within two edits (util/suggest/error.go)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.gotext import lower, upper

_MAX_DISTANCE = 2


def search(value: str, options: Iterable[str], *, case_sensitive: bool = True) -> str:
    """The option nearest to a value; "" if none is near, or if the value is one of them.

    BuildKit takes any of several equally near ones; here it is the one that looks most like the value.

    >>> search("bnd", ["bind", "cache"]), search("bind", ["bind"]), search("RNU", ["RUN", "ENV"])
    ('bind', '', 'RUN')
    """
    wanted = value if case_sensitive else lower(value)
    near: list[str] = []
    fewest = _MAX_DISTANCE
    for option in options:
        name = option if case_sensitive else lower(option)
        if name == wanted:
            return ""
        if not name or abs(len(name) - len(wanted)) > fewest:
            continue
        edits = distance(wanted, name)
        if edits < fewest:
            near, fewest = [name], edits
        elif edits == fewest:
            near.append(name)
    if not near:
        return ""
    found = near[0]
    if len(near) > 1:  # how alike they look costs more to tell than how far apart they are
        found = max(near, key=lambda name: difflib.SequenceMatcher(None, wanted, name).ratio())
    return found if case_sensitive else _same_case(found, value)


def with_suggestion(
    message: str, value: str, options: Iterable[str], *, case_sensitive: bool = True
) -> DockerfileError:
    """An error, with the nearest name in its text if there is one."""
    found = search(value, options, case_sensitive=case_sensitive)
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
