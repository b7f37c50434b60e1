"""The group `llb`: Dockerfile -> LLB definition, image config, warnings, errors."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from bknb.digest import Digest
from bknb.errors import DockerfileError, Range, RegistryError
from bknb.frontend.dockerfile.frontend import DockerfileFrontend
from bknb.frontend.dockerfile.lint import LintWarning
from bknb.llb import Definition, Edge, SourceOp
from bknb.llb.sourcemap import SourceMap
from bknb.pb import ops_pb2 as pb
from bknb.platforms import Platform
from bknb.protocols import (
    FrontendRequest,
    FrontendResult,
    ImageConfigAnswer,
    PlatformResult,
    SourceMetaAnswer,
)

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def llb(request: dict[str, Any]) -> dict[str, Any]:
    """Answers one case."""
    bridge = MeasuredBridge(request)
    frontend = DockerfileFrontend(built_in=lambda image: False, host=Platform("linux", "amd64"))
    answer: dict[str, Any] = {}
    try:
        result = asyncio.run(frontend.solve(FrontendRequest(request.get("opts") or {}), bridge))
    except DockerfileError as error:
        answer["error"] = _error(error)
        answer["warnings"] = _warnings(error.warnings)
    else:
        answer |= _result(result)
    answer["resolve_calls"] = sorted(bridge.calls, key=lambda call: json.dumps(call, sort_keys=True))
    return answer


class MeasuredBridge:
    """Answers as the resolver did that the cases were measured with."""

    emit = staticmethod(lambda event: None)

    def __init__(self, request: dict[str, Any]) -> None:
        self.session_id = request.get("session_id", "session0000000000000000aa")
        self.platforms = (Platform.parse(request.get("build_platform", "linux/amd64")),)
        self.calls: list[dict[str, Any]] = []
        self._request = request

    async def resolve_image_config(
        self,
        reference: str,
        *,
        platform: Platform | None,
        resolve_mode: str,
        log_name: str,
        oci_store: str = "",
    ) -> ImageConfigAnswer:
        """A listed image, or one made up from its name."""
        call: dict[str, Any] = {"kind": "image_config", "ref": reference, "log_name": log_name}
        if resolve_mode:
            call["resolve_mode"] = resolve_mode
        if platform is not None:
            call["platform"] = str(platform)
        if oci_store:
            call["oci_store"] = {"session_id": self.session_id, "store_id": oci_store}
        self.calls.append(call)
        listed = (self._request.get("images") or {}).get(reference, {})
        if "error" in listed:
            call["error"] = listed["error"]
            raise RegistryError(listed["error"])
        digest = listed.get("digest") or reference.partition("@")[2] or _sha256(f"image:{reference}")
        digest = "" if digest == "none" else digest
        listed_config = listed.get("config")
        config = json.dumps(listed_config) if listed_config else _compact(_made_up(reference, platform))
        found = listed.get("ref", reference)
        call |= {"config": config, "digest": digest, "out_ref": found}
        return ImageConfigAnswer(found, Digest(digest) if digest else None, config.encode())

    async def resolve_source_meta(
        self, identifier: str, attrs: Mapping[str, str], *, log_name: str
    ) -> SourceMetaAnswer:
        """What the case lists for a source."""
        self.calls.append({"kind": "source_metadata", "identifier": identifier, "log_name": log_name})
        listed = (self._request.get("source_metadata") or {}).get(identifier, {})
        commit = listed.get("git_commit_object")
        return SourceMetaAnswer(
            identifier, commit.encode() if commit else None, listed.get("http_last_modified")
        )

    async def solve(self, edge: Edge) -> MeasuredRef:
        """A source, as itself."""
        return MeasuredRef(edge)

    async def read_file(self, ref: Any, path: str, *, limit: int = 0) -> bytes | None:
        """A file of the client's folders, or of a remote context."""
        op = ref.edge.vertex.op
        assert isinstance(op, SourceOp)
        request = self._request
        text: str | None = None
        if path.endswith(".dockerignore") and path != ".dockerignore":
            text = request.get("dockerfile_dockerignore")
        elif path == ".dockerignore":
            name = op.identifier.removeprefix("local://")
            named = (request.get("context_dockerignores") or {}).get(name)
            text = request.get("dockerignore") if name == "context" else named
        elif path == (request.get("opts") or {}).get("filename", "Dockerfile") or path == "context":
            if "dockerfile_b64" in request:
                return base64.b64decode(request["dockerfile_b64"])
            text = request["dockerfile"]
        return None if text is None else text.encode()

    async def stat_file(self, ref: Any, path: str) -> None:
        """Nothing asks for it."""


class MeasuredRef:
    """A result that is only its edge."""

    id = ""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge

    async def release(self) -> None:
        """Nothing is held."""


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _made_up(reference: str, platform: Platform | None) -> dict[str, Any]:
    platform = platform or Platform("linux", "amd64")
    config: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Cmd": ["/bin/sh"], "Env": [_PATH]},
        "created": "2024-01-02T03:04:05Z",
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "base layer"}],
        "rootfs": {"type": "layers", "diff_ids": [_sha256(f"layer:{reference}")]},
    }
    return config | ({"variant": platform.variant} if platform.variant else {})


def _result(result: FrontendResult) -> dict[str, Any]:
    answer: dict[str, Any] = {"warnings": _warnings(result.warnings)}
    if result.forward is not None:
        return answer | {"forward": {"frontend": "gateway.v0", "opts": dict(result.forward.opts)}}
    answer["metadata"] = {key: value.decode() for key, value in result.metadata.items()}
    if result.results:
        answer["results"] = [_platform(one) for one in result.results]
    return answer


def _platform(result: PlatformResult) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "platform": result.id,
        "definition": _definition(Definition.from_edge(result.edge)),
        "image_config": result.image_config,
    }
    if result.base_image_config:
        answer["base_image_config"] = result.base_image_config
    if result.epoch is not None:
        answer["epoch"] = str(result.epoch)
    return answer


def _definition(definition: Definition) -> dict[str, Any]:
    if not definition.ops:
        return {"ops": []}
    groups: dict[str, str] = {}
    ops = [_op(data, definition, groups) for data in definition.ops]
    ops[-1]["terminal"] = True
    terminal = pb.Op.FromString(definition.ops[-1])
    return {
        "ops": ops,
        "head": definition.head,
        "head_index": terminal.inputs[0].index,
        "source": _source(definition.source or SourceMap()),
    }


def _op(data: bytes, definition: Definition, groups: dict[str, str]) -> dict[str, Any]:
    digest = Digest.of(data)
    message = definition.to_message().metadata[digest]
    if message.HasField("progress_group"):
        group = message.progress_group
        group.id = groups.setdefault(group.id, f"pg-{len(groups) + 1}")
    return {
        "bytes": base64.b64encode(data).decode(),
        "digest": digest,
        "op": json_format.MessageToDict(pb.Op.FromString(data)),
        "metadata": json_format.MessageToDict(message),
    }


def _source(source: SourceMap) -> dict[str, Any]:
    infos = []
    for file in source.files:
        info: dict[str, Any] = {
            "filename": file.filename,
            "language": file.language,
            "data_sha256": Digest.of(file.data),
            "data_len": len(file.data),
        }
        if file.definition is not None:
            info["definition"] = _definition(file.definition)
        infos.append(info)
    locations = {
        digest: [{"source_index": place.source_index, "ranges": _ranges(place.ranges)} for place in places]
        for digest, places in source.places.items()
    }
    return {"infos": infos, "locations": locations}


def _ranges(ranges: tuple[Range, ...]) -> list[list[int]]:
    return [[r.start_line, r.start_character, r.end_line, r.end_character] for r in ranges]


def _warnings(warnings: tuple[LintWarning, ...]) -> list[dict[str, Any]]:
    return [
        {
            "rule": warning.rule.name,
            "message": warning.message,
            "ranges": _ranges(warning.ranges),
            "detail": [warning.rule.description],
            "level": 1,
        }
        | ({"url": warning.rule.url} if warning.rule.url else {})
        for warning in warnings
    ]


def _error(error: DockerfileError) -> dict[str, Any]:
    answer: dict[str, Any] = {"message": error.message}
    if error.locations:
        answer["sources"] = [
            {"filename": error.filename, "ranges": _ranges(ranges)} for ranges in error.locations
        ]
    return answer
