"""Storing requests, with nothing running: who gets a place, what is kept, what is sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from libs.common import outbox
from libs.common.errors import AlreadyExistsError, FailedPreconditionError
from libs.common.request_keys import RequestKey
from services.enqueue import tables
from services.enqueue.domain import JobSpec
from services.enqueue.store import ledger
from services.enqueue.usecases.crediting import grant_credits
from services.enqueue.usecases.deps import Limits
from services.enqueue.usecases.storing import NewBatch, NewRequest, Stored, StoreRequests
from tests.integration.enqueue.rooms import SPEC, Rooms, deps_of

LIMITS = Limits(live_jobs_per_team=3)


def storing(rooms: Rooms) -> StoreRequests:
    return StoreRequests(deps_of(rooms.db, LIMITS))


def key(request_id: str = "", body: str = "a", team: str = "red") -> RequestKey:
    return RequestKey(team, "EnqueueGeneration", request_id, body)


def specs(*priorities: int, team: str = "red") -> tuple[JobSpec, ...]:
    return tuple(
        replace(SPEC, team=team, priority=priority, pin_token=f"{team}-{n}-{priority}")
        for n, priority in enumerate(priorities)
    )


def admitted(stored: Stored) -> list[int]:
    """Which of its jobs have a place, by their order."""
    return [n for n, job in enumerate(stored.jobs) if job.admitted_at is not None]


async def sent(rooms: Rooms) -> int:
    async with rooms.db.read_all() as tx:
        return await outbox.count(tx, tables.outbox)


async def test_places_go_to_the_highest_priorities_and_no_further_than_the_limit(
    rooms: Rooms,
) -> None:
    store = storing(rooms)
    five = await store(NewRequest(key(), specs(0, 0, 5, 0, 9)))
    assert admitted(five) == [0, 2, 4]
    assert await sent(rooms) == 5 + 3, "the pins of all, and a doorbell for each that has a place"
    [last] = (await store(NewRequest(key(), specs(99)))).jobs
    assert last.admitted_at is None
    other = await store(NewRequest(key(team="blue"), specs(0, 0, team="blue")))
    assert admitted(other) == [0, 1]


async def test_a_new_job_does_not_overtake_one_that_waits(rooms: Rooms) -> None:
    await rooms.add()
    assert admitted(await storing(rooms)(NewRequest(key(), specs(9)))) == []


async def test_a_request_id_makes_one_thing(rooms: Rooms) -> None:
    store = storing(rooms)
    assert await store.made_before(key("r1")) is None
    batch = await store(NewRequest(key("r1"), specs(0, 0), NewBatch("summer")))
    assert {job.spec.batch_id for job in batch.jobs} == {batch.resource_id}
    assert await store(NewRequest(key("r1"), specs(7))) == Stored(batch.resource_id)
    assert await store.made_before(key("r1")) == batch.resource_id
    assert await store.made_before(key("")) is None
    with pytest.raises(AlreadyExistsError):
        await store(NewRequest(key("r1", body="b"), specs(7)))
    with pytest.raises(AlreadyExistsError):
        await store.made_before(key("r1", body="b"))
    others = [
        store(NewRequest(key("r2"), specs(1))),
        store(NewRequest(key("r2"), specs(2))),
        store(NewRequest(key(), specs(3))),
    ]
    first, repeated, free = await asyncio.gather(*others)
    assert repeated.resource_id == first.resource_id == first.jobs[0].id
    assert len(free.jobs) == 1


async def test_a_refused_request_leaves_nothing_and_lets_the_next_pass(rooms: Rooms) -> None:
    store = storing(rooms)
    async with rooms.db.duty() as tx:
        await ledger.open_account(tx, "red")
        await ledger.grant(tx, "red", 2, "")
    refused, stored = await asyncio.gather(
        store(NewRequest(key("r1"), specs(0, 0, 0))),
        store(NewRequest(key("r2"), specs(1, 1))),
        return_exceptions=True,
    )
    assert isinstance(refused, FailedPreconditionError)
    assert refused.metadata == {"required": "3", "remaining": "2"}
    assert isinstance(stored, Stored)
    assert [job.hold and job.hold.held for job in stored.jobs] == [1, 1]
    assert await store.made_before(key("r1")) is None
    async with rooms.db.read_all() as tx:
        assert await ledger.find(tx, "red") == ledger.Account(2, 0, 2, 0)


async def test_a_grant_is_given_once_and_says_in_the_audit_what_it_was(rooms: Rooms) -> None:
    for _ in range(2):
        account = await grant_credits(
            deps_of(rooms.db, LIMITS), key("g1"), 7, actor="ann", note="hello"
        )
        assert account == ledger.Account(7, 7, 0, 0)
    async with rooms.db.duty() as tx:
        [entry] = await ledger.page(tx, "red", job_id=0, before_id=None, limit=9)
        [row] = await tx.execute(sa.select(tables.audit_entries))
    assert (row.team, row.actor, row.action) == ("red", "ann", "GRANT_CREDITS")
    assert row.details == {"amount": 7, "note": "hello", "entry_id": entry.id}


def test_each_quality_has_its_own_limit_of_references() -> None:
    limits = Limits(max_references_fast=3, max_references_high=14)
    assert [limits.max_references(quality) for quality in ("fast", "high")] == [3, 14]
