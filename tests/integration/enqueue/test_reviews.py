"""What people say of made images, and who may see them before somebody did."""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, job_pb2, messages_pb2, ops_pb2
from libs.common.broker import Delivery
from libs.common.db import Database
from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from services.enqueue import tables
from tests.integration.enqueue.batching import enqueue_batch
from tests.integration.enqueue.house import CLOCK, House, Team, Worker, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

APPROVED = job_pb2.REVIEW_STATE_APPROVED
REJECTED = job_pb2.REVIEW_STATE_REJECTED
PENDING = job_pb2.REVIEW_STATE_PENDING


class Endings:
    """Hears job.ended."""

    def __init__(self) -> None:
        self.heard: list[messages_pb2.JobEnded] = []

    async def take(self, delivery: Delivery) -> None:
        self.heard.append(messages_pb2.JobEnded.FromString(delivery.body))
        await delivery.ack()


async def endings(house: House) -> Endings:
    found = Endings()
    await house.broker.consume("packager.jobs", found.take, prefetch=10)
    return found


async def review(team: Team, job_id: int, state: Any, notes: str = "") -> job_pb2.Job:
    request = enqueue_pb2.ReviewJobRequest(job_id=job_id, state=state, notes=notes)
    return (await team.call("ReviewJob", request)).job  # type: ignore[no-any-return]


async def rate(team: Team, job_id: int, index: int, rating: int) -> job_pb2.Image:
    request = enqueue_pb2.RateImageRequest(job_id=job_id, image_index=index, rating=rating)
    return (await team.call("RateImage", request)).image  # type: ignore[no-any-return]


async def audit(house: House, **fields: Any) -> list[Any]:
    request = ops_pb2.ListAuditEntriesRequest(**fields)
    return list((await house.ops().call("ListAuditEntries", request)).entries)


def packager(house: House) -> Worker:
    return Worker(house.client(house.service_token("packager")), "packager")


async def hidden(house: House, job_id: int) -> bool:
    request = execution_pb2.GetJobOutputsRequest(team="red", job_id=job_id)
    return bool((await packager(house).call("GetJobOutputs", request)).hidden)


async def test_the_last_word_stands_and_each_is_audited(house: House) -> None:
    team = house.team()
    job = await team.generate()
    assert job.review.state == PENDING
    with pytest.raises(FailedPreconditionError) as raised:
        await review(team, job.id, APPROVED)
    assert raised.value.reason == "JOB_NOT_ENDED"
    await house.worker().make_all(job.id)

    approved = await review(team, job.id, APPROVED, "fine")
    assert (approved.review.state, approved.review.notes) == (APPROVED, "fine")
    rejected = await review(team, job.id, REJECTED, "a thumb too many")
    assert rejected == await team.get(job.id)
    assert rejected.review.state == REJECTED
    assert rejected.review.reviewer == "developer"
    assert rejected.review.review_time.ToDatetime() > job.create_time.ToDatetime()
    # A job's end does not move: a review is no event, and makes no zip.
    assert rejected.last_sequence == approved.last_sequence
    entries = await audit(house, job_id=job.id)
    assert [(e.team, e.actor, e.action) for e in entries] == 2 * [
        ("red", "developer", "REVIEW_JOB")
    ]
    assert [json.loads(e.details_json) for e in entries] == [
        {"old": "APPROVED", "new": "REJECTED", "notes": "a thumb too many"},
        {"old": "PENDING", "new": "APPROVED", "notes": "fine"},
    ]


async def test_the_last_word_is_the_latest_though_a_clock_goes_back(
    house: House, urls: DatabaseUrls
) -> None:
    team = house.team()
    job = await team.generate()
    await house.worker().make_all(job.id)
    await review(team, job.id, REJECTED)
    ahead = CLOCK.now() + timedelta(hours=1)
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    async with db.duty() as tx:
        await tx.execute(sa.update(tables.jobs).values(reviewed_at=ahead))
    await db.stop()
    times = [(await review(team, job.id, APPROVED)).review.review_time for _ in range(2)]
    assert [t.ToDatetime(UTC) - ahead for t in times] == [timedelta(microseconds=n) for n in (1, 2)]


async def test_where_nobody_asks_for_reviews_nothing_is_hidden(house: House) -> None:
    heard = await endings(house)
    team = house.team()
    job = await team.generate(number_of_variations=2)
    await house.worker().make_all(job.id)
    await eventually(lambda: len(heard.heard) == 1)
    assert (heard.heard[0].review_state, heard.heard[0].archive_wanted) == (APPROVED, True)
    await review(team, job.id, REJECTED)
    assert not await hidden(house, job.id)
    assert (await team.get(job.id)).archive.state == job_pb2.ARCHIVE_STATE_PENDING


async def test_where_reviews_are_wanted_images_and_zip_wait_for_one(urls: DatabaseUrls) -> None:
    async with open_house(urls, REVIEW_REQUIRED="true") as house:
        heard = await endings(house)
        team = house.team("red", "team", "review")
        job = await team.generate(number_of_variations=2)
        await house.worker().make_all(job.id)
        ended = await team.get(job.id)
        assert (ended.review.state, ended.archive.state) == (PENDING, job_pb2.ARCHIVE_STATE_NONE)
        assert await hidden(house, job.id)

        approved = await review(team, job.id, APPROVED)
        assert approved.archive.state == job_pb2.ARCHIVE_STATE_PENDING
        assert not await hidden(house, job.id)
        await review(team, job.id, REJECTED)
        assert await hidden(house, job.id)
        await eventually(lambda: len(heard.heard) == 3)
        assert [(e.review_state, e.archive_wanted) for e in heard.heard] == [
            (PENDING, False),
            (APPROVED, True),
            (REJECTED, True),
        ]
        assert [len(e.outputs) for e in heard.heard] == [2, 2, 2]
        # By these a reader that hears them out of order knows the last word.
        times = [e.review_time_us for e in heard.heard]
        assert times[0] == 0 < times[1] < times[2]


async def test_a_batch_shows_what_was_approved_alone(urls: DatabaseUrls) -> None:
    async with open_house(urls, REVIEW_REQUIRED="true") as house:
        team = house.team("red", "team", "review")
        batch = await enqueue_batch(team, 2)
        listed = await team.call("ListJobs", enqueue_pb2.ListJobsRequest(batch_id=batch.id))
        for job in listed.jobs:
            await house.worker().make_all(job.id)
        await review(team, listed.jobs[0].id, APPROVED)
        request = execution_pb2.GetBatchOutputsRequest(team="red", batch_id=batch.id)
        found = await packager(house).call("GetBatchOutputs", request)
        assert sorted(len(variant.outputs) for variant in found.variants) == [0, 1]


async def test_an_approved_zip_comes_as_usual_and_is_built_once(urls: DatabaseUrls) -> None:
    async with open_house(urls, REVIEW_REQUIRED="true") as house:
        team = house.team("red", "team", "review")
        job = await team.generate(number_of_variations=2)
        await house.worker().make_all(job.id)
        await review(team, job.id, APPROVED)
        ended = await team.get(job.id)

        async def came_out(state: Any, **fields: Any) -> None:
            request = execution_pb2.RecordArchiveRequest(
                team="red", job_id=job.id, state=state, **fields
            )
            await packager(house).call("RecordArchive", request)

        await came_out(job_pb2.ARCHIVE_STATE_FAILED, error=job_pb2.JobError(reason="X"))
        # Approved again, the zip that failed gets another chance; the one that is there stays.
        again = await review(team, job.id, APPROVED)
        assert again.archive == job_pb2.JobArchive(state=job_pb2.ARCHIVE_STATE_PENDING)
        await came_out(job_pb2.ARCHIVE_STATE_READY, file_id=77, filename="z.zip", size_bytes=5)
        await review(team, job.id, REJECTED)
        assert (await review(team, job.id, APPROVED)).archive.file_id == 77
        seen = [update async for update in team.watch(job.id, ended.last_sequence)]
        kinds = [job_pb2.JobEventKind.Name(u.event.kind)[15:] for u in seen if u.event.sequence]
        assert kinds == ["ARCHIVE_FAILED", "ARCHIVE_READY"]
        assert seen[-1].final


async def test_where_reviews_are_wanted_reviewers_alone_review(urls: DatabaseUrls) -> None:
    async with open_house(urls, REVIEW_REQUIRED="true") as house:
        team = house.team()
        job = await team.generate()
        await house.worker().make_all(job.id)
        for who, job_id in ((team, job.id), (team, 999), (house.team("red", "review"), job.id)):
            with pytest.raises(PermissionDeniedError) as raised:
                await review(who, job_id, APPROVED)
            assert raised.value.reason == "SCOPE_MISSING"
        assert await hidden(house, job.id)
        assert await audit(house) == []


async def test_ratings_are_kept_changed_and_taken_back(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    claim = await worker.claim(job.id)
    await worker.record(job.id, claim.fence, 2, 200)
    for rating in (3, 5):
        assert (await rate(team, job.id, 2, rating)).rating == rating
    assert [i.rating for i in (await team.get(job.id)).images] == [0, 5]
    assert (await rate(team, job.id, 2, 0)).rating == 0
    with pytest.raises(FailedPreconditionError) as raised:
        await rate(team, job.id, 1, 5)
    assert raised.value.reason == "IMAGE_NOT_DONE"
    entries = await audit(house, team="red")
    assert [(e.action, json.loads(e.details_json)) for e in entries] == [
        ("RATE_IMAGE", {"image_index": 2, "old": old, "new": new})
        for old, new in ((5, 0), (3, 5), (0, 3))
    ]


async def test_what_is_not_theirs_or_not_there_is_not_found(house: House) -> None:
    team, other = house.team(), house.team("blue")
    job = await team.generate()
    await house.worker().make_all(job.id)
    for who, job_id in ((other, job.id), (team, job.id + 1)):
        with pytest.raises(NotFoundError):
            await review(who, job_id, APPROVED)
        with pytest.raises(NotFoundError):
            await rate(who, job_id, 1, 5)
    with pytest.raises(NotFoundError):
        await rate(team, job.id, 2, 5)
    assert await audit(house) == []


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("ReviewJob", {"job_id": 0, "state": APPROVED}, "job_id"),
    ("ReviewJob", {"job_id": 1}, "state"),
    ("ReviewJob", {"job_id": 1, "state": PENDING}, "state"),
    ("ReviewJob", {"job_id": 1, "state": 99}, "state"),
    ("ReviewJob", {"job_id": 1, "state": APPROVED, "notes": "x" * 1001}, "notes"),
    ("ReviewJob", {"job_id": 1, "state": APPROVED, "notes": "\0"}, "notes"),
    ("RateImage", {"job_id": -1, "image_index": 1, "rating": 1}, "job_id"),
    ("RateImage", {"job_id": 1, "image_index": 0, "rating": 1}, "image_index"),
    ("RateImage", {"job_id": 1, "image_index": 1, "rating": 6}, "rating"),
    ("RateImage", {"job_id": 1, "image_index": 1, "rating": -1}, "rating"),
]


async def test_wrong_words_are_named(house: House) -> None:
    team = house.team()
    for method, fields, field in WRONG:
        request = getattr(enqueue_pb2, f"{method}Request")(**fields)
        with pytest.raises(InvalidArgumentError) as raised:
            await team.call(method, request)
        assert [v.field for v in raised.value.violations] == [field]
