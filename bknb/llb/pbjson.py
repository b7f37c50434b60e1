"""Protobuf messages as Go writes them in JSON, in its two ways: ``protojson`` and plain ``encoding/json``."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_LONG = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
)


def to_protojson(message: Message) -> dict[str, Any]:
    """As ``protojson`` does: lower camel case, long numbers as texts, enum values by name."""
    return _fields(message, proto_json=True)


def to_gojson(message: Message) -> dict[str, Any]:
    """As ``encoding/json`` does with the generated structs: names as in the .proto, numbers as numbers."""
    return _fields(message, proto_json=False)


def _fields(message: Message, *, proto_json: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.json_name if proto_json else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            found[name] = {key: _value(inner, value[key], proto_json=proto_json) for key in sorted(value)}
        elif isinstance(value, str | bytes | int | float | Message):
            found[name] = _value(field, value, proto_json=proto_json)
        else:
            found[name] = [_value(field, item, proto_json=proto_json) for item in value]
    return found


def _value(field: FieldDescriptor, value: Any, *, proto_json: bool) -> Any:
    if isinstance(value, Message):
        return _fields(value, proto_json=proto_json)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if proto_json and field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return str(value) if proto_json and field.type in _LONG else value


def dump_op(message: Any) -> dict[str, Any]:
    """A pb.Op as ``buildctl debug dump-llb`` shows it: its oneof under ``Op`` (solver/pb/json.go)."""
    found: dict[str, Any] = {}
    if message.inputs:
        found["inputs"] = [to_gojson(entry) for entry in message.inputs]
    kind = message.WhichOneof("op")
    body = {} if kind is None else {kind: _op_body(kind, getattr(message, kind))}
    found["Op"] = body
    if message.HasField("platform"):
        found["platform"] = to_gojson(message.platform)
    if message.HasField("constraints"):
        found["constraints"] = to_gojson(message.constraints)
    return found


def _op_body(kind: str, message: Any) -> dict[str, Any]:
    if kind != "file":
        return to_gojson(message)
    actions = []
    for entry in message.actions:
        name = entry.WhichOneof("action")
        action = {} if name is None else {name: to_gojson(getattr(entry, name))}
        for owner in (part.get("owner") for part in action.values()):
            for who in ("user", "group"):
                if owner and who in owner:
                    # Zero is left out here, as it is there.
                    named = {key: value for key, value in owner[who].items() if value}
                    owner[who] = {"User": {"byId" if key == "byID" else key: v for key, v in named.items()}}
        numbers = {
            "input": entry.input,
            "secondaryInput": entry.secondaryInput,
            "output": entry.output,
        }
        actions.append(numbers | {"Action": action})
    return {"actions": actions} if actions else {}
