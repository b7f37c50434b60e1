"""The descriptor pool, and how a file of messages gets into it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

POOL: Final = descriptor_pool.DescriptorPool()


def load(serialized: bytes, well_known: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Add one file to the pool and give its classes, enums and enum values by name.

    Args:
        serialized: a FileDescriptorProto; files that it imports are in the pool already.
        well_known: modules of `google.protobuf` (``timestamp_pb2``) whose files it needs.
    """
    for name in well_known:
        # Adding the same bytes a second time is allowed, and gives the first file.
        POOL.AddSerializedFile(importlib.import_module(f"google.protobuf.{name}").DESCRIPTOR.serialized_pb)
    file = POOL.AddSerializedFile(serialized)
    names: dict[str, Any] = {"DESCRIPTOR": file}
    for name, message in file.message_types_by_name.items():
        names[name] = message_factory.GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        names[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        names.update((value.name, value.number) for value in enum.values)
    return names
