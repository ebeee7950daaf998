"""Bad requests of workers and the packager, and ids that are nobody's or another team's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from contentshop.enqueue.v1 import execution_pb2, job_pb2
from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    LeaseLostError,
    NotFoundError,
)
from libs.common.grpc_client import open_channel
from libs.common.grpc_server import service_descriptors
from tests.integration.enqueue.front_door import (
    DESCRIPTORS,
    ENQUEUE,
    EXECUTION,
    headers_for,
    refusal,
)
from tests.integration.enqueue.house import House

NOBODYS = 999_999
USAGE = {"prompt_tokens": 1, "output_tokens": 1, "total_tokens": 2}
HELD = {"job_id": 1, "fence": 1}
MADE: dict[str, Any] = {
    **HELD,
    "index": 1,
    "file_id": 1,
    "content_type": "image/png",
    "width": 1,
    "height": 1,
    "size_bytes": 1,
    "sha256": "0" * 64,
    "model": "m",
    "usage": USAGE,
}
FAILED = {**HELD, "index": 1, "outcome": "NO_IMAGE", "message": "no"}
RELEASED = {**HELD, "cause": execution_pb2.RELEASE_CAUSE_BACKOFF, "outcome": "TIMED_OUT"}
ARCHIVE = {"team": "red", "job_id": 1, "state": job_pb2.ARCHIVE_STATE_READY, "file_id": 1}
CLAIM = {"job_id": 1, "claim_id": "c", "worker": "w"}
RENEW: dict[str, Any] = {"worker": "w"}
LONG = "x" * 501
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("ClaimJob", {**CLAIM, "job_id": 0}, "job_id"),
    ("ClaimJob", {**CLAIM, "job_id": -1}, "job_id"),
    ("ClaimJob", {**CLAIM, "claim_id": ""}, "claim_id"),
    ("ClaimJob", {**CLAIM, "claim_id": "\0"}, "claim_id"),
    ("ClaimJob", {**CLAIM, "worker": "x" * 129}, "worker"),
    ("RenewLeases", {"worker": " "}, "worker"),
    ("RenewLeases", {**RENEW, "leases": [{"fence": 1}]}, "leases[0].job_id"),
    ("RenewLeases", {**RENEW, "leases": [{"job_id": 1, "fence": -1}]}, "leases[0].fence"),
    ("RenewLeases", {**RENEW, "leases": [HELD] * 1001}, "leases"),
    ("RenewLeases", {**RENEW, "lanes": ["video.fast"]}, "lanes"),
    ("RenewLeases", {**RENEW, "slots": -1}, "slots"),
    ("RenewLeases", {**RENEW, "leases": [HELD], "fresh": True}, "fresh"),
    ("WatchWorker", {"worker": "a\nb\r"}, "worker"),
    ("RecordImage", {**MADE, "fence": 0}, "fence"),
    ("RecordImage", {**MADE, "index": 0}, "index"),
    ("RecordImage", {**MADE, "index": 11}, "index"),
    ("RecordImage", {**MADE, "file_id": 0}, "file_id"),
    ("RecordImage", {**MADE, "content_type": "image/\0"}, "content_type"),
    ("RecordImage", {**MADE, "content_type": ""}, "content_type"),
    ("RecordImage", {**MADE, "width": -1}, "width"),
    ("RecordImage", {**MADE, "height": 0}, "height"),
    ("RecordImage", {**MADE, "size_bytes": 0}, "size_bytes"),
    ("RecordImage", {**MADE, "sha256": "0" * 63}, "sha256"),
    ("RecordImage", {**MADE, "sha256": "\0" * 64}, "sha256"),
    ("RecordImage", {**MADE, "model": "\0"}, "model"),
    ("RecordImage", {**MADE, "usage": {"total_tokens": -1}}, "usage.total_tokens"),
    ("RecordPrompt", {"job_id": 1}, "fence"),
    ("RecordPrompt", {**HELD, "enhanced": "x" * 20_001}, "enhanced"),
    ("RecordPrompt", {**HELD, "enhanced": "a\0b"}, "enhanced"),
    ("RecordPrompt", {**HELD, "enhance_ms": -1}, "enhance_ms"),
    ("RecordPrompt", {**HELD, "enhance_ms": 2**62}, "enhance_ms"),
    ("RecordImageFailure", {**FAILED, "index": -1}, "index"),
    ("RecordImageFailure", {**FAILED, "outcome": "GONE"}, "outcome"),
    ("RecordImageFailure", {**FAILED, "message": LONG}, "message"),
    ("AcquireCalls", {**HELD, "calls": 1}, "model"),
    ("AcquireCalls", {**HELD, "calls": 11, "model": "m"}, "calls"),
    ("AcquireCalls", {"job_id": 1, "calls": 1, "model": "m"}, "fence"),
    ("ReportCalls", {"ok": 1}, "model"),
    ("ReportCalls", {"ok": -1, "model": "m"}, "ok"),
    ("ReportCalls", {"model": "m", "retry_after_ms": 2**62}, "retry_after_ms"),
    ("FinishJob", {"job_id": 1}, "fence"),
    ("ReleaseJob", HELD, "cause"),
    ("ReleaseJob", {**RELEASED, "cause": 99}, "cause"),
    ("ReleaseJob", {**RELEASED, "outcome": ""}, "outcome"),
    ("ReleaseJob", {**RELEASED, "message": LONG}, "message"),
    ("ReleaseJob", {**RELEASED, "retry_after_ms": -1}, "retry_after_ms"),
    ("ReleaseJob", {**RELEASED, "retry_after_ms": 2**62}, "retry_after_ms"),
    ("GetJobOutputs", {"job_id": 1}, "team"),
    ("GetJobOutputs", {"team": "red"}, "job_id"),
    ("RecordArchive", {**ARCHIVE, "team": ""}, "team"),
    ("RecordArchive", {**ARCHIVE, "state": 0}, "state"),
    ("RecordArchive", {**ARCHIVE, "state": 99}, "state"),
    ("RecordArchive", {**ARCHIVE, "file_id": 0}, "file_id"),
    ("RecordArchive", {**ARCHIVE, "filename": "a\0.zip"}, "filename"),
    ("RecordArchive", {**ARCHIVE, "size_bytes": -1}, "size_bytes"),
    ("RecordArchive", {**ARCHIVE, "error": {"reason": "x" * 129}}, "error.reason"),
    ("RecordArchive", {**ARCHIVE, "error": {"message": LONG}}, "error.message"),
]


@pytest.fixture
async def door(house: House) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(f"127.0.0.1:{house.app.port}")
    yield channel
    await channel.close()


async def test_wrong_requests_of_workers_name_their_field(door: grpc.aio.Channel) -> None:
    for name, fields, wrong in WRONG:
        method = f"{EXECUTION}{name}"
        request = getattr(execution_pb2, f"{name}Request")(**fields)
        got = await refusal(door, method, request, headers_for(method))
        assert (got.code, got.fields) == ("INVALID_ARGUMENT", [wrong]), (name, fields)


# Ids.


def _request(method: str, **fields: Any) -> bytes:
    """A right request of the method: every field that is not given is filled in."""
    known: dict[str, Any] = {
        **MADE,
        **RELEASED,
        **ARCHIVE,
        "claim_id": "another",
        "worker": "another",
        "calls": 1,
        "image_index": 1,
        "rating": 5,
        **fields,
    }
    if method.endswith("RecordArchive"):
        known["error"] = None
    descriptor = DESCRIPTORS[method].input_type
    filled = {
        f.name: _fit(f.name, known[f.name], method) for f in descriptor.fields if f.name in known
    }
    return bytes(message_factory.GetMessageClass(descriptor)(**filled).SerializeToString())


_APPROVED = job_pb2.REVIEW_STATE_APPROVED


def _fit(name: str, value: Any, method: str) -> Any:
    if name == "state":
        right = {"RecordArchive": job_pb2.ARCHIVE_STATE_READY, "ReviewJob": _APPROVED}
        return right.get(method.rsplit("/", maxsplit=1)[-1], value)
    return value


# Their job_id is a filter: for a job that is not there nothing is found.
FILTERS = {"ListCreditEntries"}
BY_JOB = [
    name
    for name, method in DESCRIPTORS.items()
    if any(f.name == "job_id" for f in method.input_type.fields)
    and name.startswith((ENQUEUE, EXECUTION))
    and method.name not in FILTERS
]
OF_TEAMS = [name for name in BY_JOB if name.startswith(ENQUEUE) or name.endswith("GetJobOutputs")]


def test_the_matrix_has_every_method_with_an_id() -> None:
    """A new id field must come into the matrix, not past it."""
    ids = {
        (service.name, method.name, field.name)
        for service in service_descriptors(
            ["contentshop.enqueue.v1.EnqueueService", "contentshop.enqueue.v1.ExecutionService"]
        )
        for method in service.methods
        if method.name not in FILTERS
        for field in method.input_type.fields
        if field.type == field.TYPE_INT64 and field.name.endswith("_id")
    }
    assert {name for _, _, name in ids} <= {"job_id", "file_id", "batch_id", "folder_id"}
    assert len(BY_JOB) == len({(s, m) for s, m, name in ids if name == "job_id"})


async def test_another_teams_job_answers_as_one_that_never_was(
    house: House, door: grpc.aio.Channel
) -> None:
    blue = await house.team("blue").generate(number_of_variations=2)
    await house.worker().make_all(blue.id)
    waiting = await house.team("blue").generate()
    await house.team("blue").cancel(waiting.id)
    archive = f"{EXECUTION}RecordArchive"
    for method in [*OF_TEAMS, archive]:
        headers = headers_for(method, "red")
        unknown = await refusal(door, method, _request(method, job_id=NOBODYS), headers)
        assert (unknown.code, unknown.reason) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
        for job_id in (blue.id, waiting.id, 2**63 - 1):
            others = await refusal(door, method, _request(method, job_id=job_id), headers)
            assert others.wire == unknown.wire, method
        for job_id in (0, -1, -(2**63)):
            bad = await refusal(door, method, _request(method, job_id=job_id), headers)
            assert (bad.code, bad.fields) == ("INVALID_ARGUMENT", ["job_id"])
    # With a cursor past the other's last event, too.
    watch = f"{ENQUEUE}WatchJob"
    request = _request(watch, job_id=blue.id, after_sequence=10**6)
    others = await refusal(door, watch, request, headers_for(watch, "red"))
    assert (
        others.wire
        == (
            await refusal(door, watch, _request(watch, job_id=NOBODYS), headers_for(watch, "red"))
        ).wire
    )


async def test_a_stale_fence_tells_nothing_of_the_job(house: House, door: grpc.aio.Channel) -> None:
    job = await house.team().generate()
    await house.worker().claim(job.id)
    for method in set(BY_JOB) - set(OF_TEAMS):
        if method.endswith(("ClaimJob", "RecordArchive")):
            continue
        answers = [
            await refusal(door, method, _request(method, job_id=j, fence=f), headers_for(method))
            for j, f in ((job.id, 99), (NOBODYS, 1))
        ]
        assert answers[0].reason == "LEASE_LOST"
        assert answers[0].code == "FAILED_PRECONDITION"
        if not method.endswith(("FinishJob", "ReleaseJob")):  # these say that the job is gone
            assert answers[0].wire == answers[1].wire


# State.


async def test_slots_and_files_of_other_jobs(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    fence = (await worker.claim(job.id)).fence
    with pytest.raises(InvalidArgumentError) as raised:
        await worker.record(job.id, fence, 3, 1)
    assert raised.value.violations[0].field == "index"
    with pytest.raises(FailedPreconditionError) as early:
        await worker.finish(job.id, fence)
    assert early.value.reason == "IMAGES_PENDING"
    with pytest.raises(FailedPreconditionError) as taken:
        await worker.claim(job.id, "another")
    assert taken.value.reason == "JOB_NOT_CLAIMABLE"
    with pytest.raises(LeaseLostError):
        await worker.finish(job.id, fence + 1)


async def test_another_jobs_file_is_no_image_of_this_one(house: House) -> None:
    team, worker = house.team(), house.worker()
    one, two = await team.generate(), await team.generate()
    claims = {job.id: await worker.claim(job.id) for job in (one, two)}
    await worker.record(one.id, claims[one.id].fence, 1, 77)
    with pytest.raises((InvalidArgumentError, NotFoundError)):
        await worker.record(two.id, claims[two.id].fence, 1, 77)


async def test_a_cursor_past_the_end(house: House, door: grpc.aio.Channel) -> None:
    job = await house.team().generate()
    for name in ("WatchJob", "ListJobEvents"):
        method = f"{ENQUEUE}{name}"
        request = _request(method, job_id=job.id, after_sequence=10**9)
        got = await refusal(door, method, request, headers_for(method))
        assert (got.code, got.reason) == ("INVALID_ARGUMENT", "CURSOR_PAST_END")


async def test_a_strangers_cursor_does_not_silence_a_watch(house: House) -> None:
    job = await house.team().generate()
    hub = house.app.hub
    theirs, ours = hub.watch_job("blue", job.id, 2**62), hub.watch_job("red", job.id, 2)
    # The stranger's subscription is the first; ours comes while it is still being refused.
    refused, first = await asyncio.gather(_next(theirs), _next(ours))
    assert isinstance(refused, NotFoundError)
    assert first is not None
    await house.worker().make_all(job.id)
    async with asyncio.timeout(30):
        assert [update.cursor async for update in ours][-1] == 5


async def _next(updates: AsyncIterator[Any]) -> object:
    try:
        return await anext(updates)
    except NotFoundError as error:
        return error
