"""Right requests, for RPCs that want more than the id that is asked for."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tests.attacks.belongings import Belongings
from tests.attacks.house import Method
from tests.attacks.id_fields import new_request

_SHA256 = "0" * 64
_HELD = {"fence": 1}


def sample(method: Method, own: Belongings, team: str) -> Message:
    """A right request of the method but for its ids; it names the team where it must."""
    request = new_request(method)
    given = _GIVEN.get(method.descriptor.name)
    if given is not None:
        values = given(own)
        request = type(request)(**values)
    if "team" in request.DESCRIPTOR.fields_by_name:
        request.team = team  # type: ignore[attr-defined]  # of the requests that have one
    return request


def _images(own: Belongings) -> dict[str, Any]:
    return {"product_images": [{"file_id": own.file}]}


def _batch(own: Belongings) -> dict[str, Any]:
    return {"variants": [{**_images(own), "variant": "a"}]}


_GIVEN: dict[str, Any] = {
    "EnqueueGeneration": _images,
    "EnqueueEdit": lambda own: {
        "base_image": {"file_id": own.file},
        "input": {"instruction": "warmer"},
    },
    "EnqueueBatch": _batch,
    "EstimateBatch": _batch,
    "RateImage": lambda _: {"image_index": 1, "rating": 5},
    "ReviewJob": lambda _: {"state": "REVIEW_STATE_APPROVED"},
    "CreateMoodboard": lambda _: {"content": {"name": "Mood"}},
    "UpdateMoodboard": lambda own: {
        "moodboard_id": own.moodboard,
        "content": {"name": "Mood"},
        "revision": 1,
    },
    "PutVariants": lambda _: {"variants": [{"id": "v", "product": "Mug"}]},
    "ClaimJob": lambda _: {"claim_id": "another", "worker": "another"},
    "RenewLeases": lambda _: {"worker": "another", "slots": 1, "leases": [_HELD]},
    "RecordImage": lambda _: {
        **_HELD,
        "index": 1,
        "file_id": 1,
        "content_type": "image/png",
        "width": 1,
        "height": 1,
        "size_bytes": 1,
        "sha256": _SHA256,
        "model": "m",
    },
    "RecordImageFailure": lambda _: {**_HELD, "index": 1, "outcome": "TIMED_OUT"},
    "AcquireCalls": lambda _: {**_HELD, "model": "m", "calls": 1},
    "RecordPrompt": lambda _: _HELD,
    "FinishJob": lambda _: _HELD,
    "ReleaseJob": lambda _: {**_HELD, "cause": "RELEASE_CAUSE_DRAIN"},
    "RecordArchive": lambda own: {
        "state": "ARCHIVE_STATE_READY",
        "file_id": own.archive_file,
        "filename": "a.zip",
        "size_bytes": 1,
    },
    "CreateFolder": lambda _: {"name": "Kept"},
    "CreateArchive": lambda own: {"job_id": own.job},
    "RequeueDeadJob": lambda _: {"request_id": "again"},
}
