"""Requests out of descriptors: every field of every message, sensible, hostile or both at once."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.house import OTHERS, OURS
from tests.fuzz.pool import Pool

MARK = "Marker7c1e"  # in every hostile text; no answer may repeat it
MAX_DEPTH = 6
INT32, INT64 = 2**31 - 1, 2**63 - 1
_LIMITS = {
    FieldDescriptor.TYPE_INT32: (-INT32 - 1, INT32),
    FieldDescriptor.TYPE_INT64: (-INT64 - 1, INT64),
    FieldDescriptor.TYPE_UINT32: (0, 2 * INT32 + 1),
    FieldDescriptor.TYPE_UINT64: (0, 2 * INT64 + 1),
}
_INTS = (
    0,
    -1,
    4,
    11,
    101,
    501,
    2001,
    10**6,
    INT32,
    -INT32 - 1,
    INT64,
    -INT64 - 1,
    2**40,
    2**53 + 1,
)
_FLOATS = (0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1.5)
_TEXTS = (
    MARK,
    f"\0{MARK}",
    f"{MARK}\r\nX-Forged: yes",
    f"\x1b[31m{MARK}\x07\x9b",
    f"\u202e{MARK}\u2066",
    f"\U0001f600{MARK}\U0010ffff",
    f"e\u0301{MARK}" * 40,
    f"\ufeff{MARK}\ufffe",
    f"' OR 1=1; DROP TABLE jobs; --{MARK}",
    f"%s%n{{0}}{{{MARK}}}${{{MARK}}}",
    f"../../{MARK}/../etc/passwd",
    f"C:\\{MARK}",
    f"http://169.254.169.254/{MARK}",
    f"file:///etc/{MARK}",
    f"/api/uploads/{2**63}/file?{MARK}",
    f"/api/uploads/1{MARK}/file",
    f"%{MARK}_%",
    f" {MARK} ",
    MARK * 30,
    MARK * 1_000,
    MARK * 20_000,
    "%",
    "0",
    "\x7f",
)
_BLOBS = (b"", b"\0", MARK.encode(), b"\xff" * 100, bytes(600 * 1024))
# Of fields whose sensible values no pool has.
_SENSIBLE_INTS = (1, 1, 2, 3)
_SENSIBLE_TEXTS = ("Autumn", "Blue jacket, Größe M", "a warmer light", "\U0001f600")
_KEYS = ("purpose", "aspect_ratio", "custom_instructions", "style_appendix", "instruction", "x")
_INPUTS: tuple[dict[str, str], ...] = (
    {},
    {"purpose": "hero", "aspect_ratio": "16:9", "custom_instructions": "a warmer light"},
    {"instruction": "a warmer light"},
    {"instruction": "\u202ea colder light", "aspect_ratio": "1:1"},
)
_VALUES = ("catalog", "hero", "1:1", "16:9", "a warmer light")
_SECONDS = (0, 1, 1_700_000_000, -1, 253_402_300_799, 253_402_300_800, -(2**62), INT64)
HOSTILE = (0, 0, 0, 0, 8, 8, 30, 100)  # of a hundred values, by request
_KINDS = ("file", "job", "batch", "folder", "moodboard", "archive", "upload")


@cache
def kind_of(name: str) -> str:
    """What an id field names, by its name; empty for none."""
    if name in {"positive_file_ids", "negative_file_ids"}:
        return "file"
    return next((kind for kind in _KINDS if name.endswith((f"{kind}_id", f"{kind}_ids"))), "")


class Filler:
    """Fills messages; `hostile` of a hundred values are meant to hurt."""

    def __init__(self, random: Random, pool: Pool, team: str, hostile: int) -> None:
        self._random = random
        self._pool = pool
        self._team = team
        self._hostile = hostile

    def one_of(self, values: Any) -> Any:
        """One of them."""
        return self._random.choice(values)

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self._random.randrange(100) < percent

    def _whose(self) -> str:
        """The team whose things are named: mostly the caller's own."""
        return (
            (OTHERS if self._team == OURS else OURS) if self.chance(self._hostile) else self._team
        )

    def fill(self, message: Message, depth: int = 0) -> None:
        """Sets fields, of each oneof one at most."""
        descriptor = message.DESCRIPTOR
        if descriptor.full_name == "google.protobuf.Timestamp":
            self._time(message)
            return
        if descriptor.full_name == "google.protobuf.Struct":
            self._struct(message, depth)
            return
        chosen = {
            oneof.name: self.one_of(list(oneof.fields)).name
            for oneof in descriptor.oneofs
            if len(oneof.fields) > 1
        }
        fields: Any = descriptor.fields
        for field in fields:
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                wanted = chosen[oneof.name] == field.name and not self.chance(self._hostile // 4)
            else:
                wanted = self.chance(self._likely(field))
            if wanted:
                self._set(message, field, depth)

    def _likely(self, field: FieldDescriptor) -> int:
        """How many of a hundred requests have this field."""
        if _needed(field):
            return 75 if self._hostile else 98
        if self._hostile:
            return 45
        return 25 if field.message_type or "token" in field.name else 80

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None:
            self._nested(message, field, depth)
        elif field.is_repeated:
            values = [self.value(field) for _ in range(self._count())]
            if values and self.chance(self._hostile // 10):
                values = (values * 2_100)[: self.one_of((7, 101, 501, 2_001))]
                values = values[: 2 * 2**20 // max(len(str(v)) for v in values)]  # below 4 MiB
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, self.value(field))

    def _nested(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if depth >= MAX_DEPTH:
            return
        if not field.is_repeated:
            nested = getattr(message, field.name)
            nested.SetInParent()
            self.fill(nested, depth + 1)
            return
        many = getattr(message, field.name)
        for _ in range(self._count()):
            self.fill(many.add(), depth + 1)
        if many and self.chance(self._hostile // 10):
            copies = min(self.one_of((7, 101, 501, 2_001)), 2**20 // (many[0].ByteSize() + 1))
            many.extend([many[0]] * copies)

    def _count(self) -> int:
        return int(self.one_of((1, 1, 1, 2, 2, 0, 5) if self._hostile else (1, 1, 2)))

    def value(self, field: FieldDescriptor) -> Any:
        """A value of a plain field."""
        hostile = self.chance(self._hostile)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self.one_of((True, False))
        if field.enum_type is not None:
            known = [value.number for value in field.enum_type.values]
            return self.one_of((0, 99, -1, INT32, -INT32 - 1) if hostile else known[1:] or known)
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field.name, hostile=hostile)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self.one_of(_BLOBS)
        if field.type in {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}:
            return self.one_of(_FLOATS)
        return self._int(field, hostile=hostile)

    def _int(self, field: FieldDescriptor, *, hostile: bool) -> int:
        known = self._pool.ids.get((self._whose(), kind_of(field.name)))
        value = self.one_of(_INTS if hostile else known or _SENSIBLE_INTS)
        low, high = _LIMITS[field.type]
        return int(min(max(value, low), high))

    def _text(self, name: str, *, hostile: bool) -> str:
        if hostile:
            return str(self.one_of(_TEXTS)) if self.chance(80) else self._characters()
        if name == "request_id" and self.chance(60):
            return f"r{self._random.randrange(10**6)}"
        return str(self.one_of(self._pool.texts_of(self._whose(), name) or _SENSIBLE_TEXTS))

    def _characters(self) -> str:
        """Any that UTF-8 has."""
        points = (self._random.choice((0x20, 0x7F, 0xFFF, 0xD7FF, 0x10FFFF)) for _ in range(12))
        found = (chr(self._random.randrange(point + 1)) for point in points)
        return "".join(one for one in found if not "\ud800" <= one <= "\udfff")

    def _time(self, message: Any) -> None:
        message.seconds = self.one_of(_SECONDS if self.chance(self._hostile) else _SECONDS[:3])
        message.nanos = self.one_of((0, 0, 1, -1, 10**9, INT32)) if self._hostile else 0

    def _struct(self, message: Any, depth: int) -> None:
        if not self.chance(self._hostile):
            message.update(self.one_of(_INPUTS))
            return
        for _ in range(self._count()):
            hostile = self.chance(self._hostile)
            key = self._text("", hostile=True) if hostile else self.one_of(_KEYS)
            self._any(message.fields[key], depth)

    def _any(self, value: Any, depth: int) -> None:
        if not self.chance(self._hostile):
            value.string_value = self.one_of(_VALUES)
            return
        kind = self.one_of(("text", "number", "bool", "null", "list", "struct", "none"))
        if kind == "text":
            value.string_value = self._text("", hostile=True)
        elif kind == "number":
            value.number_value = self.one_of(_FLOATS)
        elif kind == "bool":
            value.bool_value = True
        elif kind == "null":
            value.null_value = 0
        elif depth < MAX_DEPTH and kind == "list":
            self._any(value.list_value.values.add(), depth + 1)
        elif depth < MAX_DEPTH and kind == "struct":
            self._struct(value.struct_value, depth + 1)


def _needed(field: FieldDescriptor) -> bool:
    """Whether requests without it are mostly refused: then little else of them is tried."""
    return bool(kind_of(field.name)) or field.name in {
        *("team", "fence", "product_images", "base_image", "variants", "input", "index"),
        *("worker", "claim_id", "model", "lane", "content", "name", "amount", "size_bytes"),
        *("variant_ids", "leases", "refs", "calls", "image_index", "outcome", "cause", "state"),
    }


def request_of(random: Random, descriptor: Descriptor, pool: Pool, team: str) -> Message:
    """A request, from sensible to all hostile."""
    filler = Filler(random, pool, team, random.choice(HOSTILE))
    message = message_factory.GetMessageClass(descriptor)()
    filler.fill(message)
    return message
