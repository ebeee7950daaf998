"""The life of a job through the real doors: enqueue, admit, claim, record, finish, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, job_pb2, messages_pb2
from libs.common.broker import Delivery
from libs.common.db import Database
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    LeaseLostError,
    NotFoundError,
)
from services.enqueue import tables
from tests.fakes.clock import HandClock
from tests.integration.enqueue.house import CLOCK, House, generation, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.fleet_team import patiently

DRAIN = execution_pb2.RELEASE_CAUSE_DRAIN
BACKOFF = execution_pb2.RELEASE_CAUSE_BACKOFF
QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING


class Doorbells:
    """Takes doorbells of the fast generation lane."""

    def __init__(self) -> None:
        self.jobs: list[int] = []

    async def take(self, delivery: Delivery) -> None:
        bell = messages_pb2.Doorbell.FromString(delivery.body)
        self.jobs.append(bell.job_id)
        await delivery.ack()


async def listen(house: House, queue: str = "jobs.image_generation.fast") -> Doorbells:
    bells = Doorbells()
    await house.broker.consume(queue, bells.take, prefetch=10)
    return bells


def kinds(events: list[job_pb2.JobEvent]) -> list[str]:
    return [job_pb2.JobEventKind.Name(e.kind).removeprefix("JOB_EVENT_KIND_") for e in events]


async def test_a_job_goes_from_enqueue_to_succeeded(house: House) -> None:
    bells = await listen(house)
    team, worker = house.team(), house.worker()
    job = await team.generate(
        number_of_variations=3,
        product_images=[{"upload_url": "/api/uploads/4/file"}, {"file_id": 2}],
        model_image={"file_id": 3},
        input={"purpose": "social", "aspect_ratio": "3:4"},
        labels={"product": "shirt"},
        moodboard={"positive_images": [{"file_id": 7}], "style_appendix": "warm"},
    )
    assert job.state == job_pb2.JOB_STATE_QUEUED
    assert list(job.product_image_file_ids) == [4, 2]
    assert job.model_image_file_id == 3
    assert job.lane == "image_generation.fast"
    assert job.input["purpose"] == "social"
    assert len(job.images) == 3
    assert len(house.assets.calls) == 1
    assert "warm" in job.prompt.original
    await eventually(lambda: bells.jobs == [job.id])

    claim = await worker.claim(job.id)
    assert [(i.role, i.file_id) for i in claim.spec.inputs] == [
        ("product", 4),
        ("product", 2),
        ("model", 3),
        ("moodboard", 7),
    ]
    assert claim.spec.aspect_ratio == "3:4"
    assert [i.index for i in claim.images] == [1, 2, 3]
    assert len({i.prompt for i in claim.images}) == 3
    for index in (2, 1, 3):
        await worker.record(job.id, claim.fence, index, 100 + index)
    answer = await worker.finish(job.id, claim.fence)
    assert answer.state == job_pb2.JOB_STATE_SUCCEEDED

    done = await team.get(job.id)
    assert done.state == job_pb2.JOB_STATE_SUCCEEDED
    assert [i.file_id for i in done.images] == [101, 102, 103]
    assert done.archive.state == job_pb2.ARCHIVE_STATE_PENDING
    assert done.usage.total_tokens == 9
    events = await team.events(job.id)
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert kinds(events) == [
        *("QUEUED", "ADMITTED", "STARTED", "IMAGE_DONE", "IMAGE_DONE", "IMAGE_DONE", "SUCCEEDED")
    ]


async def test_a_repeated_request_gives_the_same_job(house: House) -> None:
    team = house.team()
    first = await team.generate(request_id="r1")
    again = await team.generate(request_id="r1")
    assert again.id == first.id
    with pytest.raises(AlreadyExistsError) as raised:
        await team.generate(request_id="r1", number_of_variations=2)
    assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
    # Another team's key is its own.
    other = await house.team("blue").generate(request_id="r1")
    assert other.id != first.id


async def test_fifty_racing_repeats_make_one_job(house: House) -> None:
    team = house.team()
    jobs = await asyncio.gather(
        *(patiently(lambda: team.generate(request_id="same")) for _ in range(50))
    )
    assert len({job.id for job in jobs}) == 1


async def test_at_most_three_jobs_of_a_team_are_live(house: House) -> None:
    bells = await listen(house)
    team, worker = house.team(), house.worker()
    jobs = await asyncio.gather(*(patiently(team.generate) for _ in range(20)))
    other = await house.team("blue").generate()
    mine = {job.id for job in jobs}
    await eventually(lambda: other.id in bells.jobs)

    async def admitted() -> int:
        found = [await team.get(job.id) for job in jobs]
        return sum(job.HasField("admit_time") for job in found)

    ended: set[int] = set()
    while len(ended) < len(jobs):
        places = min(len(jobs), len(ended) + 3)
        await eventually(lambda n=places: len(mine & set(bells.jobs)) == n)  # type: ignore[misc]
        assert await admitted() == places
        done = min(mine & set(bells.jobs) - ended)
        await worker.make_all(done)
        ended.add(done)


async def test_higher_priority_goes_first_within_the_team(house: House) -> None:
    team, worker = house.team(), house.worker()
    jobs = [await team.generate() for _ in range(4)]
    urgent = await team.generate(priority=5)
    await worker.make_all(jobs[0].id)
    assert (await team.get(urgent.id)).HasField("admit_time")
    assert not (await team.get(jobs[3].id)).HasField("admit_time")


async def test_a_bad_reference_rejects_all_and_is_named(house: House) -> None:
    team = house.team()
    with pytest.raises(InvalidArgumentError) as raised:
        await team.generate(
            product_images=[{"file_id": 1}, {"file_id": 999}],
            background_image={"upload_url": "http://169.254.169.254/latest"},
        )
    assert {v.field for v in raised.value.violations} == {
        "product_images[1].file_id",
        "background_image.upload_url",
    }
    assert (await team.call("ListJobs", _list())).jobs == []


def _list() -> object:
    return enqueue_pb2.ListJobsRequest()


async def test_a_claim_is_repeated_by_its_id_and_refused_to_others(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate()
    first = await worker.claim(job.id, "c1")
    again = await worker.claim(job.id, "c1")
    assert again.fence == first.fence
    with pytest.raises(FailedPreconditionError) as raised:
        await house.worker("w2").claim(job.id, "c2")
    assert raised.value.reason == "JOB_NOT_CLAIMABLE"
    with pytest.raises(NotFoundError):
        await worker.claim(10**9)


async def test_twenty_racing_claims_have_one_winner(house: House) -> None:
    job = await house.team().generate()
    worker = house.worker()
    results = await asyncio.gather(
        *(patiently(partial(worker.claim, job.id, f"c{n}")) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(not isinstance(r, BaseException) for r in results) == 1


async def test_writes_of_a_stale_fence_are_refused(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    old = await worker.claim(job.id, "c1")
    await worker.record(job.id, old.fence, 1, 101)
    await worker.release(job.id, old.fence, DRAIN)
    new = await worker.claim(job.id, "c2")
    assert new.fence > old.fence
    assert [i.index for i in new.images] == [2]
    for call in (
        worker.record(job.id, old.fence, 2, 102),
        worker.fail(job.id, old.fence, 2, "NO_IMAGE"),
        worker.finish(job.id, old.fence),
        worker.release(job.id, old.fence, DRAIN),
    ):
        with pytest.raises(LeaseLostError):
            await call
    lost = await worker.renew({job.id: old.fence})
    assert list(lost.lost_job_ids) == [job.id]
    assert list((await worker.renew({job.id: new.fence})).lost_job_ids) == []
    assert (await team.get(job.id)).attempts == 1


async def test_what_a_dead_process_held_is_given_away_when_the_next_of_its_name_begins(
    house: House,
) -> None:
    team, worker = house.team(), house.worker()
    left, others = await team.generate(number_of_variations=2), await team.generate()
    old = await worker.claim(left.id, "c1")
    await worker.record(left.id, old.fence, 1, 101)
    held = await house.worker("w2").claim(others.id, "c2")
    assert list((await worker.renew({})).lost_job_ids) == []  # says nothing of what it holds
    await house.app.duties["reaper"].once()
    assert (await team.get(left.id)).state == RUNNING
    await asyncio.gather(*(worker.renew({}, fresh=True) for _ in range(2)))
    await house.app.duties["reaper"].once()
    assert (await team.get(left.id)).state == QUEUED
    assert (await team.get(others.id)).state == RUNNING
    assert not (await house.worker("w2").renew({others.id: held.fence})).lost_job_ids
    with pytest.raises(LeaseLostError):
        await worker.record(left.id, old.fence, 2, 102)
    new = await worker.claim(left.id, "c3")
    assert [image.index for image in new.images] == [2]


async def test_a_slot_keeps_its_first_file(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate()
    claim = await worker.claim(job.id)
    record = partial(worker.record, job.id, claim.fence, 1)
    await asyncio.gather(*(patiently(partial(record, 500)) for _ in range(10)))
    image = (await record(501)).image
    assert image.file_id == 500
    assert (await team.get(job.id)).images_done == 1
    assert kinds(await team.events(job.id)).count("IMAGE_DONE") == 1
    with pytest.raises(InvalidArgumentError):
        await worker.record(job.id, claim.fence, 2, 502)


async def test_a_job_with_a_failed_image_fails_and_keeps_the_good_ones(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    claim = await worker.claim(job.id)
    await worker.record(job.id, claim.fence, 1, 101)
    with pytest.raises(FailedPreconditionError) as raised:
        await worker.finish(job.id, claim.fence)
    assert raised.value.reason == "IMAGES_PENDING"
    await worker.fail(job.id, claim.fence, 2, "OUTPUT_BLOCKED")
    for _ in range(2):
        assert (await worker.finish(job.id, claim.fence)).state == job_pb2.JOB_STATE_FAILED
    failed = await team.get(job.id)
    assert failed.error.reason == "OUTPUT_BLOCKED"
    assert failed.images[0].file_id == 101
    assert failed.archive.state == job_pb2.ARCHIVE_STATE_NONE
    assert kinds(await team.events(job.id)).count("FAILED") == 1


async def test_cancel_ends_at_once_and_refuses_late_images(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    claim = await worker.claim(job.id)
    await worker.record(job.id, claim.fence, 1, 101)
    canceled = await team.cancel(job.id)
    assert canceled.state == job_pb2.JOB_STATE_CANCELED
    assert [i.state for i in canceled.images] == [
        job_pb2.IMAGE_STATE_DONE,
        job_pb2.IMAGE_STATE_CANCELED,
    ]
    with pytest.raises(LeaseLostError):
        await worker.record(job.id, claim.fence, 2, 102)
    assert (await team.cancel(job.id)).state == job_pb2.JOB_STATE_CANCELED
    assert kinds(await team.events(job.id)).count("CANCELED") == 1
    with pytest.raises(FailedPreconditionError):
        await worker.claim(job.id, "c9")


async def test_canceling_an_ended_job_is_refused(house: House) -> None:
    team = house.team()
    job = await team.generate()
    await house.worker().make_all(job.id)
    with pytest.raises(FailedPreconditionError) as raised:
        await team.cancel(job.id)
    assert raised.value.reason == "JOB_TERMINAL"


async def test_a_canceled_jobs_worker_is_told_at_once(urls: DatabaseUrls) -> None:
    async with open_house(urls, HEARTBEAT_SECONDS="600") as house:  # by no heartbeat
        team, worker = house.team(), house.worker()
        stream = worker.client.stream(
            worker.stub.WatchWorker, execution_pb2.WatchWorkerRequest(worker=worker.name)
        )
        assert (await anext(stream)).HasField("heartbeat")
        job = await team.generate()
        claim = await worker.claim(job.id)
        await team.cancel(job.id)
        async with asyncio.timeout(60):
            command = await anext(stream)
        assert (command.stop.job_id, command.stop.fence) == (job.id, claim.fence)
        await stream.aclose()  # a generator


@asynccontextmanager
async def blaming_house(urls: DatabaseUrls, **settings: str) -> AsyncIterator[House]:
    """Its reaper has looked on for longer than a lease, and counts who is lost from now on."""
    clock = HandClock()
    async with open_house(urls, clock, **settings) as house:
        for _ in range(40):
            clock.move(2.0)  # much more between two rounds would be an outage
            await house.app.duties["reaper"].once()
        yield house


async def let_lease_run_out(house: House, job_id: int) -> None:
    db = Database(house.urls.app, duty_url=house.urls.duty, clock=CLOCK)
    async with db.duty() as tx:
        job = sa.update(tables.jobs).where(tables.jobs.c.id == job_id)
        await tx.execute(job.values(lease_expires_at=tx.after(-1.0)))
    await db.stop()


async def test_an_expired_lease_gives_the_job_to_the_next_worker(urls: DatabaseUrls) -> None:
    async with blaming_house(urls) as house:
        bells = await listen(house)
        team, worker = house.team(), house.worker()
        job = await team.generate(number_of_variations=2)
        await eventually(lambda: bells.jobs)
        claim = await worker.claim(job.id)
        await worker.record(job.id, claim.fence, 1, 101)
        rung = len(bells.jobs)
        await let_lease_run_out(house, job.id)
        await eventually(lambda: len(bells.jobs) > rung)
        with pytest.raises(LeaseLostError):
            await worker.record(job.id, claim.fence, 2, 102)
        second = await house.worker("w2").claim(job.id, "c2")
        assert [i.index for i in second.images] == [2]
        back = await team.get(job.id)
        assert (back.lost_workers, back.attempts) == (1, 1)


async def test_a_job_that_loses_every_worker_fails(urls: DatabaseUrls) -> None:
    async with blaming_house(urls, MAX_LOST_WORKERS="2") as house:
        team, worker = house.team(), house.worker()
        job = await team.generate(number_of_variations=2)

        async def is_in(state: job_pb2.JobState.ValueType) -> bool:
            return (await team.get(job.id)).state == state

        for claim_id, then in (("c1", QUEUED), ("c2", job_pb2.JOB_STATE_FAILED)):
            await worker.claim(job.id, claim_id)
            await let_lease_run_out(house, job.id)
            await eventually(partial(is_in, then))
        dead = await team.get(job.id)
        assert (dead.error.reason, dead.lost_workers, dead.attempts) == ("WORKER_LOST", 2, 0)


async def test_a_job_handed_back_waits_and_gives_up_its_place(house: House) -> None:
    bells = await listen(house)
    team, worker = house.team(), house.worker()
    jobs = [await team.generate() for _ in range(4)]
    await eventually(lambda: len(set(bells.jobs)) == 3)
    claim = await worker.claim(jobs[0].id)
    answer = await worker.release(
        jobs[0].id, claim.fence, BACKOFF, outcome="OVERLOADED", message="busy", retry_after_ms=500
    )
    assert answer.state == job_pb2.JOB_STATE_QUEUED
    assert (await team.get(jobs[3].id)).HasField("admit_time")
    back = await team.get(jobs[0].id)
    assert back.HasField("not_before")
    assert not back.HasField("admit_time")
    rung = bells.jobs.count(jobs[0].id)
    await worker.make_all(jobs[1].id)
    await eventually(lambda: bells.jobs.count(jobs[0].id) > rung, timeout_seconds=30)


async def test_a_job_that_backs_off_holds_up_no_later_one(house: House) -> None:
    bells = await listen(house)
    team, worker = house.team(), house.worker()
    first = await team.generate()
    claim = await worker.claim(first.id)
    await worker.release(
        first.id, claim.fence, BACKOFF, outcome="OVERLOADED", message="x", retry_after_ms=3_600_000
    )
    later = [await team.generate() for _ in range(4)]
    await eventually(lambda: set(bells.jobs) >= {job.id for job in later[:3]})
    admitted = [(await team.get(job.id)).HasField("admit_time") for job in later]
    assert admitted == [True, True, True, False]
    why = await team.call("ExplainJob", enqueue_pb2.ExplainJobRequest(job_id=later[3].id))
    assert why.position == 1  # of those that wait for a place
    await worker.make_all(later[0].id)
    assert (await team.get(later[3].id)).HasField("admit_time")
    assert not (await team.get(first.id)).HasField("admit_time")


async def test_attempts_run_out(urls: DatabaseUrls) -> None:
    async with open_house(urls, MAX_ATTEMPTS="1") as house:
        team, worker = house.team(), house.worker()
        job = await team.generate(number_of_variations=2)
        claim = await worker.claim(job.id)
        assert not claim.spec.may_hand_back
        answer = await worker.release(
            job.id, claim.fence, BACKOFF, outcome="OVERLOADED", message="busy"
        )
        assert answer.state == job_pb2.JOB_STATE_FAILED
        failed = await team.get(job.id)
        assert failed.error.reason == "OVERLOADED"
        assert failed.images_failed == 2


async def test_an_unanswered_doorbell_rings_again(house: House) -> None:
    team = house.team()
    job = await team.generate()
    bells = await listen(house)
    await eventually(lambda: len(bells.jobs) >= 2, timeout_seconds=30)
    assert set(bells.jobs) == {job.id}


async def test_other_teams_jobs_answer_like_unknown_ones(house: House) -> None:
    job = await house.team().generate()
    stranger = house.team("blue")
    for call in (stranger.get, stranger.cancel, stranger.events):
        with pytest.raises(NotFoundError):
            await call(job.id)
        with pytest.raises(NotFoundError):
            await call(10**12)
    assert (await house.team().get(job.id)).state == job_pb2.JOB_STATE_QUEUED
    with pytest.raises(InvalidArgumentError):
        await stranger.get(0)


async def test_pages_of_jobs(house: House) -> None:
    team = house.team()
    jobs = [await team.generate() for _ in range(5)]
    await house.team("blue").generate()
    seen: list[int] = []
    token = ""
    while True:
        request = enqueue_pb2.ListJobsRequest(page_size=2, page_token=token)
        page = await team.call("ListJobs", request)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert seen == [job.id for job in reversed(jobs)]
    first = await team.call("ListJobs", enqueue_pb2.ListJobsRequest(page_size=2))
    for bad in (
        enqueue_pb2.ListJobsRequest(page_token="x"),
        enqueue_pb2.ListJobsRequest(
            page_token=first.next_page_token, states=[job_pb2.JOB_STATE_FAILED]
        ),
    ):
        with pytest.raises(InvalidArgumentError) as raised:
            await team.call("ListJobs", bad)
        assert raised.value.reason == "BAD_PAGE_TOKEN"
    with pytest.raises(InvalidArgumentError):
        await house.team("blue").call(
            "ListJobs", enqueue_pb2.ListJobsRequest(page_token=first.next_page_token)
        )


async def test_an_archive_is_recorded_once_and_ready_stays_but_for_a_later_file(
    house: House,
) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    await worker.make_all(job.id)
    packager = house.worker()
    packager.client = house.client(house.service_token("packager"))
    packager.stub = type(packager.stub)(packager.client.channel)

    def request(state: Any, file_id: int = 0) -> execution_pb2.RecordArchiveRequest:
        return execution_pb2.RecordArchiveRequest(
            team="red",
            job_id=job.id,
            state=state,
            file_id=file_id,
            filename="a.zip",
            size_bytes=5,
            error=job_pb2.JobError(reason="DATA_LOSS", message="x"),
        )

    failed, ready = job_pb2.ARCHIVE_STATE_FAILED, job_pb2.ARCHIVE_STATE_READY
    await packager.call("RecordArchive", request(failed))
    assert (await team.get(job.id)).archive.error.reason == "DATA_LOSS"
    for _ in range(2):
        await packager.call("RecordArchive", request(ready, 77))
    await packager.call("RecordArchive", request(failed))
    job = await team.get(job.id)
    assert (job.archive.state, job.archive.file_id) == (ready, 77)
    assert kinds(await team.events(job.id))[-2:] == ["ARCHIVE_FAILED", "ARCHIVE_READY"]
    # Built again after its file was deleted, it is another file; what comes late is the old one.
    for file_id in (81, 81, 77):
        await packager.call("RecordArchive", request(ready, file_id))
    await packager.call("RecordArchive", request(failed))
    job = await team.get(job.id)
    assert (job.archive.state, job.archive.file_id) == (ready, 81)
    told = [(event.kind, event.file_id) for event in (await team.events(job.id))[-2:]]
    assert told == [(job_pb2.JOB_EVENT_KIND_ARCHIVE_READY, file_id) for file_id in (77, 81)]
    other = request(ready, 77)
    other.team = "blue"
    with pytest.raises(NotFoundError):
        await packager.call("RecordArchive", other)


async def test_a_team_with_too_many_waiting_jobs_is_told(urls: DatabaseUrls) -> None:
    from libs.common.errors import ResourceExhaustedError  # noqa: PLC0415 - one use

    async with open_house(urls, QUEUED_JOBS_PER_TEAM="2") as house:
        team = house.team()
        for _ in range(5):
            await team.generate()
        with pytest.raises(ResourceExhaustedError) as raised:
            await team.call("EnqueueGeneration", generation())
        assert raised.value.reason == "QUEUE_FULL"
        assert raised.value.retry_after_seconds
