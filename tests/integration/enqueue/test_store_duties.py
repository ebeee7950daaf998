"""The duties, a round at a time: what is rung again and when, who is admitted, who is forgotten."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from libs.common import outbox
from services.enqueue import relay, tables
from services.enqueue.domain import JobState
from services.enqueue.relay import Reaper
from services.enqueue.store import jobs, leases
from services.enqueue.store.leases import Presence
from services.enqueue.usecases.deps import Limits
from tests.fakes.clock import ManualClock
from tests.integration.enqueue.rooms import Rooms, deps_of

LIMITS = Limits(first_ring_seconds=100, max_ring_seconds=3000, lease_seconds=30)
DAY = 24 * 3600


async def sent(rooms: Rooms) -> int:
    async with rooms.db.read_all() as tx:
        return await outbox.count(tx, tables.outbox)


@pytest.mark.parametrize(("rings", "pause"), [(0, 200), (1, 400), (3, 1600), (4, 3000), (99, 3000)])
async def test_the_pause_between_rings_doubles_up_to_its_most(
    rooms: Rooms, rings: int, pause: int
) -> None:
    [job] = await rooms.add(admitted=True)
    await rooms.change(job.id, ring_at=-10, rings=rings)
    before = await rooms.now()
    assert not await relay.sweep(deps_of(rooms.db, LIMITS)), "there is no more"
    row = await rooms.row(job.id)
    assert row.rings == rings + 1
    assert abs((row.ring_at - before).total_seconds() - pause) < pause / 4
    assert await sent(rooms) == 1
    assert not await relay.sweep(deps_of(rooms.db, LIMITS))
    assert await sent(rooms) == 1, "it rings once in a pause"


async def test_a_duty_that_found_as_much_as_it_may_has_more_to_do(rooms: Rooms) -> None:
    await rooms.add(relay.BATCH, admitted=True)
    reaper = Reaper(deps_of(rooms.db, LIMITS), ManualClock(), 1.0)
    async with rooms.db.duty() as tx:
        await tx.execute(sa.update(tables.jobs).values(ring_at=tx.after(-10)))
    assert await relay.sweep(deps_of(rooms.db, LIMITS))
    async with rooms.db.duty() as tx:
        claimed = {"state": JobState.RUNNING, "lease_expires_at": tx.after(-10)}
        await tx.execute(sa.update(tables.jobs).values(claimed))
    assert await reaper.round()
    assert not await reaper.round()


async def test_a_job_whose_back_off_is_over_gets_a_place_again(rooms: Rooms) -> None:
    over, backing_off = await rooms.add(2)
    await rooms.change(over.id, not_before=-1)
    await rooms.change(backing_off.id, not_before=1000)
    assert await relay.readmit(deps_of(rooms.db, LIMITS)) is False
    assert (await rooms.row(over.id)).admitted_at is not None
    assert (await rooms.row(backing_off.id)).admitted_at is None
    assert await sent(rooms) == 1


async def test_a_worker_is_forgotten_after_a_day(rooms: Rooms) -> None:
    async with rooms.db.duty() as tx:
        for name, seconds in (("old", DAY + 600), ("new", DAY - 600)):
            await leases.present(tx, Presence(name, (), 1), 0)
            seen = sa.update(tables.workers).where(tables.workers.c.name == name)
            await tx.execute(seen.values(seen_at=tx.after(-seconds)))
    assert await relay.forget_workers(deps_of(rooms.db, LIMITS)) is False
    async with rooms.db.read_all() as tx:
        known = (await tx.execute(sa.select(tables.workers.c.name))).scalars().all()
    assert known == ["new"]


async def test_an_embedded_house_begins_with_no_lease_and_every_doorbell(rooms: Rooms) -> None:
    running = await rooms.running()
    [admitted] = await rooms.add(admitted=True)
    await relay.recover_embedded(deps_of(rooms.db, LIMITS))
    async with rooms.db.read_all() as tx:
        assert [lease.job_id for lease in await leases.expired(tx, 9)] == [running.id]
    assert not await relay.sweep(deps_of(rooms.db, LIMITS))
    assert (await rooms.row(admitted.id)).rings == 1


@pytest.mark.parametrize(("away", "lost"), [(35.9, 1), (36.1, 0)])
async def test_three_rounds_and_two_seconds_are_an_outage(
    rooms: Rooms, away: float, lost: int
) -> None:
    clock = ManualClock()
    reaper = Reaper(deps_of(rooms.db, LIMITS), clock, 11.3)
    for _ in range(4):
        await reaper.round()
        clock.move(10)
    await reaper.round()
    job = await rooms.running()
    await rooms.change(job.id, lease_expires_at=-10)
    clock.move(away)
    assert not await reaper.round()
    async with rooms.db.read_all() as tx:
        found = await jobs.find(tx, job.id)
    assert found is not None
    assert (found.state, found.lost_workers) == (JobState.QUEUED, lost)
