"""Archives through the real doors: asked for by messages and by teams, built, read, reported."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contentshop.enqueue.v1 import execution_pb2, job_pb2, messages_pb2
from contentshop.packager.v1 import packager_pb2 as pb
from libs.common.errors import (
    AlreadyExistsError,
    ContentshopError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from libs.common.migrations import drift
from services.packager import tables
from tests.integration.packager.house import FAILED, READY, House, check_archive
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.fleet_team import patiently

QUEUE = "packager.jobs"


async def test_a_finished_job_gets_its_zip(house: House) -> None:
    images = await house.job(7, 3)
    await house.announce(7)
    (report,) = await house.reported()
    assert report.state == job_pb2.ARCHIVE_STATE_READY
    assert report.filename == "generation-7-1700000000123.zip"
    assert (report.team, report.job_id) == ("red", 7)

    team = house.team()
    archive, data = await team.download(job_id=7)
    assert archive.state == READY
    assert archive.image_count == 3
    assert archive.filename == report.filename
    assert archive.file_id == report.file_id
    assert archive.size_bytes == report.size_bytes == len(data)
    assert archive.HasField("create_time")
    assert archive.HasField("finish_time")
    check_archive(data, 7, images)
    assert await team.get(archive_id=archive.id) == archive
    assert house.assets.calls.count("ResolveImages") == 1
    stored = house.assets.files[report.file_id]
    assert (stored.filename, stored.job_id) == (report.filename, 7)


async def test_names_follow_the_content_type(house: House) -> None:
    images = await house.job(7, 2, content_type="image/webp")
    await house.announce(7)
    await house.team().ended()
    _, data = await house.team().download(job_id=7)
    check_archive(data, 7, images, "webp")


async def test_a_repeated_message_builds_one_zip_and_reports_again(house: House) -> None:
    await house.job(7, 2)
    for _ in range(5):
        await house.announce(7)
    await house.reported()
    await house.announce(7)
    reports = await house.reported(2)
    assert reports[0] == reports[-1]
    assert len(house.assets.archives()) == 1
    await eventually(lambda: house.broker.ready_count(QUEUE) == 0)


async def test_a_report_asked_for_while_one_is_on_its_way_is_made(house: House) -> None:
    """Who asks again may not have heard the first."""
    await house.job(7, 2)
    house.enqueue.answers.clear()
    await house.announce(7)
    await house.reported()
    await house.announce(7)

    async def asked() -> bool:
        return await house.sql("SELECT id FROM archives WHERE report_failures = 0") != []

    await eventually(asked)
    house.enqueue.answers.set()
    first, again = await house.reported(2)
    assert first == again


async def test_a_job_that_ended_anew_with_other_images_gets_another_zip(house: House) -> None:
    """As where enqueue was restored from a copy, and the job ran again."""
    await house.job(7, 3)
    await house.announce(7)
    (old,) = await house.reported()
    images = await house.job(7, 2)
    await house.announce(7)
    _, new = await house.reported(2)
    assert new.state == job_pb2.ARCHIVE_STATE_READY
    assert new.file_id != old.file_id
    _, data = await house.team().download(job_id=7)
    check_archive(data, 7, images)


async def test_a_job_that_wants_no_zip_gets_none(house: House) -> None:
    await house.job(7, 2)
    await house.job(8, 2)
    await house.announce(7, wanted=False)
    await house.announce(8)
    await house.reported()
    with pytest.raises(NotFoundError):
        await house.team().get(job_id=7)


def _ended(**fields: Any) -> bytes:
    sound: dict[str, Any] = {
        "schema_version": 1,
        "job_id": 7,
        "team": "red",
        "archive_wanted": True,
        "finish_time_ms": 1,
        "outputs": [execution_pb2.JobOutput(index=n, file_id=n) for n in (1, 2)],
    }
    return messages_pb2.JobEnded(**(sound | fields)).SerializeToString()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"garbage", id="garbage"),
        pytest.param(_ended(schema_version=2), id="version"),
        pytest.param(_ended(job_id=0), id="job"),
        pytest.param(_ended(team="no/team"), id="team"),
        pytest.param(_ended(outputs=[]), id="no-outputs"),
        pytest.param(
            _ended(outputs=[execution_pb2.JobOutput(index=2, file_id=n) for n in (1, 2)]),
            id="index-twice",
        ),
    ],
)
async def test_messages_that_make_no_sense_are_dead_letters(house: House, body: bytes) -> None:
    await house.publish(body)
    await eventually(lambda: len(house.broker.dead_letters(QUEUE)) == 1)
    await house.job(8, 2)
    await house.announce(8)
    await house.reported()


async def test_create_gives_the_archive_that_is_there(house: House) -> None:
    await house.job(7, 2)
    await house.announce(7)
    team = house.team()
    ready = await team.ended()
    assert await team.create(7) == ready
    assert house.enqueue.asked == 0


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELED"])
async def test_create_builds_where_there_is_none(house: House, state: str) -> None:
    images = await house.job(7, 2, state=job_pb2.JobState.Value(f"JOB_STATE_{state}"))
    team = house.team()
    created = await team.create(7)
    ready = await team.ended()
    assert created.id == ready.id
    check_archive((await team.download(archive_id=ready.id))[1], 7, images)


async def test_create_refuses_live_jobs_and_lonely_images(house: House) -> None:
    await house.job(7, 2, state=job_pb2.JOB_STATE_RUNNING)
    await house.job(8, 1)
    await house.job(9, 0, state=job_pb2.JOB_STATE_CANCELED)
    team = house.team()
    assert await _refusal(team.create(7)) == "ARCHIVE_NOT_READY"
    assert await _refusal(team.create(8)) == "ARCHIVE_NOT_APPLICABLE"
    assert await _refusal(team.create(9)) == "ARCHIVE_NOT_APPLICABLE"


async def test_fifty_racing_creates_make_one_archive(house: House) -> None:
    await house.job(7, 2)
    team = house.team()

    async def create(request_id: str) -> pb.Archive:
        # On a busy machine fifty may wait too long for five connections, and are told to come back.
        return await patiently(lambda: team.create(7, request_id))

    created = await asyncio.gather(*(create("same" if n % 2 else "") for n in range(50)))
    assert len({archive.id for archive in created}) == 1
    await team.ended()
    assert len(house.assets.archives()) == 1


async def test_a_request_id_belongs_to_one_body_and_one_team(house: House) -> None:
    await house.job(7, 2)
    await house.job(8, 2)
    await house.job(9, 2, team="blue")
    team = house.team()
    first = await team.create(7, "r1")
    await team.ended(7)
    assert (await team.create(7, "r1")).id == first.id
    with pytest.raises(AlreadyExistsError) as raised:
        await team.create(8, "r1")
    assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
    with pytest.raises(AlreadyExistsError):
        await team.call("CreateArchive", pb.CreateArchiveRequest(request_id="r1"))
    assert (await house.team("blue").create(9, "r1")).job_id == 9


async def test_another_teams_archive_is_as_unknown_as_none(house: House) -> None:
    await house.job(7, 2)
    await house.announce(7)
    mine = await house.team().ended()
    blue = house.team("blue")
    for known, unknown in (
        ({"archive_id": mine.id}, {"archive_id": 999}),
        ({"job_id": 7}, {"job_id": 999}),
    ):
        assert await _details(blue.get(**known)) == await _details(blue.get(**unknown))
        assert await _details(blue.download(**known)) == await _details(blue.download(**unknown))
    assert await _details(blue.create(7)) == await _details(blue.create(999))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("CreateArchive", pb.CreateArchiveRequest()),
        ("CreateArchive", pb.CreateArchiveRequest(job_id=-1)),
        ("CreateArchive", pb.CreateArchiveRequest(job_id=1, request_id="two words")),
        ("GetArchive", pb.GetArchiveRequest()),
        ("GetArchive", pb.GetArchiveRequest(archive_id=0)),
        ("GetArchive", pb.GetArchiveRequest(job_id=-5)),
    ],
    ids=["no-source", "negative", "request-id", "no-key", "zero", "negative-key"],
)
async def test_wrong_requests_are_named(house: House, method: str, message: object) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await house.team().call(method, message)
    assert len(raised.value.violations) == 1


async def test_a_token_is_needed(house: House) -> None:
    team = house.team()
    team.client._token = lambda: "nonsense"
    with pytest.raises(UnauthenticatedError):
        await team.get(job_id=1)


async def test_downloads_of_what_is_not_ready_are_refused(house: House) -> None:
    house.assets.faults.errors["ResolveImages"] = [UnavailableError("away")] * 5
    house.assets.faults.hang.add("BeginArchive")
    await house.job(7, 2)
    await house.job(8, 2)
    await house.announce(7)
    team = house.team()
    failed = await team.ended(7, FAILED)
    assert failed.error_reason == "STORAGE_UNAVAILABLE"
    assert failed.error_message
    assert await _refusal(team.download(job_id=7)) == "ARCHIVE_FAILED"
    await house.announce(8)
    await eventually(lambda: "BeginArchive" in house.assets.calls)
    assert await _refusal(team.download(job_id=8)) == "ARCHIVE_NOT_READY"


async def test_a_deleted_archive_file_is_not_found(house: House) -> None:
    await house.job(7, 2)
    await house.announce(7)
    archive = await house.team().ended()
    del house.assets.files[archive.file_id]
    with pytest.raises(NotFoundError):
        await house.team().download(job_id=7)


async def test_teams_take_turns(house: House) -> None:
    house.assets.faults.hang.add("ResolveImages")
    for job_id in range(1, 11):
        await house.job(job_id, 2)
        await house.announce(job_id)
    await eventually(lambda: len(house.assets.calls) == 2)
    await house.job(50, 2, team="blue")
    await house.announce(50, team="blue")
    await eventually(lambda: house.broker.ready_count(QUEUE) == 0)
    house.assets.faults.hang.clear()
    await house.restart(PACKAGER_BUILDS="1")
    await house.reported(11)
    # As they were built: reports that are due together are made together, in any order.
    assert [stored.job_id for stored in house.assets.stored].index(50) <= 1


async def test_the_tables_are_what_the_migrations_make(urls: DatabaseUrls) -> None:
    assert await asyncio.to_thread(drift, urls.owner, tables.metadata) == []


async def _refusal(call: object) -> str:
    with pytest.raises(FailedPreconditionError) as raised:
        await call  # type: ignore[misc]  # a coroutine of any call
    return raised.value.reason


async def _details(call: object) -> tuple[object, ...]:
    with pytest.raises(ContentshopError) as raised:
        await call  # type: ignore[misc]  # a coroutine of any call
    error = raised.value
    assert isinstance(error, NotFoundError)
    return error.message, error.reason, error.resource_type, error.metadata
