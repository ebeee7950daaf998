"""From what Gemini answers to an image or a typed outcome; standard library only.

The answer is read as plain JSON and not through the SDK's models: words newer than the SDK
(finish reasons, fields) then pass as words instead of warnings, only the one image that is
kept is decoded, and the whole can run off the event loop.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from libs.common.outcomes import Outcome
from services.worker.generation import GeneratedImage, GenerationError, Usage, Words

# What a team reads. The provider's own words never reach it.
MESSAGES: dict[Outcome, str] = {
    Outcome.PROMPT_BLOCKED: "The provider's safety rules refused the prompt or an input image.",
    Outcome.OUTPUT_BLOCKED: "The provider's safety rules withheld the generated image.",
    Outcome.NO_IMAGE: "The model answered without an image.",
    Outcome.TEXT_ONLY: "The model answered with text instead of an image.",
    Outcome.BAD_INPUT: "The provider could not read one of the input images.",
    Outcome.INVALID_OUTPUT: "The model's answer is not an image we can accept.",
    Outcome.RATE_LIMITED: "The provider's rate limit is reached.",
    Outcome.OVERLOADED: "The provider is overloaded or could not be reached.",
    Outcome.TIMED_OUT: "The provider did not answer in time.",
    Outcome.UNAUTHORIZED: "The provider refused our credentials.",
    Outcome.INTERNAL: "The image could not be generated because of a fault on our side.",
}

# Reasons that come back for the same words and images: trying again is money for nothing.
BLOCKED_FINISH_REASONS = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "ESCALATION",
    }
)
# The provider limits our whole account: no job can succeed, so it is handled as a lost key.
ACCOUNT_FINISH_REASONS = frozenset({"PUP_LIMITED_DISABLED"})

# "Unable to process input image", "Provided image is not valid", "Unsupported MIME type:
# image/…"; but not a word about the size or ratio of the image that was asked for.
_ABOUT_AN_INPUT_IMAGE = re.compile(r"\bimages?\b|\bpayload size\b", re.IGNORECASE)
_ABOUT_THE_OUTPUT = re.compile(
    r"image_?(?:config|size)|aspect_?\s?ratio|modalit|generation", re.IGNORECASE
)
_OVERLOADED_STATUSES = frozenset({408, 500, 502, 503, 504})
_MAX_RETRY_AFTER_SECONDS = 3600.0  # a longer wish is not believed: it would park the job
_MAX_WORD_CHARACTERS = 64
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def failure(
    outcome: Outcome, detail: str, *, retry_after_seconds: float | None = None
) -> GenerationError:
    """The error of an outcome with its fixed sentence; `detail` is for logs only."""
    return GenerationError(
        outcome, MESSAGES[outcome], retry_after_seconds=retry_after_seconds, detail=detail
    )


def read_answer(body: str, model: str) -> GeneratedImage:
    """The image of a 200 answer.

    Blocking (JSON and base64 of megabytes): call it off the event loop.

    Args:
        body: the JSON text of a GenerateContentResponse.
        model: the model that was asked, used where the answer does not name one.

    Raises:
        GenerationError: PROMPT_BLOCKED, OUTPUT_BLOCKED, NO_IMAGE, TEXT_ONLY, UNAUTHORIZED, or
            OVERLOADED where the body cannot be decoded.
    """
    answer, candidates, finish_reason = _unblocked(body)
    parts = list(_spoken_parts(candidates))
    images = [image for image in map(_inline_image, parts) if image is not None]
    if not images:
        spoke = any(_has_text(part) for part in parts)
        outcome = Outcome.TEXT_ONLY if spoke else Outcome.NO_IMAGE
        raise failure(outcome, finish_reason or "no finish reason")
    content_type, encoded = images[0]
    return GeneratedImage(
        data=_decode(encoded),
        content_type=content_type,
        model=_word(answer.get("modelVersion")) or model,
        usage=_usage(_mapping(answer.get("usageMetadata"))),
        extra_images=len(images) - 1,
    )


def read_words(body: str, model: str) -> Words:
    """The text of a 200 answer of a text model, thoughts left out; may be empty.

    Raises:
        GenerationError: PROMPT_BLOCKED, OUTPUT_BLOCKED, UNAUTHORIZED, NO_IMAGE where there is no
            answer or one that was broken off, OVERLOADED where the body cannot be decoded.
    """
    answer, candidates, finish_reason = _unblocked(body)
    if finish_reason != "STOP":
        raise failure(Outcome.NO_IMAGE, finish_reason or "no finish reason")
    parts = _spoken_parts(candidates[:1])
    return Words(
        "".join(part["text"] for part in parts if _has_text(part)),
        _word(answer.get("modelVersion")) or model,
        _usage(_mapping(answer.get("usageMetadata"))),
    )


def _unblocked(body: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], str]:
    """The answer, its candidates and why the first one ended; raises where one is blocked."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise failure(Outcome.OVERLOADED, "undecodable body") from None
    if not isinstance(answer, dict):
        raise failure(Outcome.OVERLOADED, "undecodable body")

    block_reason = _word(_mapping(answer.get("promptFeedback")).get("blockReason"))
    if block_reason not in {"", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"}:
        raise failure(Outcome.PROMPT_BLOCKED, block_reason)
    candidates = [_mapping(item) for item in _list(answer.get("candidates"))]
    if not candidates:
        raise failure(Outcome.NO_IMAGE, "no candidates")
    finish_reason = _word(candidates[0].get("finishReason"))
    if finish_reason in BLOCKED_FINISH_REASONS:
        raise failure(Outcome.OUTPUT_BLOCKED, finish_reason)
    if finish_reason in ACCOUNT_FINISH_REASONS:
        raise failure(Outcome.UNAUTHORIZED, finish_reason)
    return answer, candidates, finish_reason


def read_error(status: int, body: object, headers: Mapping[str, str]) -> GenerationError:
    """The outcome of an answer that is not 200.

    Args:
        status: the HTTP status.
        body: the decoded JSON body, or anything at all.
        headers: of the answer, looked up in lower case.
    """
    error = _mapping(_mapping(body).get("error"))
    name = _word(error.get("status"))
    detail = f"{status} {name}".rstrip()
    details = [_mapping(item) for item in _list(error.get("details"))]
    wait = _retry_info(details)
    if wait is None:
        wait = _retry_after(headers)

    if status == 429:  # noqa: PLR2004 - HTTP's own numbers read best as numbers
        return failure(Outcome.RATE_LIMITED, detail, retry_after_seconds=wait)
    if status in _OVERLOADED_STATUSES:
        return failure(Outcome.OVERLOADED, detail, retry_after_seconds=wait)
    if status in {401, 403}:
        return failure(Outcome.UNAUTHORIZED, detail)
    if status == 413:  # noqa: PLR2004
        return failure(Outcome.BAD_INPUT, detail)
    if status == 400:  # noqa: PLR2004
        return failure(_outcome_of_400(name, error.get("message"), details), detail)
    return failure(Outcome.INTERNAL, detail)


def _outcome_of_400(name: str, message: object, details: list[Mapping[str, Any]]) -> Outcome:
    if any(item.get("reason") == "API_KEY_INVALID" for item in details):
        return Outcome.UNAUTHORIZED
    if name == "FAILED_PRECONDITION":  # no billing, or a country without service: never the job
        return Outcome.UNAUTHORIZED
    text = message if isinstance(message, str) else ""
    if _ABOUT_AN_INPUT_IMAGE.search(text) and not _ABOUT_THE_OUTPUT.search(text):
        return Outcome.BAD_INPUT
    return Outcome.INTERNAL


def _retry_info(details: list[Mapping[str, Any]]) -> float | None:
    """Seconds of a google.rpc.RetryInfo such as `{"retryDelay": "1.5s"}`."""
    for item in details:
        if str(item.get("@type", "")).endswith("google.rpc.RetryInfo"):
            match = _DURATION.fullmatch(str(item.get("retryDelay", "")))
            if match:
                return min(float(match[1]), _MAX_RETRY_AFTER_SECONDS)
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; a date is read against the answer's own Date."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            at = parsedate_to_datetime(text)
            seconds = (at - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None


def _spoken_parts(candidates: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The parts of all candidates, without the model's thoughts (their images are drafts)."""
    for candidate in candidates:
        for item in _list(_mapping(candidate.get("content")).get("parts")):
            part = _mapping(item)
            if part.get("thought") is not True:
                yield part


def _inline_image(part: Mapping[str, Any]) -> tuple[str, str] | None:
    """Content type and base64 text of an image part. A link (fileData) is never followed."""
    blob = _mapping(part.get("inlineData"))
    content_type, data = blob.get("mimeType"), blob.get("data")
    if not isinstance(content_type, str) or not isinstance(data, str) or not data:
        return None
    return (content_type, data) if content_type.startswith("image/") else None


def _has_text(part: Mapping[str, Any]) -> bool:
    text = part.get("text")
    return isinstance(text, str) and bool(text.strip())


def _decode(encoded: str) -> bytes:
    """Bytes of base64 in either alphabet, padded or not, as proto3's JSON mapping allows."""
    text = encoded.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        data = b""
    if not data:
        raise failure(Outcome.OVERLOADED, "undecodable image data")
    return data


def _usage(counts: Mapping[str, Any]) -> Usage:
    """Tokens as billed: thinking counts as output."""
    return Usage(
        prompt_tokens=_count(counts.get("promptTokenCount")),
        output_tokens=_count(counts.get("candidatesTokenCount"))
        + _count(counts.get("thoughtsTokenCount")),
        total_tokens=_count(counts.get("totalTokenCount")),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _word(value: object) -> str:
    """A short printable word of the provider's, or nothing: it goes into logs and rows."""
    if not isinstance(value, str) or len(value) > _MAX_WORD_CHARACTERS:
        return ""
    return value if re.fullmatch(r"[A-Za-z0-9_./:-]+", value) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
