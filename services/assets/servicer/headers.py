"""Headers of uploads: checked, and hashed for their request_id."""

from __future__ import annotations

import re

from contentshop.assets.v1 import assets_pb2, backend_pb2
from libs.common import canonical
from libs.common.auth import TEAM_PATTERN
from libs.common.checks import MAX_ID, Violations, checking
from libs.common.request_keys import RequestKey
from services.assets.domain import Input, Making, Slot, Upload
from services.assets.filenames import clean_filename
from services.assets.imaging import refusals
from services.assets.usecases.generating import Generated

MAX_FILENAME_BYTES = 255
MAX_TYPE_CHARS = 127
MAX_MODEL_CHARS = 128
MAX_IMAGE_INDEX = 1000
MAX_ATTEMPT = 1_000_000
MAX_INPUTS = 64
MAX_ROLE_CHARS = 32
MAX_PROMPT_CHARS = 100_000

_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def check_team(check: Violations, team: str) -> None:
    """Adds `team` unless it is one."""
    check.check(TEAM_PATTERN.fullmatch(team) is not None, "team", "must name a team")


def check_sha256(check: Violations, sha256: str, field: str) -> None:
    """Adds the field unless it is a SHA-256 in hex."""
    check.check(_SHA256.fullmatch(sha256) is not None, field, "must be 64 hex digits")


def check_filename(check: Violations, filename: str, field: str) -> None:
    """Adds the field when it is too long; what it holds is `clean_filename`'s business."""
    fits = len(filename.encode()) <= MAX_FILENAME_BYTES
    check.check(fits, field, f"must be at most {MAX_FILENAME_BYTES} bytes")


def request_key(team: str, header: assets_pb2.UploadHeader) -> RequestKey:
    """The caller's key and the hash of the rest of the header.

    A replay is answered from the header alone, so that must say which bytes are meant.
    """
    if header.request_id:
        with checking() as check:
            check_sha256(check, header.sha256, "header.sha256")
    return canonical.request_key(team, "UploadFile", header)


def upload_of(
    header: assets_pb2.UploadHeader | assets_pb2.CreateUploadRequest, max_bytes: int, within: str
) -> Upload:
    """What an uploader says; InvalidArgumentError, sizes first.

    Args:
        header: what is said, before the bytes or instead of them.
        max_bytes: of an upload.
        within: where its fields are in the request: `header.`, or empty.
    """
    _check_size(header.size_bytes, max_bytes, f"{within}size_bytes")
    with checking() as check:
        check_filename(check, header.filename, f"{within}filename")
        check.text(header.content_type, MAX_TYPE_CHARS, f"{within}content_type")
        if header.sha256:
            check_sha256(check, header.sha256, f"{within}sha256")
    return Upload(
        filename=clean_filename(header.filename, f"{within}filename"),
        content_type=header.content_type,
        size_bytes=header.size_bytes,
        sha256=header.sha256.lower(),
    )


def generated_of(header: backend_pb2.StoreGeneratedHeader, max_bytes: int) -> Generated:
    """What a worker says; InvalidArgumentError, sizes first."""
    _check_size(header.size_bytes, max_bytes, "header.size_bytes")
    with checking() as check:
        check_team(check, header.team)
        check.id(header.job_id, "header.job_id")
        check.within(header.image_index, 1, MAX_IMAGE_INDEX, "header.image_index")
        check.within(header.attempt, 0, MAX_ATTEMPT, "header.attempt")
        check.text(header.model, MAX_MODEL_CHARS, "header.model")
        check_sha256(check, header.sha256, "header.sha256")
        _check_making(check, header)
    return Generated(
        team=header.team,
        slot=Slot(
            job_id=header.job_id,
            image_index=header.image_index,
            attempt=header.attempt,
            model=header.model,
            preview=header.preview,
        ),
        size_bytes=header.size_bytes,
        sha256=header.sha256.lower(),
        making=Making(
            inputs=tuple(Input(i.role, i.file_id, i.sha256.lower()) for i in header.inputs),
            prompt_tokens=header.prompt_tokens,
            output_tokens=header.output_tokens,
            total_tokens=header.total_tokens,
            cost_micros=header.cost_micros,
        ),
        prompt=header.prompt,
    )


def _check_making(check: Violations, header: backend_pb2.StoreGeneratedHeader) -> None:
    for name in ("prompt_tokens", "output_tokens", "total_tokens", "cost_micros"):
        check.within(getattr(header, name), 0, MAX_ID, f"header.{name}")
    fits = len(header.prompt) <= MAX_PROMPT_CHARS
    check.check(fits, "header.prompt", f"must be at most {MAX_PROMPT_CHARS} characters")
    few = len(header.inputs) <= MAX_INPUTS
    if not check.check(few, "header.inputs", f"takes at most {MAX_INPUTS}"):
        return
    for index, one in enumerate(header.inputs):
        field = f"header.inputs[{index}]"
        check.text(one.role, MAX_ROLE_CHARS, f"{field}.role", required=True)
        check.id(one.file_id, f"{field}.file_id")
        check_sha256(check, one.sha256, f"{field}.sha256")


def _check_size(size: int, max_bytes: int, field: str) -> None:
    if size == 0:
        raise refusals.empty()
    if size > max_bytes:
        raise refusals.file_too_large(max_bytes)
    with checking() as check:
        check.check(size > 0, field, "must not be negative")
