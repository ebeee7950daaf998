"""Leases: whose are renewed, which have run out, and what is done to all of them at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from services.enqueue import tables
from services.enqueue.domain import Job, JobState
from services.enqueue.store import leases
from services.enqueue.store.leases import ExpiredLease, Presence
from tests.integration.enqueue.rooms import LONG, Rooms


def lease_of(job: Job) -> ExpiredLease:
    return ExpiredLease(job.id, job.spec.team, job.fence)


async def test_a_lease_is_renewed_by_its_fence_alone(rooms: Rooms) -> None:
    mine, theirs, left = [await rooms.running() for _ in range(3)]
    over = await rooms.ended()
    for job in (mine, theirs, left):
        await rooms.change(job.id, lease_expires_at=10)
    held = {mine.id: mine.fence, theirs.id: theirs.fence + 1, over.id: over.fence}
    async with rooms.db.duty() as tx:
        assert await leases.renew(tx, {}, LONG) == set()
        assert await leases.renew(tx, held, LONG) == {mine.id}
    now = await rooms.now()
    ends = [(await rooms.row(job.id)).lease_expires_at for job in (mine, theirs, left)]
    assert [end - now > timedelta(seconds=LONG / 2) for end in ends] == [True, False, False]


async def test_only_running_jobs_have_a_fence_to_ask_for(rooms: Rooms) -> None:
    running, other, over = await rooms.running(), await rooms.running(), await rooms.ended()
    async with rooms.db.read_all() as tx:
        asked = [running.id, over.id]
        assert await leases.fences(tx, asked) == {running.id: running.fence}
        assert other.id in await leases.fences(tx, [other.id])


async def test_waits_for_a_rate_are_noted_on_running_jobs(rooms: Rooms) -> None:
    first, second, left = [await rooms.running() for _ in range(3)]
    over = await rooms.ended()
    now = await rooms.now()
    waits = {job.id: now + timedelta(seconds=n) for n, job in enumerate((second, first, over), 1)}
    async with rooms.db.duty() as tx:
        await leases.note_rate_waits(tx, waits)
    noted = [(await rooms.row(job.id)).rate_wait_until for job in (second, first, over, left)]
    assert noted == [waits[second.id], waits[first.id], None, None]


async def test_a_worker_is_present_once_and_forgotten_when_it_is_silent(rooms: Rooms) -> None:
    async def known() -> list[tuple[str, list[str], int, int]]:
        async with rooms.db.read_all() as tx:
            rows = await tx.execute(sa.select(tables.workers).order_by(tables.workers.c.name))
            return [(row.name, row.lanes, row.slots, row.running) for row in rows]

    worker = Presence("w1", ("image_generation.fast",), 4)
    async with rooms.db.duty() as tx:
        await leases.present(tx, worker, 1)
        await leases.present(tx, replace(worker, name="w2"), 1)
        await leases.present(tx, replace(worker, lanes=("a", "b"), slots=5), 3)
    assert await known() == [("w1", ["a", "b"], 5, 3), ("w2", ["image_generation.fast"], 4, 1)]
    async with rooms.db.duty() as tx:
        silent = sa.update(tables.workers).where(tables.workers.c.name == "w1")
        await tx.execute(silent.values(seen_at=tx.after(-100)))
        await leases.forget_workers(tx, 200)
    assert len(await known()) == 2
    async with rooms.db.duty() as tx:
        await leases.forget_workers(tx, 50)
    assert [worker[0] for worker in await known()] == ["w2"]
    async with rooms.db.duty() as tx:  # it is seen again, now
        silent = sa.update(tables.workers).values(seen_at=tx.after(-100))
        await tx.execute(silent)
        await leases.present(tx, replace(worker, name="w2"), 1)
        await leases.forget_workers(tx, 50)
    assert [worker[0] for worker in await known()] == ["w2"]


async def test_expired_leases_come_longest_first_and_are_looked_at_again(rooms: Rooms) -> None:
    short, long, alive = [await rooms.running(team=team) for team in ("red", "blue", "red")]
    await rooms.change(short.id, lease_expires_at=-5)
    await rooms.change(long.id, lease_expires_at=-50)
    queued = await rooms.running()
    await rooms.change(queued.id, state="QUEUED", lease_expires_at=-70)
    async with rooms.db.duty() as tx:
        assert await leases.expired(tx, 9) == [lease_of(long), lease_of(short)]
        assert await leases.expired(tx, 1) == [lease_of(long)]
        assert await leases.still_expired(tx, lease_of(short))
        assert not await leases.still_expired(tx, lease_of(alive))
        assert not await leases.still_expired(tx, lease_of(queued))
        assert not await leases.still_expired(tx, replace(lease_of(short), fence=9))
        assert not await leases.still_expired(tx, replace(lease_of(short), job_id=10**9))


async def test_an_embedded_house_takes_all_leases_back_and_rings_for_all(rooms: Rooms) -> None:
    running = [await rooms.running(), await rooms.running(team="blue")]
    over = await rooms.ended()
    [admitted] = await rooms.add(admitted=True)
    [waiting] = await rooms.add()
    async with rooms.db.duty() as tx:
        await leases.revoke_all(tx)
        await leases.ring_all(tx)
        found = await leases.expired(tx, 9)
        now = await tx.scalar(sa.select(tx.now()))
    assert {lease.job_id for lease in found} == {job.id for job in running}
    assert (await rooms.row(admitted.id)).ring_at <= now
    for job in (waiting, over, *running):
        assert (await rooms.row(job.id)).ring_at is None
    assert (await rooms.row(over.id)).state == JobState.SUCCEEDED
    assert (await rooms.row(over.id)).lease_expires_at is None


async def test_the_leases_of_one_worker_are_taken_back(rooms: Rooms) -> None:
    mine, theirs, over = await rooms.running(), await rooms.running(), await rooms.ended()
    await rooms.change(theirs.id, worker="w2")
    async with rooms.db.duty() as tx:
        await leases.revoke(tx, "w1")
        assert await leases.expired(tx, 9) == [lease_of(mine)]
    assert (await rooms.row(over.id)).lease_expires_at is None


async def test_the_last_event_numbers_of_jobs(rooms: Rooms) -> None:
    queued, admitted = (await rooms.add())[0], (await rooms.add(admitted=True))[0]
    async with rooms.db.read_all() as tx:
        numbers = await leases.watched_sequences(tx, [queued.id, admitted.id])
        assert numbers == {queued.id: 1, admitted.id: 2}
        assert await leases.watched_sequences(tx, [queued.id]) == {queued.id: 1}
