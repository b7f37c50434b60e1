"""The group `cachemap`: one op -> its cache map digest, and what each input adds to the key."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import json_format

from bknb.digest import Digest
from bknb.errors import DefinitionError
from bknb.keys import ContentSelector, DepSpec, op_cache_map
from bknb.llb.decode import decode_op, decode_platform
from bknb.llb.ops import DiffOp
from bknb.pb import ops_pb2 as pb
from bknb.platforms import Platform


def cachemap(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    if "bytes" in request:
        data = base64.b64decode(request["bytes"])
        message = pb.Op.FromString(data)
    else:
        message = json_format.ParseDict(request["op"], pb.Op())
        data = _canonical(message)
    answer: dict[str, Any] = {"op_digest": Digest.of(data)}
    try:
        op = decode_op(message, answer["op_digest"])
        platform = decode_platform(message) or Platform("linux", "amd64")
        found = op_cache_map(op, len(message.inputs), platform)
    except DefinitionError as error:
        return {**answer, "error": _go_text(str(error))}
    answer |= {"digest": found.digest, "done": True, "deps": [_dep(dep) for dep in found.deps]}
    if not isinstance(op, DiffOp):  # BuildKit does not note what a diff's digest is taken of
        answer["preimage"] = found.plaintext
    return answer


def _canonical(message: Any) -> bytes:
    """Go writes the fields of a oneof after all others."""
    kind = message.WhichOneof("op")
    rest, op = pb.Op(), pb.Op()
    rest.CopyFrom(message)
    rest.ClearField(kind)
    getattr(op, kind).CopyFrom(getattr(message, kind))
    return rest.SerializeToString(deterministic=True) + op.SerializeToString(deterministic=True)


def _go_text(text: str) -> str:
    return text.rpartition(": ")[2]


def _dep(dep: DepSpec) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "selector": dep.selector or "",
        "compute_digest": dep.content is not None,
        "preprocess": dep.preprocess,
    }
    if dep.paths:
        answer["paths"] = list(dep.paths)
    if dep.content is not None:
        answer["content_selectors"] = [_selector(selector) for selector in dep.content]
    return answer


def _selector(selector: ContentSelector) -> dict[str, Any]:
    every = {
        "path": selector.path, "follow_links": selector.follow_links, "wildcard": selector.wildcard,
        "include": list(selector.include), "exclude": list(selector.exclude),
        "required": list(selector.required),
    }  # fmt: skip
    return {name: value for name, value in every.items() if value}
