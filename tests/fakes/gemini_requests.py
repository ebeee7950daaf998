"""Reads a generateContent request as strictly as the real API does."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.worker.generators.gemini_models import GEMINI_MODELS
from tests.fakes.gemini_behaviours import error_body

TEXT_MODELS = frozenset({"gemini-3.1-flash-lite"})
MIN_SERVER_TIMEOUT_SECONDS = 10
_GENERATION_FIELDS = frozenset({"responseModalities", "imageConfig", "candidateCount"})
_TEXT_FIELDS = frozenset({"maxOutputTokens", "temperature", "candidateCount"})
_REQUEST_FIELDS = frozenset({"contents", "generationConfig", "safetySettings", "systemInstruction"})


class WireError(Exception):
    """An answer of the API that is not 200, with its google.rpc body."""

    def __init__(self, status: int, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message=message, reason=reason)


@dataclass(slots=True)
class ReferenceSeen:
    """One inline image of a request."""

    label: str
    mime_type: str
    size_bytes: int
    sha256: str


@dataclass(slots=True)
class Call:
    """One request as the stub saw it.

    Attributes:
        number: 1, 2, … in order of arrival.
        connection: which TCP connection it came on.
        state: `waiting`, then `answered`, `refused` (by the checks) or `gone` (the client left).
    """

    number: int
    connection: int
    model: str
    headers: dict[str, str]
    prompt: str = ""
    part_kinds: list[str] = field(default_factory=list)
    references: list[ReferenceSeen] = field(default_factory=list)
    aspect_ratio: str = ""
    image_size: str = ""
    modalities: list[str] = field(default_factory=list)
    system: str = ""
    max_output_tokens: int = 0
    state: str = "waiting"


def read_call(call: Call, body: bytes, api_key: str) -> None:
    """Fill `call` from the body; raises WireError as the API would answer."""
    _check_headers(call.headers, api_key)
    if call.model not in GEMINI_MODELS.keys() | TEXT_MODELS:
        raise WireError(404, f"models/{call.model} is not found for API version v1beta")
    try:
        request = json.loads(body, object_pairs_hook=_camel)
    except ValueError:
        raise WireError(400, "Invalid JSON payload received. Unexpected token.") from None
    _only(request, _REQUEST_FIELDS, "root")
    _read_config(call, request.get("generationConfig", {}))
    call.system = _read_system(request.get("systemInstruction"))
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        raise WireError(400, "* GenerateContentRequest.contents: contents is not specified")
    for content in contents:
        _only(content, frozenset({"role", "parts"}), "contents")
        if content.get("role") not in {"user", "model"}:
            raise WireError(400, "Please use a valid role: user, model.")
        _read_parts(call, content.get("parts"))


def _camel(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Proto3's JSON takes a field by either of its names; the SDK mixes both (`mime_type`)."""
    return {re.sub(r"_([a-z])", lambda m: m[1].upper(), name): value for name, value in pairs}


def _check_headers(headers: Mapping[str, str], api_key: str) -> None:
    key = headers.get("x-goog-api-key", "")
    if not key:
        raise WireError(403, "Method doesn't allow unregistered callers.")
    if api_key and key != api_key:
        raise WireError(400, "API key not valid. Pass a valid one.", reason="API_KEY_INVALID")
    if not headers.get("content-type", "").startswith("application/json"):
        raise WireError(400, "Invalid JSON payload received.")
    deadline = headers.get("x-server-timeout")
    if deadline is not None and int(deadline) < MIN_SERVER_TIMEOUT_SECONDS:
        message = f"Manually set deadline {deadline}s is too short. Minimum allowed is 10s."
        raise WireError(400, message)


def _read_system(instruction: Any) -> str:
    if instruction is None:
        return ""
    _only(instruction, frozenset({"role", "parts"}), "system_instruction")
    return "".join(part["text"] for part in instruction["parts"])


def _read_config(call: Call, config: Any) -> None:
    if call.model in TEXT_MODELS:
        _only(config, _TEXT_FIELDS, "generation_config")
        call.max_output_tokens = config.get("maxOutputTokens", 0)
        return
    _only(config, _GENERATION_FIELDS, "generation_config")
    call.modalities = config.get("responseModalities", [])
    if not set(call.modalities) <= {"TEXT", "IMAGE", "AUDIO"}:
        raise WireError(400, "Invalid value at 'generation_config.response_modalities'")
    image_config = config.get("imageConfig", {})
    _only(image_config, frozenset({"aspectRatio", "imageSize"}), "image_config")
    limits = GEMINI_MODELS[call.model]
    call.aspect_ratio = image_config.get("aspectRatio", "")
    if "aspectRatio" in image_config and call.aspect_ratio not in limits.aspect_ratios:
        raise WireError(400, "image_config.aspect_ratio is not a supported aspect ratio")
    call.image_size = image_config.get("imageSize", "")
    if "imageSize" in image_config and call.image_size not in limits.image_sizes:
        raise WireError(400, "image_config.image_size is not a supported image size")


def _read_parts(call: Call, parts: Any) -> None:
    if not isinstance(parts, list) or not parts:
        raise WireError(400, "contents.parts must not be empty.")
    label = ""
    for part in parts:
        _only(part, frozenset({"text", "inlineData"}), "parts")
        if len(part) != 1:
            raise WireError(400, "contents.parts: exactly one data field must be set")
        if "text" in part:
            call.part_kinds.append("text")
            label = part["text"]
            call.prompt = call.prompt or label
        else:
            call.part_kinds.append("image")
            call.references.append(_read_blob(label, part["inlineData"]))


def _read_blob(label: str, blob: Any) -> ReferenceSeen:
    _only(blob, frozenset({"mimeType", "data"}), "inline_data")
    mime_type = blob.get("mimeType", "")
    if mime_type not in {"image/png", "image/jpeg", "image/webp"}:
        raise WireError(400, f"Unsupported MIME type: {mime_type}")
    text = str(blob.get("data", "")).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise WireError(
            400, "Invalid value at 'data' (TYPE_BYTES), Base64 decoding failed"
        ) from None
    if not _is_image(data):
        raise WireError(400, "Unable to process input image. Please retry or report.")
    return ReferenceSeen(label, mime_type, len(data), hashlib.sha256(data).hexdigest())


def _is_image(data: bytes) -> bool:
    from PIL import Image  # noqa: PLC0415 - the stub starts at once without it

    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]):
            return True
    except (OSError, ValueError):
        return False


def _only(value: Any, names: frozenset[str], where: str) -> None:
    if not isinstance(value, dict):
        raise WireError(400, f"Invalid value at '{where}'")
    for name in value:
        if name not in names:
            message = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}'"
            raise WireError(400, message)
