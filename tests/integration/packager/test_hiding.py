"""Images that wait for a review, or failed one, are in no archive that is handed out."""

from __future__ import annotations

from typing import Any

import pytest

from contentshop.enqueue.v1 import job_pb2
from libs.common.errors import FailedPreconditionError
from tests.integration.packager.house import READY, House, check_archive

WAITING = job_pb2.REVIEW_STATE_PENDING
APPROVED = job_pb2.REVIEW_STATE_APPROVED
REJECTED = job_pb2.REVIEW_STATE_REJECTED


async def _tell(
    house: House, job_id: int, review: job_pb2.ReviewState.ValueType, *, batch_id: int = 0
) -> None:
    """`job.ended` after a review, as enqueue says it, and taken in."""
    house.enqueue.jobs["red", job_id].hidden = review != APPROVED
    await _say(house, job_id, review, batch_id=batch_id)


async def _say(
    house: House, job_id: int, review: job_pb2.ReviewState.ValueType, *, batch_id: int = 0
) -> None:
    ended = house.ended(job_id)
    ended.review_state = review
    ended.archive_wanted = review == APPROVED
    ended.batch_id = batch_id
    await house.publish(ended.SerializeToString())
    await house.taken_in()


async def test_a_hidden_job_gets_its_zip_when_it_is_approved(house: House) -> None:
    images = await house.job(7, 2)
    team = house.team()
    await _tell(house, 7, WAITING)
    assert await _refusal(team.create(7)) == "ARCHIVE_NOT_READY"
    assert not house.assets.calls
    await _tell(house, 7, APPROVED)
    await team.ended(7)
    check_archive((await team.download(job_id=7))[1], 7, images)


async def test_a_rejected_job_takes_its_zip_back(house: House) -> None:
    images = await house.job(7, 2)
    await house.job(8, 2)
    team = house.team()
    for job_id in (7, 8):
        await _tell(house, job_id, APPROVED)
        await team.ended(job_id)
    await _tell(house, 7, REJECTED)
    assert await _refusal(team.download(job_id=7)) == "ARCHIVE_NOT_READY"
    assert await _refusal(team.create(7)) == "ARCHIVE_NOT_READY"
    assert (await team.get(job_id=7)).state == READY
    await team.download(job_id=8)
    # An approval of before, told once more, shows nothing.
    await _say(house, 7, APPROVED)
    assert await _refusal(team.download(job_id=7)) == "ARCHIVE_NOT_READY"
    await _tell(house, 7, APPROVED)
    check_archive((await team.download(job_id=7))[1], 7, images)
    assert len(house.assets.archives()) == 2
    # Nor does a rejection of before hide what is approved by now.
    await _say(house, 7, REJECTED)
    await team.download(job_id=7)


async def test_create_shows_what_a_lost_message_left_hidden(house: House) -> None:
    await house.job(7, 2)
    team = house.team()
    await _tell(house, 7, APPROVED)
    ready = await team.ended(7)
    await _tell(house, 7, REJECTED)
    house.enqueue.jobs["red", 7].hidden = False
    assert await team.create(7) == ready
    await team.download(job_id=7)


async def test_a_rejected_job_takes_its_batch_archive_back(house: House) -> None:
    await house.batch(5, [("a", 2), ("b", 2)])
    team = house.team()
    first = await team.settled((await team.ask(batch_id=5)).id)
    await _tell(house, 5002, REJECTED, batch_id=5)
    for key in ({"batch_id": 5}, {"archive_id": first.id}):
        assert await _refusal(team.download(**key)) == "ARCHIVE_NOT_READY"
    # enqueue leaves hidden images out from now on, and the next archive is without them.
    variants = house.enqueue.batches["red", 5].variants
    rejected = list(variants[1].outputs)
    del variants[1].outputs[:]
    second = await team.settled((await team.ask(batch_id=5)).id)
    assert (second.image_count, second.id == first.id) == (2, False)
    assert (await team.download(batch_id=5))[0] == second
    assert await _refusal(team.download(archive_id=first.id)) == "ARCHIVE_NOT_READY"
    # Approved after all: the first archive is right again.
    await _tell(house, 5002, APPROVED, batch_id=5)
    variants[1].outputs.extend(rejected)
    assert await team.ask(batch_id=5) == first
    assert (await team.download(batch_id=5))[0] == first


async def test_a_rejection_while_a_batch_is_asked_for_is_not_missed(house: House) -> None:
    """It is taken in between what enqueue says and the row of the archive."""
    await house.batch(5, [("a", 2), ("b", 2)])
    variants = house.enqueue.batches["red", 5].variants

    async def reject() -> None:
        await _tell(house, 5002, REJECTED, batch_id=5)
        del variants[1].outputs[:]

    house.enqueue.after_outputs = reject
    team = house.team()
    missed = await team.settled((await team.ask(batch_id=5)).id)
    assert await _refusal(team.download(archive_id=missed.id)) == "ARCHIVE_NOT_READY"
    again = await team.settled((await team.ask(batch_id=5)).id)
    assert again.image_count == 2
    await team.download(archive_id=again.id)


async def test_a_batch_may_be_asked_for_again_under_each_request_id(house: House) -> None:
    await house.batch(5, [("a", 1)])
    team = house.team()
    archive = await team.ask("r1", batch_id=5)
    assert (await team.ask("r2", batch_id=5)).id == archive.id
    assert (await team.ask("r2", batch_id=5)).id == archive.id


async def _refusal(call: Any) -> str:
    with pytest.raises(FailedPreconditionError) as raised:
        await call
    return raised.value.reason
