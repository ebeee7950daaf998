"""Every field of every request that names a thing, found in the descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.attacks.house import METHODS, Method

# What a field names, by how its name ends. A new field of a known ending gets a row by itself.
KINDS = {
    "file_id": "file",
    "file_ids": "file",
    "upload_url": "upload_url",
    "job_id": "job",
    "batch_id": "batch",
    "folder_id": "folder",
    "moodboard_id": "moodboard",
    "archive_id": "archive",
    "upload_id": "upload",
    "variant_ids": "variant",
}
# A field of these endings names something, or may: in a row, or in an exception with its reason.
_NAMING = re.compile(r"(?:^|_)(?:ids?|urls?|keys?|tokens?|cursor)$")
_COUNTED = re.compile(r"(?:prompt|output|total)_tokens$")


@dataclass(frozen=True)
class IdField:
    """One field that names something: of which RPC, where in its request."""

    method: Method
    steps: tuple[FieldDescriptor, ...]

    @property
    def path(self) -> str:
        """`variants[].product_images[].file_id`."""
        return ".".join(f"{step.name}{'[]' if step.is_repeated else ''}" for step in self.steps)

    @property
    def name(self) -> str:
        """`EnqueueService.EnqueueBatch variants[].product_images[].file_id`."""
        return f"{self.method.name} {self.path}"

    @property
    def kind(self) -> str | None:
        """What it names, by its name."""
        last = self.steps[-1].name
        return next((k for end, k in KINDS.items() if re.search(rf"(?:^|_){end}$", last)), None)

    def put(self, request: Message, value: int | str) -> None:
        """Sets the field; of repeated ones the first, which is made where there is none."""
        at: Any = request
        for step in self.steps[:-1]:
            inner = getattr(at, step.name)
            at = (inner[0] if inner else inner.add()) if step.is_repeated else inner
        last = self.steps[-1]
        if last.is_repeated:
            del getattr(at, last.name)[:]
            getattr(at, last.name).append(value)
        else:
            setattr(at, last.name, value)

    @property
    def wrong(self) -> set[str]:
        """How a violation may name it: the field with its index, or the reference around it."""
        whole = self.path.replace("[]", "[0]")
        return {whole, whole.rpartition(".")[0]}


def id_fields() -> list[IdField]:
    """All of them, in the order of the protos."""
    return [
        IdField(method, steps)
        for method in METHODS
        for steps in _within(method.descriptor.input_type, ())
    ]


def _within(
    message: Descriptor, above: tuple[FieldDescriptor, ...]
) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in message.fields:
        steps = (*above, field)
        if field.message_type is not None:
            if field.message_type.file.package != "google.protobuf":  # structs and times
                yield from _within(field.message_type, steps)
        elif _NAMING.search(field.name) and not _COUNTED.search(field.name):
            yield steps


def new_request(method: Method) -> Message:
    """An empty request."""
    return message_factory.GetMessageClass(method.descriptor.input_type)()
