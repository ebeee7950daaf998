"""Protobuf messages as plain values for --json: ints stay ints, enums become their words."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message


def enum_word(descriptor: EnumDescriptor, number: int) -> str:
    """`SUCCEEDED` for JOB_STATE_SUCCEEDED; the number itself for one we do not know."""
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in descriptor.name).lstrip("_")
    word = value.name.removeprefix(f"{prefix}_")
    return "" if word == "UNSPECIFIED" else word


def to_plain(message: Message) -> dict[str, Any]:
    """Every field by its name in the contract; absent messages are None."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_value(field, one) for one in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    if isinstance(value, timestamp_pb2.Timestamp):
        return value.ToJsonString()
    if isinstance(value, struct_pb2.Struct):
        return json_format.MessageToDict(value)
    if isinstance(value, Message):
        return to_plain(value)
    return value
