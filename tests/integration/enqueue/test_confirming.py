"""What assets has not heard is said again, until it has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import job_pb2, messages_pb2
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED
from libs.common.clock import SystemClock
from libs.common.db import Database
from libs.common.errors import UnavailableError
from services.enqueue import tables
from services.enqueue.domain import JobState
from services.enqueue.store import confirming
from services.enqueue.store.confirming import Due
from services.enqueue.usecases.confirming import confirm_jobs
from services.enqueue.usecases.deps import Limits
from tests.integration.enqueue.house import open_house
from tests.integration.enqueue.rooms import Rooms, deps_of
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

SECONDS = 60.0


class Assets:
    """Has heard of all but `missed`, unless it is away."""

    def __init__(self, *missed: int, away: bool = False) -> None:
        self.missed = set(missed)
        self.away = away
        self.asked: dict[str, list[int]] = {}

    async def unheard(self, team: str, ended: Sequence[Due]) -> list[int]:
        if self.away:
            raise UnavailableError("away")
        self.asked[team] = sorted(one.job_id for one in ended)
        return [one.job_id for one in ended if one.job_id in self.missed]


async def confirm(rooms: Rooms, assets: Assets, limit: int = 100) -> bool:
    """One round."""
    return await confirm_jobs(deps_of(rooms.db, Limits(confirm_seconds=SECONDS)), assets, limit)


async def said(rooms: Rooms) -> list[tuple[str, int]]:
    """Routing keys and jobs of the messages so far, by number."""
    async with rooms.db.read_all() as tx:
        rows = await tx.execute(sa.select(tables.outbox).order_by(tables.outbox.c.id))
        return [(r.routing_key, messages_pb2.JobEnqueued.FromString(r.body).job_id) for r in rows]


async def test_an_end_that_was_not_heard_is_said_again_until_it_is(rooms: Rooms) -> None:
    missed, heard = await rooms.ended(), await rooms.ended(JobState.FAILED)
    blue = await rooms.ended(team="blue")
    early = await rooms.ended()
    for job in (missed, heard, blue):
        await rooms.change(job.id, confirm_at=-1)
    assets = Assets(missed.id)
    assert await confirm(rooms, assets) is False
    assert assets.asked == {"red": [missed.id, heard.id], "blue": [blue.id]}
    assert await said(rooms) == [(JOB_ENDED, missed.id)]
    dates = [(await rooms.row(job.id)).confirm_at for job in (heard, blue)]
    assert dates == [None, None]
    row = await rooms.row(missed.id)
    wait = (row.confirm_at - await rooms.now()).total_seconds()
    assert 4 * SECONDS < wait <= 5 * SECONDS, "its message may be on its way still"
    assert (await rooms.row(early.id)).confirm_at is not None
    assets.asked.clear()
    assert await confirm(rooms, assets) is False
    assert assets.asked == {}
    await rooms.change(missed.id, confirm_at=-1)
    assets.missed.clear()
    await confirm(rooms, assets)
    assert (await rooms.row(missed.id)).confirm_at is None
    assert await said(rooms) == [(JOB_ENDED, missed.id)]


async def test_of_a_job_that_goes_on_it_is_said_once_more(rooms: Rooms) -> None:
    [job] = await rooms.add()
    running = await rooms.running()
    for one in (job, running):
        await rooms.change(one.id, confirm_at=-1)
    assets = Assets()
    await confirm(rooms, assets)
    assert assets.asked == {}
    assert sorted(await said(rooms)) == [(JOB_ENQUEUED, job.id), (JOB_ENQUEUED, running.id)]
    assert [(await rooms.row(one.id)).confirm_at for one in (job, running)] == [None, None]


async def test_what_changes_while_assets_is_asked_is_left_alone(rooms: Rooms) -> None:
    """A review that was made meanwhile is another thing to have heard of."""
    job = await rooms.ended()
    await rooms.change(job.id, confirm_at=-1)
    async with rooms.db.duty() as tx:
        assert [one.job_id for one in await confirming.due(tx, 9, reviews=True)] == [job.id]
    await rooms.change(job.id, confirm_at=SECONDS)
    async with rooms.db.duty() as tx:
        assert await confirming.settle(tx, [job.id], again_seconds=None) == []
    assert (await rooms.row(job.id)).confirm_at is not None


async def test_nothing_is_settled_while_assets_is_away(rooms: Rooms) -> None:
    job = await rooms.ended()
    await rooms.change(job.id, confirm_at=-1)

    with pytest.raises(UnavailableError):
        await confirm(rooms, Assets(away=True))
    assert (await rooms.row(job.id)).confirm_at is not None
    assert await said(rooms) == []


async def test_a_review_is_to_be_known_only_where_reviews_hide_images(rooms: Rooms) -> None:
    job = await rooms.ended()
    await rooms.change(job.id, confirm_at=-1, reviewed_at=-5)
    async with rooms.db.read_all() as tx:
        found = [(await confirming.due(tx, 9, reviews=reviews))[0] for reviews in (True, False)]
    assert [one.reviewed_at is None for one in found] == [False, True]


async def test_a_full_round_says_that_there_may_be_more(rooms: Rooms) -> None:
    for _ in range(3):
        job = await rooms.ended()
        await rooms.change(job.id, confirm_at=-1)
    assets = Assets()
    assert [await confirm(rooms, assets, 2) for _ in range(3)] == [True, False, False]


async def test_a_service_asks_by_itself(urls: DatabaseUrls) -> None:
    """Over gRPC, with the review that is to be known."""
    async with open_house(urls, CONFIRM_SECONDS="0.2", REVIEW_REQUIRED="true") as house:
        team, worker = house.team(), house.worker()
        job = await team.generate()
        house.assets.unheard.add(job.id)
        await worker.make_all(job.id)
        await eventually(lambda: len(house.assets.asked) >= 2, what="it is asked again")
        assert {(one.job_id, one.review_time_us) for one in house.assets.asked} == {(job.id, 0)}
        house.assets.unheard.clear()

        async def settled() -> bool:
            db = Database(urls.app, duty_url=urls.duty, clock=SystemClock())
            async with db.read_all() as tx:
                left = await tx.scalar(sa.select(tables.jobs.c.confirm_at))
            await db.stop()
            return left is None

        await eventually(settled)
        assert (await team.get(job.id)).state == job_pb2.JOB_STATE_SUCCEEDED
