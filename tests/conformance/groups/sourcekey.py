"""The group `sourcekey`: one source op and what it resolved to -> its keys, one for each round."""

from __future__ import annotations

from typing import Any

from bknb.digest import Digest
from bknb.errors import SourceError
from bknb.keys.source import GitSource, HttpSource, LocalSource, source_digest
from bknb.oci.image import config_key, manifest_key
from bknb.platforms import Platform


def sourcekey(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    identifier, attrs = request["identifier"], request["attrs"]
    scheme = identifier.partition("://")[0]
    try:
        match scheme:
            case "docker-image" | "oci-layout":
                return {"keys": _image(request)}
            case "http" | "https":
                http = HttpSource.parse(identifier, attrs)
                name = http.name()
                key = http.key(name, Digest(request["resolved_digest"]), request.get("last_modified"))
                return {"filename": name, "keys": [_round(key)]}
            case "git":
                git = GitSource.parse(identifier, attrs)
                keys = [_round(git.key(request["commit"], request["ref"]))]
                return {"keys": keys, "ref": git.ref, "remote": git.remote, "subdir": git.subdir}
            case _:
                return {"keys": [_round(LocalSource.parse(identifier, attrs).key())]}
    except SourceError as error:
        return {"error": str(error)}


def _image(request: dict[str, Any]) -> list[dict[str, Any]]:
    text = request["attrs"].get("image.layerlimit")
    limit = None if text is None else int(text)
    first = manifest_key(Digest(request["resolved_digest"]), Platform.parse(request["platform"]), limit)
    second = config_key(request["image_config"].encode(), limit) or first
    return [_round(first, done=False), _round(second)]


def _round(key: str, *, done: bool = True) -> dict[str, Any]:
    return {"key": key, "digest": source_digest(key), "done": done}
