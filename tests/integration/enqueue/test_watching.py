"""Watching: replay, snapshot, tail, the end; cursors; two replicas; many watchers."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.db import Database
from libs.common.errors import InvalidArgumentError, NotFoundError, UnavailableError
from libs.common.lifecycle import TaskOwner
from services.enqueue.watch.jobs import JobSource
from services.enqueue.watch.sources import Scope
from tests.integration.enqueue.house import CLOCK, PATIENCE_SECONDS, House, Team, open_house
from tests.support.databases import DatabaseUrls, PostgresTemplates
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer

Messages = list[enqueue_pb2.WatchJobResponse]


async def collect(team: Team, job_id: int, after: int = 0) -> Messages:
    return [message async for message in team.watch(job_id, after)]


def sequences(messages: Messages) -> list[int]:
    return [m.event.sequence for m in messages if m.HasField("event")]


async def single(house: House, team: Team) -> Any:
    """A finished job of one image: no zip, so the watch ends with it."""
    job = await team.generate()
    await house.worker().make_all(job.id)
    return job


async def test_a_watch_shows_every_event_once_and_ends(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate()
    watching = asyncio.gather(*(collect(team, job.id) for _ in range(5)))
    await eventually(lambda: house.app.hub.watchers == 5)
    await worker.make_all(job.id)
    async with asyncio.timeout(10):
        all_messages = await watching
    for messages in all_messages:
        assert sequences(messages) == [1, 2, 3, 4, 5]
        assert [m.final for m in messages] == [False] * (len(messages) - 1) + [True]
        assert messages[-1].job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert house.app.hub.watchers == 0


async def test_a_job_that_ended_long_ago_still_ends_its_watch(house: House) -> None:
    team = house.team()
    job = await single(house, team)
    messages = await collect(team, job.id)
    assert sequences(messages) == [1, 2, 3, 4, 5]
    assert messages[-1].final
    assert messages[-1].HasField("snapshot")


async def test_a_cursor_takes_up_where_it_was(house: House) -> None:
    team = house.team()
    job = await single(house, team)
    for cursor in range(6):
        messages = await collect(team, job.id, cursor)
        assert sequences(messages) == list(range(cursor + 1, 6))
        assert messages[-1].final
        assert messages[-1].sequence == 5


async def test_wrong_cursors_and_strangers_are_refused(house: House) -> None:
    team = house.team()
    job = await single(house, team)
    for cursor in (-1, 6):
        with pytest.raises(InvalidArgumentError):
            await collect(team, job.id, cursor)
    with pytest.raises(NotFoundError):
        await collect(house.team("blue"), job.id)


async def test_a_pending_zip_keeps_the_watch_open(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(number_of_variations=2)
    await worker.make_all(job.id)
    watching = asyncio.ensure_future(collect(team, job.id))  # noqa: TID251 - awaited below
    await eventually(lambda: house.app.hub.watchers == 1)
    from contentshop.enqueue.v1 import execution_pb2  # noqa: PLC0415 - one use

    client = house.client(house.service_token("packager"))
    stub = type(worker.stub)(client.channel)
    request = execution_pb2.RecordArchiveRequest(
        team="red", job_id=job.id, state=job_pb2.ARCHIVE_STATE_READY, file_id=9, filename="a.zip"
    )
    await client.unary(stub.RecordArchive, request, timeout_seconds=PATIENCE_SECONDS)
    async with asyncio.timeout(10):
        messages = await watching
    assert messages[-1].event.kind == job_pb2.JOB_EVENT_KIND_ARCHIVE_READY
    assert messages[-1].final


async def test_heartbeats_come_between(urls: DatabaseUrls) -> None:
    async with open_house(urls, HEARTBEAT_SECONDS="0.1") as house:
        team = house.team()
        job = await team.generate()
        beats = 0
        async for message in team.watch(job.id):
            beats += message.HasField("heartbeat")
            if beats == 3:
                assert message.sequence == 2
                break


async def test_a_leaving_server_sends_its_watchers_away(house: House) -> None:
    team = house.team()
    job = await team.generate()
    watching = asyncio.ensure_future(collect(team, job.id))  # noqa: TID251 - awaited below
    await eventually(lambda: house.app.hub.watchers == 1)
    house.app.hub.send_away()
    with pytest.raises(UnavailableError) as raised:
        await watching
    assert raised.value.reason == "GOING_AWAY"


async def test_watchers_that_leave_are_forgotten(house: House) -> None:
    team = house.team()
    job = await team.generate()
    stream = team.watch(job.id)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # a generator
    await eventually(lambda: house.app.hub.watchers == 0)


@pytest.mark.real
async def test_any_replica_serves_any_watcher(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with open_house(urls) as one, open_house(urls, SWEEP_SECONDS="60") as two:
        team = one.team()
        two.team()
        job = await team.generate()
        here, there = one.team(), two.team()
        watching = asyncio.gather(collect(here, job.id), collect(there, job.id))
        await eventually(lambda: one.app.hub.watchers == two.app.hub.watchers == 1)
        await one.worker().make_all(job.id)
        # The second house does not sweep: only a wake-up can have told it.
        async with asyncio.timeout(10):
            for messages in await watching:
                assert sequences(messages) == [1, 2, 3, 4, 5]
                assert messages[-1].final


async def test_lost_wake_ups_are_made_good_by_the_sweep(urls: DatabaseUrls) -> None:
    async with open_house(urls, SWEEP_SECONDS="0.2") as house:
        team = house.team()
        house.app.wakeups.mute()
        job = await team.generate()
        watching = asyncio.ensure_future(collect(team, job.id))  # noqa: TID251 - awaited below
        await eventually(lambda: house.app.hub.watchers == 1)
        await house.worker().make_all(job.id)
        async with asyncio.timeout(10):
            assert sequences(await watching) == [1, 2, 3, 4, 5]


BETWEEN = """
INSERT INTO events (job_id, sequence, team, kind, at, image_index, file_id, attempt, commit_order)
SELECT job_id, sequence + 1, team, kind, at, image_index, file_id, attempt, commit_order
FROM events WHERE job_id = %(job)s AND sequence = 2;
"""


# The duties of the house have another role, and wait for the table as well.
WAITS = """
SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND usename = 'enqueue_app'
"""


@pytest.mark.real
async def test_an_event_between_two_reads_is_not_taken_for_a_removed_one(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> None:
    urls = postgres_templates.database("enqueue")
    database = make_url(urls.app).database
    assert database
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    async with (
        open_house(urls, SWEEP_SECONDS="60") as house,
        await psycopg.AsyncConnection.connect(postgres_server.superuser_dsn(database)) as other,
    ):
        job = await house.team().generate()
        await other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        owner = TaskOwner()

        def read() -> asyncio.Task[Any]:
            page = JobSource(db).page(Scope("red", job.id), 2)
            return owner.spawn(page, name="page", awaited=True)

        reading = read()

        async def between() -> bool:
            nonlocal reading
            if reading.done() and reading.exception():
                reading = read()  # it waits two seconds for a lock
            # Within a transaction the sessions are looked at once, and remembered.
            await other.execute("SELECT pg_stat_clear_snapshot()")
            found = await other.execute(WAITS)
            return await found.fetchone() == (True,)

        await eventually(between)
        await other.execute(BETWEEN, {"job": job.id})
        await other.execute("UPDATE jobs SET last_sequence = 3")
        await other.commit()
        page = await reading
        assert (page.events, page.skipped_from) == ([], None)
        after = await JobSource(db).page(Scope("red", job.id), 2)
        assert [sequence for sequence, _ in after.events] == [3]
    await db.stop()


async def test_a_slow_watcher_is_skipped_forward_and_told() -> None:
    from services.enqueue.watch.updates import MAILBOX, Mailbox, Update  # noqa: PLC0415 - inner

    mailbox: Mailbox[int, str] = Mailbox(closed=False)
    for sequence in range(1, MAILBOX + 12):
        mailbox.put(Update(sequence, None, "as it stands"))
    first = mailbox.take()
    assert first is not None
    assert (first.skipped_from, first.cursor) == (1, MAILBOX + 1)
    rest = [update.cursor for _ in range(10) if (update := mailbox.take())]
    assert rest == list(range(MAILBOX + 2, MAILBOX + 12))
    assert mailbox.take() is None
