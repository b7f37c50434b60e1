"""How a source differs: asked for under another name, or the same name means something else now."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from bknb.analysis.causes import Cause, Kind
from bknb.analysis.changes import changes, shown
from bknb.analysis.seen import Seen
from bknb.keys.resolved import Resolved, anonymous
from bknb.llb.ops import SourceOp
from bknb.llb.vertex import Vertex

_PINNED: Final = re.compile(r"@?(sha256:[0-9a-f]{64})$")
_NAMED: Final[Mapping[str, tuple[Kind, Kind]]] = {
    "git": (Kind.SOURCE, Kind.GIT_COMMIT),
    "http": (Kind.SOURCE, Kind.HTTP_BODY),
    "https": (Kind.SOURCE, Kind.HTTP_BODY),
}
"""By scheme: the kind for another address, and for another meaning of the same; others are images."""

Plaintext = Callable[[str], str | None]


def source_causes(before: Seen, after: Seen, was: Vertex, now: Vertex, plaintext: Plaintext) -> list[Cause]:
    """Why the key of a source is another; [] where nothing differs, or what it meant is not known any more."""
    if was.platform != now.platform:
        return [platform_cause(was, now)]
    old, new = resolved(before, was, plaintext), resolved(after, now, plaintext)
    asked, moved = _NAMED.get(_scheme(now), (Kind.IMAGE, Kind.IMAGE_MOVED))
    if old.identifier != new.identifier:
        return [Cause(asked, new.identifier, old.identifier, new.identifier)]
    if old.value != new.value:
        return [Cause(moved, new.identifier, old.value, new.value)]
    found = [
        Cause(Kind.FIELD, change.path, shown(change.before), shown(change.after))
        for change in changes(was, now)
        if change.path != "identifier"
    ]
    if old.rest != new.rest and not found:
        found = [Cause(Kind.FIELD, new.identifier, shown(old.rest), shown(new.rest))]
    return found


def platform_cause(was: Vertex, now: Vertex) -> Cause:
    """Another platform; the same cause for every step that it is said of."""
    return Cause(Kind.PLATFORM, "", str(was.platform or ""), str(now.platform or ""))


def resolved(seen: Seen, vertex: Vertex, plaintext: Plaintext) -> Resolved:
    """The address of a source as people write it, and what it meant in a build; "" where that is not known."""
    assert isinstance(vertex.op, SourceOp)
    scheme, _, name = vertex.op.identifier.partition("://")
    shown_name = _familiar(name) if scheme not in _NAMED else _address(scheme, name)
    pinned = _PINNED.search(name)
    if pinned is not None and scheme not in _NAMED:
        return Resolved(_familiar(name[: pinned.start()]), pinned[1])
    for key in seen.keys.get(vertex.digest, ()):
        found = Resolved.parse(plaintext(key) or "")
        if found is not None and found.identifier == anonymous(vertex.op.identifier):
            return Resolved(shown_name, found.value, found.rest)
    return Resolved(shown_name, "")


def _scheme(vertex: Vertex) -> str:
    return vertex.op.identifier.partition("://")[0] if isinstance(vertex.op, SourceOp) else ""


def _address(scheme: str, name: str) -> str:
    text = anonymous(f"{scheme}://{name}")
    return text.removeprefix("git://")


def _familiar(name: str) -> str:
    return name.removeprefix("docker.io/").removeprefix("library/")
