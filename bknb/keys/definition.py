"""The JSON of a build op, which carries a whole definition (Go's encoding of pb.BuildOp)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from bknb.errors import DefinitionError
from bknb.gojson import present
from bknb.llb.ops import BuildOp
from bknb.pb import ops_pb2 as pb


def build_op_json(op: BuildOp) -> dict[str, Any]:
    """A build op as Go's json.Marshal orders and names it.

    Raises:
        DefinitionError: its definition cannot be read.
    """
    return present(
        builder=op.builder,
        inputs={name: present(input=op.inputs[name]) for name in sorted(op.inputs, key=str.encode)} or None,
        **{"def": _definition(op.definition) if op.definition else None},
        attrs=_sorted(op.attrs),
    )


def _definition(data: bytes) -> dict[str, Any]:
    message = pb.Definition()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise DefinitionError(f"the definition inside of a build op cannot be read: {error}") from None
    metadata = {name: _metadata(message.metadata[name]) for name in sorted(message.metadata, key=str.encode)}
    fields = {"def": [base64.b64encode(entry).decode() for entry in getattr(message, "def")]}
    return present(
        **fields,
        metadata=metadata or None,
        Source=_source(message.Source) if message.HasField("Source") else None,
    )


def _sorted(values: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: values[name] for name in sorted(values, key=str.encode)} or None


def _metadata(meta: Any) -> dict[str, Any]:
    group = meta.progress_group
    return present(
        ignore_cache=meta.ignore_cache,
        description=_sorted(meta.description),
        export_cache=present(Value=meta.export_cache.Value) if meta.HasField("export_cache") else None,
        caps=_sorted(meta.caps),
        progress_group=present(id=group.id, name=group.name, weak=group.weak)
        if meta.HasField("progress_group")
        else None,
        linux_resources=_resources(meta.linux_resources) if meta.HasField("linux_resources") else None,
    )


def _resources(linux: Any) -> dict[str, Any]:
    return present(
        memory=linux.memory, memorySwap=linux.memorySwap, cpuShares=linux.cpuShares,
        cpuPeriod=linux.cpuPeriod, cpuQuota=linux.cpuQuota, cpusetCpus=linux.cpusetCpus,
        cpusetMems=linux.cpusetMems,
    )  # fmt: skip


def _source(source: Any) -> dict[str, Any]:
    locations = {
        digest: present(locations=[_location(entry) for entry in source.locations[digest].locations])
        for digest in sorted(source.locations, key=str.encode)
    }
    return present(locations=locations or None, infos=[_info(info) for info in source.infos])


def _info(info: Any) -> dict[str, Any]:
    return present(
        filename=info.filename,
        data=base64.b64encode(info.data).decode(),
        definition=_definition(info.definition.SerializeToString()) if info.HasField("definition") else None,
        language=info.language,
    )


def _location(location: Any) -> dict[str, Any]:
    ranges = [
        present(
            start=present(line=r.start.line, character=r.start.character) if r.HasField("start") else None,
            end=present(line=r.end.line, character=r.end.character) if r.HasField("end") else None,
        )
        for r in location.ranges
    ]
    return present(sourceIndex=location.sourceIndex, ranges=ranges)
