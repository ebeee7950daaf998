"""Running failed jobs again: one job, a batch, a dead one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, execution_pb2, job_pb2, ops_pb2
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from tests.integration.enqueue.batching import (
    cancel_batch,
    enqueue_batch,
    get_batch,
    make,
    outputs,
)
from tests.integration.enqueue.house import House, Team, open_house
from tests.support.databases import DatabaseUrls

BACKOFF = execution_pb2.RELEASE_CAUSE_BACKOFF


async def retry(team: Team, job_id: int, **fields: Any) -> job_pb2.Job:
    request = enqueue_pb2.RetryJobRequest(job_id=job_id, **fields)
    return (await team.call("RetryJob", request)).job  # type: ignore[no-any-return]


async def retry_batch(team: Team, batch_id: int, **fields: Any) -> Any:
    return await team.call("RetryBatch", enqueue_pb2.RetryBatchRequest(batch_id=batch_id, **fields))


async def refused(call: Any) -> FailedPreconditionError:
    with pytest.raises(FailedPreconditionError) as caught:
        await call
    return caught.value


async def failed(house: House, team: Team, failing: set[int], **fields: Any) -> job_pb2.Job:
    """A job of which these images failed."""
    job = await team.generate(**fields)
    await make(house, job.id, failing=failing)
    return await team.get(job.id)


async def test_a_retry_is_a_new_job_of_the_same_inputs(house: House) -> None:
    team = house.team()
    house.assets.folders.add(4)
    old = await failed(
        house,
        team,
        {2},
        number_of_variations=3,
        model_image={"file_id": 3},
        moodboard={"positive_images": [{"file_id": 7}], "style_appendix": "warm"},
        labels={"variant": "red", "source_task_id": "t1"},
        folder_id=4,
        priority=5,
    )
    assert old.state == job_pb2.JOB_STATE_FAILED
    assert not old.dead
    new = await retry(team, old.id)
    assert (new.retry_of, new.state) == (old.id, job_pb2.JOB_STATE_QUEUED)
    assert new.id != old.id
    for field in (
        *("type", "lane", "schema_key", "input", "prompt", "moodboard_snapshot"),
        *("product_image_file_ids", "model_image_file_id", "number_of_variations", "priority"),
        *("variant", "source_task_id", "folder_id", "quality", "format"),
    ):
        assert getattr(new, field) == getattr(old, field), field
    assert [(i.index, i.shot) for i in new.images] == [(1, 1), (2, 2), (3, 3)]
    # Its inputs are pinned anew, under a token of its own.
    first, again = house.assets.calls[-2:]
    assert sorted(ref.file_id for ref in again.refs) == [1, 3, 7]
    assert again.pin_token
    assert again.pin_token != first.pin_token
    assert not again.moodboard_id
    assert (await team.get(old.id)) == old
    await make(house, new.id)
    assert (await team.get(new.id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_only_the_missing_images_are_made(house: House) -> None:
    team = house.team()
    job = await team.generate(number_of_variations=4)
    prompts = {i.index: i.prompt for i in (await house.worker().claim(job.id, "x")).images}
    await house.worker().release(job.id, 1, execution_pb2.RELEASE_CAUSE_DRAIN)
    await make(house, job.id, failing={2, 4})
    new = await retry(team, job.id, only_missing=True)
    assert new.number_of_variations == 2
    assert [(i.index, i.shot) for i in new.images] == [(1, 2), (2, 4)]
    claim = await house.worker().claim(new.id, "y")
    # The same shots as the first job's.
    assert [i.prompt for i in claim.images] == [prompts[2], prompts[4]]
    done = await house.worker().record(new.id, claim.fence, 1, 5001)
    assert (done.image.index, done.image.shot) == (1, 2)
    await house.worker().fail(new.id, claim.fence, 2, "OUTPUT_BLOCKED")
    await house.worker().finish(new.id, claim.fence)
    last = await retry(team, new.id, only_missing=True)
    assert [(i.index, i.shot) for i in last.images] == [(1, 4)]
    claim = await house.worker().claim(last.id, "z")
    assert [i.prompt for i in claim.images] == [prompts[4]]
    # All of a retry again: the same shots.
    await house.worker().fail(last.id, claim.fence, 1, "OUTPUT_BLOCKED")
    await house.worker().finish(last.id, claim.fence)
    whole = await retry(team, last.id)
    assert [(i.index, i.shot) for i in whole.images] == [(1, 4)]


async def test_only_a_failed_job_is_run_again(house: House) -> None:
    team = house.team()
    waiting, done, canceled = [await team.generate() for _ in range(3)]
    await make(house, done.id)
    await team.cancel(canceled.id)
    for job in (waiting, done, canceled):
        assert (await refused(retry(team, job.id))).reason == "JOB_NOT_RETRYABLE"
    lost = await failed(house, team, {1})
    for job_id in (lost.id, 10**9):
        with pytest.raises(NotFoundError):
            await retry(house.team("blue"), job_id)
    for job_id in (0, -1):
        with pytest.raises(InvalidArgumentError):
            await retry(team, job_id)


async def test_a_job_has_one_retry_at_a_time(house: House) -> None:
    team = house.team()
    old = await failed(house, team, {1})
    found = await asyncio.gather(
        *(retry(team, old.id, request_id=f"r{n}") for n in range(5)), return_exceptions=True
    )
    (new,) = [job for job in found if isinstance(job, job_pb2.Job)]
    for error in found:
        if isinstance(error, FailedPreconditionError):
            assert error.reason == "JOB_ALREADY_RETRIED"
            assert error.metadata == {"retryJobId": str(new.id)}
        else:
            assert error is new
    await team.cancel(new.id)
    again = await retry(team, old.id)
    assert again.id != new.id
    assert (await refused(retry(team, old.id))).metadata == {"retryJobId": str(again.id)}
    await make(house, again.id, failing={1})
    assert (await refused(retry(team, old.id))).reason == "JOB_ALREADY_RETRIED"
    assert (await retry(team, again.id)).retry_of == again.id


async def test_a_request_id_makes_one_retry(house: House) -> None:
    team = house.team()
    old = await failed(house, team, {1}, number_of_variations=2)
    found = await asyncio.gather(*(retry(team, old.id, request_id="r") for _ in range(5)))
    assert len({job.id for job in found}) == 1
    with pytest.raises(AlreadyExistsError) as caught:
        await retry(team, old.id, request_id="r", only_missing=True)
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    house.assets.files["red"].clear()
    await team.cancel(found[0].id)
    again = await retry(team, old.id, request_id="r")
    assert (again.id, again.state) == (found[0].id, job_pb2.JOB_STATE_CANCELED)


async def test_a_deleted_input_is_named(house: House) -> None:
    team = house.team()
    old = await failed(house, team, {1}, product_images=[{"file_id": n} for n in (1, 2, 3)])
    house.assets.files["red"] -= {1, 3}
    error = await refused(retry(team, old.id))
    assert (error.reason, error.metadata) == ("INPUT_GONE", {"fileIds": "1,3"})
    jobs = await team.call("ListJobs", enqueue_pb2.ListJobsRequest())
    assert [job.id for job in jobs.jobs] == [old.id]


async def test_a_retry_needs_credits_and_room_like_any_job(urls: DatabaseUrls) -> None:
    async with open_house(urls, LIVE_JOBS_PER_TEAM="1", QUEUED_JOBS_PER_TEAM="1") as house:
        team = house.team()
        await house.ops().grant("red", 2)
        old = await failed(house, team, {1}, number_of_variations=2)
        assert (await refused(retry(team, old.id))).metadata == {"required": "2", "remaining": "1"}
        new = await retry(team, old.id, only_missing=True)
        assert new.credits.held == 1
        await make(house, new.id, failing={1})
        await house.ops().grant("red", 9, "g2")
        await team.generate()
        await team.generate()
        with pytest.raises(ResourceExhaustedError) as caught:
            await retry(team, new.id)
        assert caught.value.reason == "QUEUE_FULL"


async def test_a_batch_s_failed_jobs_take_their_places_again(house: House) -> None:
    team = house.team()
    batch = await enqueue_batch(team, 3, settings={"number_of_variations": 2})
    one, two, three = batch.job_ids
    await make(house, one)
    await make(house, two, failing={1})
    await make(house, three, failing={1, 2})
    batch = await get_batch(team, batch.id)
    assert (batch.state, batch.jobs.failed) == (batch_pb2.BATCH_STATE_FAILED, 2)

    retried = await retry_batch(team, batch.id, only_missing=True, request_id="r")
    new_two, new_three = retried.job_ids
    batch = retried.batch
    assert batch.state == batch_pb2.BATCH_STATE_ACTIVE
    assert list(batch.job_ids) == [one, new_two, new_three]
    assert (batch.jobs.total, batch.jobs.queued, batch.images.total) == (3, 2, 5)
    jobs = [await team.get(job_id) for job_id in retried.job_ids]
    assert [(j.batch_id, j.variant_index, j.retry_of) for j in jobs] == [
        (batch.id, 2, two),
        (batch.id, 3, three),
    ]
    assert [j.number_of_variations for j in jobs] == [1, 2]
    assert (await refused(retry_batch(team, batch.id))).reason == "BATCH_NOT_RETRYABLE"

    # What the packager gets: the newest job's images, filled up by those before it.
    said = await outputs(house, "red", batch.id)
    assert not said.ended
    assert [[(o.index, o.file_id) for o in v.outputs] for v in said.variants] == [
        [(1, one * 100 + 1), (2, one * 100 + 2)],
        [(2, two * 100 + 2)],
        [],
    ]
    await make(house, new_two)
    await make(house, new_three, failing={2})
    said = await outputs(house, "red", batch.id)
    assert [[(o.index, o.file_id) for o in v.outputs] for v in said.variants[1:]] == [
        [(1, new_two * 100 + 1), (2, two * 100 + 2)],
        [(1, new_three * 100 + 1)],
    ]
    # A canceled retry is as if it had not been; a later retry is none of the first request's.
    later = await retry_batch(team, batch.id)
    assert len(later.job_ids) == 1
    canceled = await cancel_batch(team, batch.id)
    assert canceled.state == batch_pb2.BATCH_STATE_FAILED
    assert list(canceled.job_ids) == [one, new_two, new_three]
    assert await cancel_batch(team, batch.id) == canceled
    again = await retry_batch(team, batch.id, only_missing=True, request_id="r")
    assert list(again.job_ids) == [new_two, new_three]
    assert again.batch == canceled
    assert canceled.usage.total_tokens == 3 * 5  # retried jobs' images included


async def test_two_retries_of_a_batch_at_once(house: House) -> None:
    team = house.team()
    batch = await enqueue_batch(team, 2)
    for job_id in batch.job_ids:
        await make(house, job_id, failing={1})
    found = await asyncio.gather(
        *(retry_batch(team, batch.id) for _ in range(4)), return_exceptions=True
    )
    made = [answer for answer in found if not isinstance(answer, BaseException)]
    assert len(made) == 1
    assert {e.reason for e in found if isinstance(e, FailedPreconditionError)} == {
        "BATCH_NOT_RETRYABLE"
    }
    assert (await get_batch(team, batch.id)).jobs.total == 2


async def test_a_batch_with_a_deleted_input_is_not_retried_at_all(house: House) -> None:
    team = house.team()
    batch = await enqueue_batch(team, 3)
    for job_id in batch.job_ids:
        await make(house, job_id, failing={1})
    house.assets.files["red"].remove(2)
    error = await refused(retry_batch(team, batch.id))
    assert (error.reason, error.metadata) == ("INPUT_GONE", {"fileIds": "2"})
    assert (await get_batch(team, batch.id)).state == batch_pb2.BATCH_STATE_FAILED


async def dead(house: House, **fields: Any) -> list[int]:
    answer = await house.ops().call("ListDeadJobs", ops_pb2.ListDeadJobsRequest(**fields))
    return [job.job_id for job in answer.jobs]


@pytest.mark.parametrize(
    ("outcome", "attempts", "died"),
    [("OVERLOADED", "1", True), ("PROMPT_BLOCKED", "1", False), ("OVERLOADED", "2", False)],
)
async def test_a_job_is_dead_when_its_images_used_up_its_attempts(
    urls: DatabaseUrls, outcome: str, attempts: str, *, died: bool
) -> None:
    async with open_house(urls, MAX_ATTEMPTS=attempts) as house:
        team, worker = house.team(), house.worker()
        job = await team.generate(number_of_variations=2)
        claim = await worker.claim(job.id)
        await worker.record(job.id, claim.fence, 1, 101)
        await worker.fail(job.id, claim.fence, 2, outcome)
        await worker.finish(job.id, claim.fence)
        assert (await team.get(job.id)).dead == died
        assert await dead(house) == [job.id] * died


async def test_dead_jobs_are_listed_and_run_again(urls: DatabaseUrls) -> None:
    async with open_house(urls, MAX_ATTEMPTS="1") as house:
        red, blue = house.team(), house.team("blue")
        worker = house.worker()
        died = []
        for team in (red, red, blue):
            job = await team.generate(number_of_variations=2)
            claim = await worker.claim(job.id, f"c{job.id}")
            await worker.record(job.id, claim.fence, 1, job.id * 100 + 1)
            await worker.release(job.id, claim.fence, BACKOFF, outcome="TIMED_OUT", message="late")
            died.append(job.id)
        await failed(house, red, {1})  # failed, not dead
        assert (await red.get(died[0])).dead
        assert await dead(house) == died[::-1]
        assert await dead(house, team="red") == died[1::-1]
        page = await house.ops().call("ListDeadJobs", ops_pb2.ListDeadJobsRequest(page_size=1))
        assert (page.jobs[0].team, page.jobs[0].error.reason) == ("blue", "TIMED_OUT")
        assert page.jobs[0].attempts == 1
        assert await dead(house, page_token=page.next_page_token) == died[1::-1]

        request = ops_pb2.RequeueDeadJobRequest(job_id=died[0], request_id="r")
        new_id = (await house.ops().call("RequeueDeadJob", request)).job_id
        assert (await house.ops().call("RequeueDeadJob", request)).job_id == new_id
        new = await red.get(new_id)
        assert (new.retry_of, new.number_of_variations) == (died[0], 1)
        assert await dead(house) == died[:0:-1]
        audit = await house.ops().call("ListAuditEntries", ops_pb2.ListAuditEntriesRequest())
        assert [(e.team, e.actor, e.action, e.job_id) for e in audit.entries] == [
            ("red", "operator", "REQUEUE_DEAD_JOB", died[0])
        ]
        for job_id, reason in ((died[0], "JOB_ALREADY_RETRIED"), (new_id, "JOB_NOT_DEAD")):
            again = ops_pb2.RequeueDeadJobRequest(job_id=job_id)
            assert (await refused(house.ops().call("RequeueDeadJob", again))).reason == reason
        with pytest.raises(NotFoundError):
            await house.ops().call("RequeueDeadJob", ops_pb2.RequeueDeadJobRequest(job_id=10**9))
        await red.cancel(new_id)
        assert await dead(house) == died[::-1]


async def test_a_job_that_has_every_image_does_not_die(urls: DatabaseUrls) -> None:
    """Its last worker was lost between the last image and the end."""
    async with open_house(urls, MAX_ATTEMPTS="1") as house:
        team, worker = house.team(), house.worker()
        job = await team.generate()
        claim = await worker.claim(job.id)
        await worker.record(job.id, claim.fence, 1, 7001)
        released = await worker.release(job.id, claim.fence, BACKOFF, outcome="TIMED_OUT")
        assert released.state == job_pb2.JOB_STATE_SUCCEEDED
        found = await team.get(job.id)
        assert (found.state, found.dead) == (job_pb2.JOB_STATE_SUCCEEDED, False)
        assert await dead(house) == []
