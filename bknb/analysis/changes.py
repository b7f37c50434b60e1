"""How two ops differ, told in what their keys are made of: a field that is in no key is no difference."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bknb.errors import DefinitionError
from bknb.keys import cache_map
from bknb.llb.ops import FileOp, MkFileAction, SourceOp
from bknb.llb.vertex import Vertex
from bknb.platforms import Platform

ENV: Final = "Exec.meta.env"
ARGS: Final = "Exec.meta.args"
MOUNTS: Final = "Exec.mounts"
DOCUMENT: Final = "document"
_NAMES: Final = {
    ARGS: "command", "Exec.meta.cwd": "WORKDIR", "Exec.meta.user": "USER", "Actions.owner": "USER",
    "Exec.meta.extraHosts": "--add-host", "Exec.meta.hostname": "host name", "Exec.meta.ulimit": "--ulimit",
    "Exec.meta.cgroupParent": "--cgroup-parent", "Exec.network": "network", "Exec.security": "security",
    MOUNTS: "mounts", "Exec.mounts.TmpfsOpt.size": "--shm-size",
}  # fmt: skip
_SOME: Final = Platform("linux", "amd64")
LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Change:
    """One field, by its path (``Exec.meta.cwd``), and its two values; None where there is none."""

    path: str
    before: Any
    after: Any


def changes(before: Vertex, after: Vertex) -> list[Change]:
    """The fields that differ, in order."""
    if type(before.op) is not type(after.op):
        return [Change("op", type(before.op).__name__, type(after.op).__name__)]
    return list(_walk("", fields(before), fields(after)))


def fields(vertex: Vertex) -> dict[str, Any]:
    """What the key of a vertex is made of, its inputs left out."""
    if isinstance(vertex.op, SourceOp):
        asked = {"identifier": vertex.op.identifier, "attrs": dict(vertex.op.attrs)}
        return asked | ({"Platform": str(vertex.platform)} if vertex.platform is not None else {})
    try:
        spec = cache_map(vertex, _SOME)
    except DefinitionError:
        return {}
    found: dict[str, Any] = json.loads(spec.plaintext)
    actions = found.get("Actions")
    if isinstance(actions, list):
        found["Actions"] = [_action(action) for action in actions]
    found["paths"] = [list(dep.paths) for dep in spec.deps]
    return found


def _action(text: str | None) -> dict[str, Any]:
    """A file action; its owner as people write it, so that it compares with the user of a command."""
    action: dict[str, Any] = json.loads(base64.b64decode(text)) if text else {}
    if isinstance(owner := action.get("owner"), dict):
        action["owner"] = ":".join(_user(owner[part]) for part in ("user", "group") if owner.get(part))
    return action


def document(vertex: Vertex) -> str:
    """What a heredoc says: the texts of the files that a vertex writes."""
    actions = vertex.op.actions if isinstance(vertex.op, FileOp) else ()
    texts = (action.action.data for action in actions if isinstance(action.action, MkFileAction))
    return b"".join(texts).decode(errors="replace")


def _user(given: dict[str, Any]) -> str:
    user = given.get("User") or {}
    named = user.get("byName")
    return str(named.get("name", "")) if isinstance(named, dict) else str(user.get("byId", 0))


def variables(change: Change) -> dict[str, tuple[str, str]]:
    """Names that differ in a change of ``env``, with their values before and after."""
    old, new = (dict(_pair(text) for text in side or ()) for side in (change.before, change.after))
    return {
        name: (old.get(name, ""), new.get(name, ""))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def named(path: str) -> str:
    """A field as people call it, if they do.

    >>> named("Actions.0.owner"), named("Exec.network")
    ('USER', 'network')
    """
    return _NAMES.get(re.sub(r"\.\d+", "", path), path)


def shown(value: Any) -> str:
    """A value for people, on one line."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _walk(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if path != ENV and isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            yield from _walk(f"{path}.{name}".lstrip("."), before.get(name), after.get(name))
    elif _walkable(before) and _walkable(after) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _walk(f"{path}.{number}", old, new)
    else:
        yield Change(path, before, after)


def _walkable(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
