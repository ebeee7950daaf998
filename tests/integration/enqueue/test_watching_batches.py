"""Watching a batch: every event of its jobs, the batch as it stands, and always the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import batch_pb2, execution_pb2, execution_pb2_grpc, job_pb2
from libs.common.clock import SystemClock
from libs.common.db import Database
from libs.common.errors import InvalidArgumentError, NotFoundError
from services.enqueue import tables
from services.enqueue.domain import EventKind, Position
from services.enqueue.store import events
from services.enqueue.watch.updates import MAILBOX
from tests.integration.enqueue.house import PATIENCE_SECONDS, House, open_house
from tests.integration.enqueue.listening import Listener, listening, numbers, open_event
from tests.integration.enqueue.rooms import Rooms
from tests.support.eventually import eventually

NOWHERE = 10**9


async def batch_of(house: House, jobs: Iterable[Any], team: str = "red") -> int:
    """Makes a batch of jobs that are there already, as if they had been enqueued with it."""
    db = Database(house.urls.app, duty_url=house.urls.duty, clock=SystemClock())
    ids = [job.id for job in jobs]
    async with db.duty() as tx:
        batch = sa.insert(tables.batches).values(team=team, name="spring", created_at=tx.now())
        batch_id: int = (await tx.execute(batch.returning(tables.batches.c.id))).scalar_one()
        of_jobs = sa.update(tables.jobs).where(tables.jobs.c.id.in_(ids))
        await tx.execute(of_jobs.values(batch_id=batch_id))
        of_events = sa.update(tables.events).where(tables.events.c.job_id.in_(ids))
        await tx.execute(of_events.values(batch_id=batch_id))
    await db.stop()
    return batch_id


async def zip_made(house: House, job_id: int) -> None:
    client = house.client(house.service_token("packager"))
    request = execution_pb2.RecordArchiveRequest(
        team="red", job_id=job_id, state=job_pb2.ARCHIVE_STATE_READY, file_id=9, filename="a.zip"
    )
    stub = execution_pb2_grpc.ExecutionServiceStub(client.channel)
    await client.unary(stub.RecordArchive, request, timeout_seconds=PATIENCE_SECONDS)


async def test_a_batch_is_watched_to_its_end_zips_included(house: House) -> None:
    team, worker = house.team(), house.worker()
    one, two = await team.generate(), await team.generate(number_of_variations=2)
    await team.generate()  # not of the batch
    batch_id = await batch_of(house, [one, two])
    listener = Listener.batch(team, batch_id)
    running = asyncio.ensure_future(listener.run())  # noqa: TID251 - awaited below
    expected = [*numbers(one, 2), *numbers(two, 2)]
    await eventually(lambda: listener.messages and listener.messages[-1].HasField("snapshot"))
    assert listener.events == expected
    assert listener.messages[-1].batch.state == batch_pb2.BATCH_STATE_ACTIVE
    await worker.make_all(two.id)
    await worker.make_all(one.id)
    expected += [*numbers(two, 6, 3), *numbers(one, 5, 3)]
    await eventually(lambda: listener.heard(expected))
    assert listener.messages[-1].batch.state == batch_pb2.BATCH_STATE_SUCCEEDED
    assert not running.done()  # a zip is still to come
    await zip_made(house, two.id)
    async with asyncio.timeout(10):
        messages = await running
    assert listener.events == [*expected, (two.id, 7)]
    assert [m.final for m in messages] == [False] * (len(messages) - 1) + [True]
    last = messages[-1].batch
    assert (last.id, last.name, list(last.job_ids)) == (batch_id, "spring", [one.id, two.id])
    assert (last.jobs.total, last.jobs.succeeded) == (2, 2)
    assert (last.images.total, last.images.done) == (3, 3)
    assert house.app.hub.watchers == 0


async def test_a_batch_that_ended_long_ago_still_ends_its_watch(house: House) -> None:
    team, worker = house.team(), house.worker()
    made, dropped = await team.generate(), await team.generate()
    await worker.make_all(made.id)
    await team.cancel(dropped.id)
    batch_id = await batch_of(house, [made, dropped])
    messages = await Listener.batch(team, batch_id).run()
    assert messages[-1].final
    assert messages[-1].HasField("snapshot")
    assert messages[-1].batch.state == batch_pb2.BATCH_STATE_CANCELED
    events = [m.event for m in messages if m.HasField("event")]
    assert sorted((e.job_id, e.sequence) for e in events) == [
        *numbers(made, 5),
        *numbers(dropped, 3),
    ]
    for position, message in enumerate(messages):
        again = Listener.batch(team, batch_id, message.cursor)
        assert (await again.run())[-1].final
        assert [m.event for m in again.messages if m.HasField("event")] == events[position + 1 :]


async def test_strangers_and_wrong_cursors_are_refused(house: House) -> None:
    team = house.team()
    batch_id = await batch_of(house, [await team.generate()])
    for who, which in ((house.team("blue"), batch_id), (team, NOWHERE)):
        with pytest.raises(NotFoundError):
            await Listener.batch(who, which).run()
    for cursor in ("1.2", f"{2**63 - 1}.1.1"):
        with pytest.raises(InvalidArgumentError) as raised:
            await Listener.batch(team, batch_id, cursor).run()
        assert raised.value.reason == "BAD_CURSOR"
    with pytest.raises(InvalidArgumentError):
        await Listener.batch(team, 0).run()


async def test_a_slow_reader_is_skipped_forward_and_told(house: House) -> None:
    team, worker = house.team(), house.worker()
    jobs = [await team.generate(number_of_variations=10) for _ in range(7)]
    batch_id = await batch_of(house, jobs)
    slow = house.app.hub.watch_batch("red", batch_id, None)
    while (await anext(slow)).event is not None:
        pass  # the replay, to the snapshot
    listener = Listener.batch(team, batch_id)
    waiting = asyncio.ensure_future(anext(slow))  # noqa: TID251 - awaited below
    async with listening(listener):
        for job in jobs:
            await worker.make_all(job.id)
            # One job at a time, or the listener is skipped forward as well.
            await eventually(partial(listener.heard_number, (job.id, 14)))
    assert (await waiting).event is not None
    found = [await anext(slow)]
    while found[-1].skipped_from is None:
        found.append(await anext(slow))
    assert len(found) <= MAILBOX
    assert found[-1].whole is not None
    assert found[-1].event is None
    await slow.aclose()  # type: ignore[attr-defined]  # a generator


@pytest.mark.real
async def test_no_end_is_told_before_late_commits(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with open_house(urls, HEARTBEAT_SECONDS="0.1") as house:
        team, worker = house.team(), house.worker()
        job, other = await team.generate(), await team.generate()
        batch_id = await batch_of(house, [job])
        listener = Listener.batch(team, batch_id)
        # The open event is of no batch, and older than what follows all the same.
        async with listening(listener), open_event(urls, other.id) as commit:
            await worker.make_all(job.id)
            beats = len(listener.messages) + 3
            await eventually(lambda: len(listener.messages) >= beats)
            assert listener.events == numbers(job, 2)
            late = Listener.batch(team, batch_id)
            async with listening(late):
                await eventually(lambda: len(late.messages) > 3 + 2)
                assert not any(message.final for message in late.messages)
                await commit()
                for one in (listener, late):
                    await eventually(partial(one.heard, numbers(job, 5)))
                    assert one.messages[-1].final


@pytest.mark.real
async def test_a_page_that_is_full_may_be_the_last(rooms: Rooms) -> None:
    """Else nothing would come behind it, and nobody would be told that it was the end."""
    jobs = await rooms.add(3)
    async with rooms.db.duty() as tx:
        await events.add(tx, [events.about(job, EventKind.QUEUED) for job in jobs])
    async with rooms.db.read("red") as tx:
        start = Position(0, 0, 0)
        pages = [await events.after_position(tx, start, size, team="red") for size in (2, 3, 4)]
    assert [len(page.events) for page in pages] == [2, 3, 3]
    assert [page.more for page in pages] == [True, False, False]


async def test_any_replica_serves_any_watcher(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with open_house(urls) as one, open_house(urls, SWEEP_SECONDS="60") as two:
        job = await one.team().generate()
        batch_id = await batch_of(one, [job])
        two.team()
        here, there = Listener.batch(one.team(), batch_id), Listener.batch(two.team(), batch_id)
        async with listening(here, there):
            # The second house does not sweep: only a wake-up can have told it.
            await one.worker().make_all(job.id)
            for listener in (here, there):
                await eventually(partial(listener.heard, numbers(job, 5)))
                assert listener.messages[-1].final
