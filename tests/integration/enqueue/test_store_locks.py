"""Row locks, which PostgreSQL alone has: what is locked, how hard, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.store import admission, jobs, leases, ledger
from services.enqueue.store.leases import ExpiredLease
from tests.integration.enqueue.rooms import Rooms, open_rooms
from tests.support.eventually import eventually

pytestmark = pytest.mark.real

TEAMS = ("cyan", "blue", "amber")  # as they come: not in the order of their names
Lock = Callable[[Tx, Any], Awaitable[Any]]


@pytest.fixture(scope="module")
async def rooms(postgres_templates: Any) -> AsyncIterator[Rooms]:
    async with open_rooms(postgres_templates.database("enqueue")) as rooms:
        for team in TEAMS:
            job = await rooms.running(team=team)
            await rooms.change(job.id, lease_expires_at=-10)
            async with rooms.db.duty() as tx:
                await ledger.open_account(tx, team)
        yield rooms


async def free(rooms: Rooms, column: sa.Column[Any], value: Any, *, weakly: bool = False) -> bool:
    """Whether another transaction gets the row's lock at once; weakly: as a foreign key does."""
    row = sa.select(column).where(column == value)
    async with rooms.db.duty() as tx:
        found = row.with_for_update(key_share=True, read=weakly, skip_locked=True)
        return bool((await tx.execute(found)).all())


async def still_expired(tx: Tx, job_id: int) -> None:
    row = await tx.execute(sa.select(tables.jobs).where(tables.jobs.c.id == job_id))
    job = row.one()
    assert await leases.still_expired(tx, ExpiredLease(job.id, job.team, job.fence))


async def lock_teams(tx: Tx, team: str) -> None:
    await admission.lock_teams(tx, [team])


async def lock_accounts(tx: Tx, team: str) -> None:
    await ledger.lock(tx, [team])


@pytest.mark.parametrize(
    ("lock", "column", "value"),
    [
        (lock_teams, tables.teams.c.team, "blue"),
        (lock_accounts, tables.accounts.c.team, "blue"),
        (jobs.lock, tables.jobs.c.id, 1),
        (still_expired, tables.jobs.c.id, 1),
    ],
)
async def test_a_lock_keeps_writers_off_and_lets_foreign_keys_pass(
    rooms: Rooms, lock: Lock, column: sa.Column[Any], value: Any
) -> None:
    async with rooms.db.duty() as tx:
        assert await free(rooms, column, value)
        await lock(tx, value)
        assert not await free(rooms, column, value)
        assert await free(rooms, column, value, weakly=True)
    assert await free(rooms, column, value)


@pytest.mark.parametrize(
    ("lock", "column"),
    [(admission.lock_teams, tables.teams.c.team), (ledger.lock, tables.accounts.c.team)],
)
async def test_locks_are_taken_in_one_order_by_everybody(
    rooms: Rooms, lock: Lock, column: sa.Column[Any]
) -> None:
    async def lock_all() -> None:
        async with rooms.db.duty() as tx:
            await tx.execute(sa.text("SET LOCAL lock_timeout = 0"))  # a stall ends no waiting
            await lock(tx, TEAMS)

    async def first_is_locked() -> bool:
        return not await free(rooms, column, "amber")

    async with asyncio.TaskGroup() as group, rooms.db.duty() as tx:
        await lock(tx, ["blue"])
        group.create_task(lock_all())
        await eventually(first_is_locked, timeout_seconds=20)
        assert await free(rooms, column, "cyan"), "it comes after the one that is waited for"


async def test_two_sweeps_ring_for_different_jobs(rooms: Rooms) -> None:
    [job] = await rooms.add(admitted=True, team="ringing")
    await rooms.change(job.id, ring_at=-10)
    async with rooms.db.duty() as tx, rooms.db.duty() as other:
        assert [late.id for late in await admission.to_ring(tx, 9)] == [job.id]
        assert await admission.to_ring(other, 9) == []
