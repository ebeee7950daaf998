"""What the Gemini stub may answer, and the bytes of each answer as the real API sends them."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# HTTP status → google.rpc.Code name.
STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
KINDS = frozenset(
    {
        "image",  # `count` real images, a thought before them with `thoughts`
        "text",  # text and no image
        "empty",  # no candidates at all
        "finish",  # a candidate without parts that ends with `reason`
        "prompt_block",  # promptFeedback.blockReason `reason`
        "error",  # HTTP `status`, google.rpc body with `retry_delay`, header `retry_after`
        "hang",  # no answer until the client goes away
        "disconnect",  # closed without a byte
        "cut",  # closed in the middle of the body
        "garbage",  # 200, not JSON
        "corrupt",  # an image that ends too early
        "bomb",  # a 10 KB PNG of 88 million pixels
        "raw",  # `status` and `text` verbatim
    }
)


@dataclass(slots=True)
class Behaviour:
    """One way to answer, for the calls whose prompt it matches.

    Attributes:
        kind: one of KINDS.
        text_model: serves calls of the text model, and no others.
        match: regex searched in the prompt; empty for every call.
        times: how many calls it serves; None for all of them.
        delay_ms: wait before the answer; the stub's own delay where 0.
        held: wait until the stub is told to release.
        reason: of `finish` and `prompt_block`; of an error's ErrorInfo.
        status: of `error` and `raw`.
        status_name: in an error's body; from the status where empty.
        message: in an error's body.
        retry_delay: RetryInfo of an error, such as `13s`.
        retry_after: Retry-After header of an error or raw answer.
        text: of `text`, `raw`, and beside an image; a word that must not leak.
        count: images in the answer.
        thoughts: put a thought's text and draft image first.
        format: png | jpeg.
        urlsafe: base64 in the URL-safe alphabet, unpadded.
    """

    kind: str = "image"
    text_model: bool = False
    match: str = ""
    times: int | None = None
    delay_ms: int = 0
    held: bool = False
    reason: str = ""
    status: int = 200
    status_name: str = ""
    message: str = ""
    retry_delay: str = ""
    retry_after: str = ""
    text: str = ""
    count: int = 1
    thoughts: bool = False
    format: str = "png"
    urlsafe: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}")
        re.compile(self.match)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Behaviour:
        """From a dict with the attributes' names; raises ValueError for others."""
        unknown = set(value) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return cls(**value)

    def take(self, prompt: str, *, text_model: bool = False) -> bool:
        """Whether this call is served, using up one of `times`."""
        if self.times == 0 or text_model != self.text_model or not re.search(self.match, prompt):
            return False
        if self.times is not None:
            self.times -= 1
        return True


SAID = "Light: soft and warm. Lens: 85 mm. Composition: centred."


def usual(*, text_model: bool) -> Behaviour:
    """What a call gets that no entry of the script is for: an image, or words."""
    return Behaviour(kind="text", text=SAID, text_model=True) if text_model else Behaviour()


def answer_body(behaviour: Behaviour, seed: str, model: str, aspect_ratio: str, side: int) -> Any:
    """The JSON of a 200 answer. `seed` makes images of different calls differ."""
    feedback = {"blockReason": behaviour.reason} if behaviour.kind == "prompt_block" else None
    body: dict[str, Any] = {"modelVersion": model, "responseId": "stub", **_usage(behaviour)}
    if feedback:
        return body | {"promptFeedback": feedback}
    if behaviour.kind == "empty":
        return body
    finish = behaviour.reason or "STOP"
    parts: list[dict[str, Any]] = []
    if behaviour.thoughts:
        draft = draw(f"{seed} thought", aspect_ratio, side, "png")
        parts.append({"text": "thinking about the composition", "thought": True})
        parts.append(_image_part(draft, "png", behaviour) | {"thought": True})
    if behaviour.text:
        parts.append({"text": behaviour.text})
    if behaviour.kind in {"image", "corrupt", "bomb"}:
        for number in range(behaviour.count):
            data = draw(f"{seed} {number}", aspect_ratio, side, behaviour.format)
            if behaviour.kind == "corrupt":
                data = data[: len(data) // 2]
            elif behaviour.kind == "bomb":
                data = bomb_png()
            parts.append(_image_part(data, behaviour.format, behaviour))
    candidate: dict[str, Any] = {"finishReason": finish, "index": 0}
    if parts:
        candidate["content"] = {"role": "model", "parts": parts}
    return body | {"candidates": [candidate]}


def error_body(
    status: int,
    *,
    message: str = "",
    status_name: str = "",
    reason: str = "",
    retry_delay: str = "",
) -> dict[str, Any]:
    """A google.rpc.Status as the API's JSON shows it."""
    details: list[dict[str, Any]] = []
    if reason:
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }
        )
    if retry_delay:
        details.append(
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        )
        details.append(
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_delay}
        )
    name = status_name or STATUS_NAMES.get(status, "UNKNOWN")
    error: dict[str, Any] = {"code": status, "message": message or name, "status": name}
    if details:
        error["details"] = details
    return {"error": error}


def draw(seed: str, aspect_ratio: str, side: int, image_format: str) -> bytes:
    """A real image of one colour, its longer side `side` pixels, in the ratio asked for."""
    from PIL import Image  # noqa: PLC0415 - the stub starts at once without it

    wide, high = (int(word) for word in (aspect_ratio or "1:1").split(":"))
    longer = max(wide, high)
    size = (max(1, side * wide // longer), max(1, side * high // longer))
    red, green, blue = hashlib.sha256(seed.encode()).digest()[:3]
    out = io.BytesIO()
    Image.new("RGB", size, (red, green, blue)).save(out, image_format.upper())
    return out.getvalue()


def bomb_png() -> bytes:
    """A valid PNG of 9400 by 9400 grey pixels in about 10 KB."""
    side = 9400
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)  # one bit per pixel, grey
    row = b"\0" + bytes((side + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _image_part(data: bytes, image_format: str, behaviour: Behaviour) -> dict[str, Any]:
    if behaviour.urlsafe:
        text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    else:
        text = base64.b64encode(data).decode()
    return {"inlineData": {"mimeType": f"image/{image_format}", "data": text}}


def _usage(behaviour: Behaviour) -> dict[str, Any]:
    made = 1290 * behaviour.count if behaviour.kind == "image" else 0
    thoughts = 100 if behaviour.thoughts else 0
    usage = {"promptTokenCount": 17, "totalTokenCount": 17 + made + thoughts}
    if made:
        usage["candidatesTokenCount"] = made
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return {"usageMetadata": usage}
