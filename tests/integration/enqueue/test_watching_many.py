"""Watching all jobs of a team: late commits, cursors, strangers, slow readers, replicas."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import job_pb2
from libs.common.db import Database
from libs.common.errors import InvalidArgumentError, UnavailableError
from services.enqueue.domain import EventKind
from services.enqueue.store import events, jobs
from services.enqueue.store.events import about
from services.enqueue.watch.updates import MAILBOX
from tests.integration.enqueue.house import CLOCK, House, open_house
from tests.integration.enqueue.listening import Listener, listening, numbers, open_event
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.fleet_team import patiently


async def test_a_team_hears_of_all_its_jobs_from_now_on_and_of_no_others(house: House) -> None:
    red, blue, worker = house.team(), house.team("blue"), house.worker()
    old = await red.generate()
    listener, second = Listener.team(red), Listener.team(red)
    async with listening(listener, second):
        assert listener.messages[0].HasField("heartbeat")
        await blue.generate()
        new = await red.generate()
        await worker.make_all(old.id)
        await worker.make_all(new.id)
        expected = [*numbers(new, 2), *numbers(old, 5, 3), *numbers(new, 5, 3)]
        await eventually(lambda: listener.events[-len(expected) :] == expected)
        await eventually(lambda: second.events[-len(expected) :] == expected)
        # Now is where all commits are sure: what was committed a moment before may still come.
        before = {*listener.events, *second.events} - set(expected)
        assert before <= set(numbers(old, 2))
    await eventually(lambda: house.app.hub.watchers == 0)


async def test_every_cursor_takes_up_where_it_was(house: House) -> None:
    team, worker = house.team(), house.worker()
    listener = Listener.team(team)
    async with listening(listener):
        jobs = [await team.generate() for _ in range(3)]
        for job in jobs:
            await worker.make_all(job.id)
        await eventually(lambda: len(listener.events) == 15)
    heard = listener.messages
    again = [Listener.team(team, message.cursor) for message in heard]
    async with listening(*again):
        for position, one in enumerate(again):
            rest = listener.events[position:]
            await eventually(partial(one.heard, rest))
            assert one.messages[0].HasField("heartbeat")
            assert one.messages[0].cursor == heard[position].cursor


NO_CURSORS = (
    "x", "1.2", "1.2.3.4", "1.2.-3", "01.2.3", " 1.2.3", "1.2.3\n", "1.2.3x", "٣.1.1",
    "1" * 20 + ".1.1", "9999999999999999999.1.1", f"{2**63 - 1}.1.1", "1." * 100_000,
)  # fmt: skip


async def test_cursors_that_no_watch_gave_are_refused(house: House) -> None:
    team = house.team()
    for cursor in NO_CURSORS:
        with pytest.raises(InvalidArgumentError) as raised:
            await Listener.team(team, cursor).run()
        assert raised.value.reason == "BAD_CURSOR", cursor
        assert [v.field for v in raised.value.violations] == ["after_cursor"]
    assert house.app.hub.watchers == 0


async def test_a_slow_reader_is_skipped_forward_and_told(house: House) -> None:
    team, updates = house.team(), house.app.hub.watch_team("red", None)
    first = await anext(updates)
    assert first.heartbeat
    listener = Listener.team(team)
    waiting = asyncio.ensure_future(anext(updates))  # noqa: TID251 - awaited below
    async with listening(listener):
        jobs = [await team.generate()]
        assert (await waiting).event is not None  # it is past the replay, and stops to read
        for _ in range(4):  # few at a time, or the listener is skipped forward as well
            jobs += await asyncio.gather(*(patiently(team.generate) for _ in range(MAILBOX // 3)))
            await eventually(partial(listener.heard_of, jobs))
    while (update := await anext(updates)).skipped_from is None:
        assert update.event is not None
    assert update.event is None
    assert not update.heartbeat
    assert first.cursor < update.skipped_from <= update.cursor
    await updates.aclose()  # type: ignore[attr-defined]  # a generator


async def test_lost_wake_ups_are_made_good_by_the_sweep(urls: DatabaseUrls) -> None:
    async with open_house(urls, SWEEP_SECONDS="0.2") as house:
        team = house.team()
        listener = Listener.team(team)
        async with listening(listener):
            house.app.wakeups.mute()
            job = await team.generate()
            await eventually(lambda: listener.events == numbers(job, 2))


async def test_watchers_hold_no_connection(urls: DatabaseUrls) -> None:
    async with open_house(urls, ENQUEUE_POOL_SIZE="2") as house:
        team = house.team()
        listeners = [Listener.team(team) for _ in range(20)]
        async with listening(*listeners):
            job = await patiently(team.generate)
            await eventually(lambda: all(one.events == numbers(job, 2) for one in listeners))


async def test_a_leaving_server_sends_its_watchers_away(house: House) -> None:
    listener = Listener.team(house.team())
    running = asyncio.ensure_future(listener.run())  # noqa: TID251 - awaited below
    await eventually(lambda: listener.messages)
    house.app.hub.send_away()
    with pytest.raises(UnavailableError) as raised:
        await running
    assert raised.value.reason == "GOING_AWAY"


async def test_heartbeats_come_between_with_the_last_cursor(urls: DatabaseUrls) -> None:
    async with open_house(urls, HEARTBEAT_SECONDS="0.1") as house:
        team = house.team()
        listener = Listener.team(team)
        async with listening(listener):
            job = await team.generate()
            await eventually(lambda: listener.events == numbers(job, 2))
            last = [m for m in listener.messages if m.HasField("event")][-1]
            await eventually(lambda: listener.messages[-1].HasField("heartbeat"))
            assert listener.messages[-1].cursor == last.cursor


@pytest.mark.real
async def test_a_jobs_events_come_by_number_whoever_drew_the_lower_transaction(
    postgres_templates: Any,
) -> None:
    urls = postgres_templates.database("enqueue")
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    async with open_house(urls) as house:
        team, worker = house.team(), house.worker()
        job = await team.generate(number_of_variations=2)
        fence = (await worker.claim(job.id)).fence
        listener = Listener.team(team)
        async with listening(listener):
            async with db.duty() as tx:
                await tx.scalar(sa.select(sa.func.pg_current_xact_id()))
                await worker.record(job.id, fence, 1, 101)  # event 4, by a later transaction
                counted = await jobs.count_image(tx, job.id)
                await events.add(tx, [about(counted, EventKind.REQUEUED)])
            await worker.record(job.id, fence, 2, 102)
            await eventually(lambda: listener.events[-3:] == numbers(job, 6, 4))
        again = Listener.team(team, listener.messages[-2].cursor)
        async with listening(again):
            await eventually(partial(again.heard, numbers(job, 6, 6)))
    await db.stop()


@pytest.mark.real
async def test_who_commits_late_is_not_skipped(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with open_house(urls, HEARTBEAT_SECONDS="0.1") as house:
        team = house.team()
        late = await team.generate()
        listener = Listener.team(team)
        async with listening(listener), open_event(urls, late.id) as commit:
            early = await team.generate()  # committed, and newer than what is still open
            beats = len(listener.messages) + 3
            await eventually(lambda: len(listener.messages) >= beats)
            assert listener.events == []
            replay = Listener.team(team, listener.messages[0].cursor)
            async with listening(replay):
                await eventually(lambda: len(replay.messages) > 3)
                assert replay.events == []
                await commit()
                expected = [(late.id, 3), *numbers(early, 2)]
                await eventually(lambda: replay.events == listener.events == expected)


@pytest.mark.real
async def test_any_replica_serves_any_watcher(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with open_house(urls) as one, open_house(urls, SWEEP_SECONDS="60") as two:
        here, there = Listener.team(one.team()), Listener.team(two.team())
        async with listening(here, there):
            # The second house does not sweep: only a wake-up can have told it.
            job = await one.team().generate()
            await one.worker().make_all(job.id)
            await eventually(lambda: here.events == there.events == numbers(job, 5))
        # What the one gave as a cursor, the other takes.
        again = Listener.team(one.team(), there.messages[1].cursor)
        async with listening(again):
            await eventually(lambda: again.events == numbers(job, 5, 2))
    assert job.state == job_pb2.JOB_STATE_QUEUED
