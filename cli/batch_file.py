"""A batch as people write it: a YAML or JSON file whose keys are those of EnqueueBatchRequest.

name: Spring
settings:
background_image: scenes/beach.jpg     # a file beside this one, a file's id, or an upload URL
number_of_variations: 2
input: {aspect_ratio: 4:5}
variants:
- {variant: shirt-red, product_images: [shirts/red.jpg]}
- {variant: shirt-blue, product_images: [17]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import struct_pb2
from google.protobuf.message import Message

from cli.errors import CliError, ExitCode
from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2
from libs.common.errors import FieldViolation, InvalidArgumentError

MAX_FILE_BYTES = 4 * 1024 * 1024
_JSON_WORDS = {True: "true", False: "false", None: ""}
_TRUE = frozenset({"true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A read batch.

    Attributes:
        request: all but its images.
        images: what was written for each image, with the reference to fill in.
    """

    request: enqueue_pb2.EnqueueBatchRequest
    images: list[tuple[str, backend_pb2.ImageRef]]


@dataclass(slots=True)
class _Reading:
    """One reading: where relative paths begin, what was found, and every mistake."""

    folder: Path
    images: list[tuple[str, backend_pb2.ImageRef]] = field(default_factory=list)
    wrong: list[FieldViolation] = field(default_factory=list)

    def refuse(self, path: str, why: str) -> None:
        self.wrong.append(FieldViolation(path, why, "BAD_BATCH_FILE"))


def read_batch_file(path: Path) -> BatchFile:
    """The batch in a file; paths in it are relative to it.

    Raises:
        CliError: the file cannot be read.
        InvalidArgumentError: BAD_BATCH_FILE, naming each mistake by its path in the file.
    """
    values = _parse(path)
    reading = _Reading(path.parent)
    request = enqueue_pb2.EnqueueBatchRequest()
    if isinstance(values, dict):
        if "request_id" in values:
            reading.refuse("request_id", "is an option: --request-id")
            del values["request_id"]
        _fill(request, values, "", reading)
    else:
        reading.refuse("", "the file must be a mapping with `variants` and `settings`")
    if reading.wrong:
        first = reading.wrong[0]
        raise InvalidArgumentError(
            f"{path}: {first.field} {first.description}".replace(":  ", ": ")
            if len(reading.wrong) == 1
            else f"{path}: {len(reading.wrong)} mistakes",
            reason="BAD_BATCH_FILE",
            violations=reading.wrong,
        )
    return BatchFile(request, reading.images)


def _parse(path: Path) -> Any:
    """The file's mappings, lists and texts. Every scalar is a text: `4:5` is no number."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CliError(f"{path}: it is too large for a batch", ExitCode.USAGE)
        text = path.read_text("utf-8")
        if path.suffix.lower() == ".json":
            return _texts(json.loads(text))
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes texts, lists and mappings alone
    except OSError as error:
        why = error.strerror or "it cannot be read"
        raise CliError(f"{path}: {why.lower()}", ExitCode.USAGE, reason="BAD_FILE") from None
    except UnicodeDecodeError:
        raise CliError(f"{path}: it is not UTF-8", ExitCode.USAGE, reason="BAD_FILE") from None
    except (json.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CliError(
            f"{path}: {_where(error)}", ExitCode.USAGE, reason="BAD_BATCH_FILE"
        ) from None


def _where(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}: {error.msg}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return "it cannot be parsed"


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _texts(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_texts(one) for one in value]
    if isinstance(value, bool) or value is None:
        return _JSON_WORDS[value]
    return str(value)


def _fill(message: Message, values: dict[str, Any], path: str, reading: _Reading) -> None:
    """Sets a message's fields by their names in the contract."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        where = f"{path}.{name}" if path else str(name)
        known = fields.get(str(name))
        if known is None:
            reading.refuse(where, f"is not known here; known are: {', '.join(sorted(fields))}")
        elif value == "":
            continue  # `model_image:` with nothing behind it
        elif known.is_repeated:
            _fill_list(message, known, value, where, reading)
        elif known.message_type is not None:
            _fill_message(getattr(message, known.name), value, where, reading)
        elif (scalar := _scalar(known, value, where, reading)) is not None:
            try:
                setattr(message, known.name, scalar)
            except (ValueError, TypeError):
                reading.refuse(where, "is out of range")


def _fill_list(message: Message, known: Any, value: Any, where: str, reading: _Reading) -> None:
    items: Sequence[Any] = value if isinstance(value, list) else [value]
    for position, item in enumerate(items):
        # All lists of a batch are of messages.
        _fill_message(getattr(message, known.name).add(), item, f"{where}[{position}]", reading)


def _fill_message(message: Any, value: Any, where: str, reading: _Reading) -> None:
    if isinstance(message, backend_pb2.ImageRef):
        if not isinstance(value, str) or not value:
            reading.refuse(where, "must be a file, a file's id or an upload URL")
            return
        message.SetInParent()
        reading.images.append((_from(reading.folder, value), message))
    elif not isinstance(value, dict):
        reading.refuse(where, "must be a mapping")
    elif isinstance(message, struct_pb2.Struct):
        message.update(value)
    else:
        message.SetInParent()
        _fill(message, value, where, reading)


def _from(folder: Path, given: str) -> str:
    """A path as seen from here; ids and upload URLs as they are."""
    is_path = not (given.isascii() and given.isdigit()) and "/api/uploads/" not in given
    return str(folder / given) if is_path else given


def _scalar(known: Any, value: Any, where: str, reading: _Reading) -> Any:
    if not isinstance(value, str):
        reading.refuse(where, "must be a single value")
        return None
    if known.enum_type is not None:
        words = _words(known.enum_type)
        if value.lower() not in words:
            reading.refuse(where, f"must be one of {', '.join(words)}")
        return words.get(value.lower())
    if known.type == known.TYPE_STRING:
        return value
    if known.type == known.TYPE_BOOL:
        return value.lower() in _TRUE
    try:
        return int(value)
    except ValueError:
        reading.refuse(where, "must be a whole number")
        return None


def _words(enum: Any) -> dict[str, int]:
    """`fast` for QUALITY_FAST; the first value means that nothing was said."""
    names = [value.name for value in enum.values]
    prefix = names[0].removesuffix("UNSPECIFIED")
    return {v.name.removeprefix(prefix).lower(): v.number for v in enum.values if v.number}
