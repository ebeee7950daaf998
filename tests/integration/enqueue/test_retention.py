"""What is too old goes in bounded steps; what is live, due or owed stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.db import Database
from libs.common.errors import NotFoundError
from libs.common.retention import DAY_SECONDS
from services.enqueue import tables
from services.enqueue.store import retention
from services.enqueue.usecases.retaining import EventRetention
from tests.fakes.clock import ManualClock
from tests.integration.enqueue.house import CLOCK, House, Team, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

DAY = timedelta(days=1)


@pytest.fixture
async def db(house: House) -> AsyncIterator[Database]:
    """The house's database, for the duty role."""
    database = Database(house.urls.app, duty_url=house.urls.duty, clock=CLOCK, pool_size=3)
    yield database
    await database.stop()


async def done(house: House, team: Team, **fields: Any) -> int:
    """A job that has ended."""
    job = await team.generate(**fields)
    await house.worker().make_all(job.id)
    return job.id


async def change(db: Database, table: sa.Table, *where: Any, **values: Any) -> None:
    async with db.duty() as tx:
        await tx.execute(sa.update(table).where(*where).values(**values))


async def age(db: Database, days: float, *job_ids: int) -> None:
    """Lets jobs have been made and ended so long ago."""
    at = CLOCK.now() - days * DAY
    jobs = tables.jobs.c
    await change(db, tables.jobs, jobs.id.in_(job_ids), created_at=at)
    ended = (jobs.id.in_(job_ids), jobs.finished_at.is_not(None))
    await change(db, tables.jobs, *ended, finished_at=at)


async def ids(db: Database, table: sa.Table) -> list[int]:
    async with db.read_all() as tx:
        return list((await tx.execute(sa.select(table.c.id).order_by(table.c.id))).scalars())


async def count(db: Database, table: sa.Table) -> int:
    async with db.read_all() as tx:
        return int(await tx.scalar(sa.select(sa.func.count()).select_from(table)))


async def removed(db: Database, days: float = 10, limit: int = 100) -> int:
    """One step over jobs."""
    async with db.duty() as tx:
        return await retention.remove_jobs(tx, days * DAY_SECONDS, limit)


async def test_old_jobs_go_with_their_images_and_events(house: House, db: Database) -> None:
    team, other = house.team(), house.team("blue")
    old, fresh, theirs = [await done(house, t) for t in (team, team, other)]
    await age(db, 11, old, theirs)
    assert await removed(db) == 2
    assert await ids(db, tables.jobs) == [fresh]
    assert await count(db, tables.images) == 1
    assert {event.job_id for event in await team.events(fresh)} <= {0, fresh}
    with pytest.raises(NotFoundError):
        await team.get(old)
    with pytest.raises(NotFoundError):
        await team.events(old)
    with pytest.raises(NotFoundError):
        _ = [message async for message in team.watch(old)]


async def test_what_is_live_or_due_stays(house: House, db: Database) -> None:
    team = house.team()
    queued, running = (await team.generate()).id, (await team.generate()).id
    await house.worker().claim(running)
    zipping = await done(house, team, number_of_variations=2)
    assert (await team.get(zipping)).archive.state == job_pb2.ARCHIVE_STATE_PENDING
    await age(db, 11, queued, running, zipping)
    assert await removed(db) == 0
    await change(db, tables.jobs, tables.jobs.c.id == zipping, archive_state="FAILED")
    assert await removed(db) == 1
    assert await ids(db, tables.jobs) == [queued, running]


async def test_credits_outlive_their_jobs(house: House, db: Database) -> None:
    team, ops = house.team(), house.ops()
    await ops.grant("red", 10)
    job = await done(house, team)
    before, entries = await team.credits(), await team.entries()
    assert len(entries) > 1
    await age(db, 11, job)
    await change(db, tables.jobs, tables.jobs.c.id == job, credits_released=None)
    assert await removed(db) == 0  # not settled: the account waits for it
    await change(db, tables.jobs, tables.jobs.c.id == job, credits_released=0)
    assert await removed(db) == 1
    assert (await team.credits(), await team.entries()) == (before, entries)


async def test_a_retried_job_goes_with_its_retry(house: House, db: Database) -> None:
    team = house.team()
    first, second, third = [await done(house, team) for _ in range(3)]
    for job, retry_of in ((second, first), (third, second)):
        await change(db, tables.jobs, tables.jobs.c.id == job, retry_of=retry_of)
    await age(db, 11, first, second)
    assert await removed(db) == 0
    await age(db, 11, third)
    assert await removed(db, limit=1) == 3


async def test_steps_are_bounded(house: House, db: Database) -> None:
    team = house.team()
    await age(db, 11, *[await done(house, team) for _ in range(5)])
    assert [await removed(db, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_batches_go_with_their_last_job(house: House, db: Database) -> None:
    job = await done(house, house.team())
    old = CLOCK.now() - 11 * DAY
    async with db.duty() as tx:
        for created_at in (old, old, CLOCK.now()):
            values = {"team": "red", "name": "", "created_at": created_at}
            await tx.execute(sa.insert(tables.batches).values(**values))
    batches = await ids(db, tables.batches)
    await change(db, tables.jobs, tables.jobs.c.id == job, batch_id=batches[0], variant_index=1)
    async with db.duty() as tx:
        assert await retention.remove_batches(tx, 10 * DAY_SECONDS, 100) == 1
    assert await ids(db, tables.batches) == [batches[0], batches[2]]


async def test_a_job_whose_events_are_gone_can_be_read_and_watched(
    house: House, db: Database
) -> None:
    team = house.team()
    job, fresh = await done(house, team), await done(house, team)
    last = (await team.events(job))[-1].sequence
    await age(db, 11, job)
    assert not await EventRetention(db, ManualClock(), 10).round()
    assert await team.events(job) == []
    assert len(await team.events(fresh)) == last
    assert (await team.get(job)).state == job_pb2.JOB_STATE_SUCCEEDED
    for after in (0, 2, last):
        messages = [message async for message in team.watch(job, after)]
        assert [message.final for message in messages] == [False] * (len(messages) - 1) + [True]
        assert messages[-1].sequence == last
        assert messages[-1].job.state == job_pb2.JOB_STATE_SUCCEEDED
        skipped = [m.snapshot.skipped_from for m in messages if m.snapshot.skipped_from]
        assert skipped == ([] if after == last else [after + 1])


async def test_an_event_that_came_after_the_clean_up_leaves_no_silent_gap(
    house: House, db: Database
) -> None:
    team = house.team()
    job = await done(house, team)
    last = (await team.events(job))[-1].sequence
    async with db.duty() as tx:
        older = sa.and_(tables.events.c.job_id == job, tables.events.c.sequence < last)
        await tx.execute(sa.delete(tables.events).where(older))
    for after in (0, last - 2, last - 1):
        messages = [message async for message in team.watch(job, after)]
        assert messages[-1].final
        assert messages[-1].sequence == last
        skipped = [m.snapshot.skipped_from for m in messages if m.snapshot.skipped_from]
        told = [m.event.sequence for m in messages if m.HasField("event")]
        assert (skipped, told) == (([], [last]) if after == last - 1 else ([after + 1], []))


async def test_events_go_a_few_jobs_at_a_time(house: House, db: Database) -> None:
    team = house.team()
    live = (await team.generate()).id
    jobs = [await done(house, team) for _ in range(4)]
    fresh = await done(house, team)
    await age(db, 11, live, *jobs)
    each = len(await team.events(fresh))
    clock = ManualClock()
    events = EventRetention(db, clock, 10, jobs=2)
    left = []
    for more in (True, True, False):
        assert await events.round() is more
        left.append(await count(db, tables.events))
    live_has = len(await team.events(live))
    assert left == [live_has + each * n for n in (4, 2, 1)]
    assert clock.monotonic() > 0  # it pauses between two rounds
    assert not await EventRetention(db, clock, 0).round()


async def test_old_keys_and_audit_entries_go(urls: DatabaseUrls) -> None:
    days = {"RETENTION_KEYS_DAYS": "10", "RETENTION_AUDIT_DAYS": "10", "RETENTION_SECONDS": "0.1"}
    async with open_house(urls, **days) as house:
        db = Database(urls.app, duty_url=urls.duty, clock=CLOCK, pool_size=3)
        team = house.team()
        for request_id in ("one", "two"):
            await done(house, team, request_id=request_id)
        async with db.duty() as tx:
            for at in (CLOCK.now() - 11 * DAY, CLOCK.now()):
                values = {"team": "red", "actor": "a", "action": "B", "details": {}, "at": at}
                await tx.execute(sa.insert(tables.audit_entries).values(**values))
        keys = tables.idempotency_keys
        await change(db, keys, keys.c.request_id == "one", created_at=CLOCK.now() - 11 * DAY)

        async def gone() -> bool:
            return await count(db, keys) == 1 == await count(db, tables.audit_entries)

        await eventually(gone)
        first, second = await ids(db, tables.jobs)
        assert (await team.generate(request_id="two")).id == second
        assert (await team.generate(request_id="one")).id > second > first
        await db.stop()


async def test_a_replay_of_a_removed_job_is_not_found(house: House, db: Database) -> None:
    team = house.team()
    job = await done(house, team, request_id="one")
    await age(db, 11, job)
    assert await removed(db) == 1
    with pytest.raises(NotFoundError):
        await team.generate(request_id="one")
    listed = await team.call("ListJobs", enqueue_pb2.ListJobsRequest())
    assert list(listed.jobs) == []
