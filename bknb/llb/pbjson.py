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
