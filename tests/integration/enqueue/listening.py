"""Watchers of many jobs, for tests: read in the background; and events that commit late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from contentshop.enqueue.v1 import enqueue_pb2
from tests.integration.enqueue.house import Team
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

Event = tuple[int, int]  # job, number


class Listener:
    """A watch of many jobs, read in the background; `messages` so far."""

    def __init__(self, stream: AsyncIterator[Any]) -> None:
        self.messages: list[Any] = []
        self._stream = stream

    @classmethod
    def team(cls, team: Team, cursor: str = "") -> Listener:
        """Of all the team's jobs."""
        request = enqueue_pb2.WatchTeamRequest(after_cursor=cursor)
        return cls(team.client.stream(team.stub.WatchTeam, request))

    @classmethod
    def batch(cls, team: Team, batch_id: int, cursor: str = "") -> Listener:
        """Of a batch."""
        request = enqueue_pb2.WatchBatchRequest(batch_id=batch_id, after_cursor=cursor)
        return cls(team.client.stream(team.stub.WatchBatch, request))

    async def run(self) -> list[Any]:
        """Reads to the end; all messages."""
        async for message in self._stream:
            self.messages.append(message)
        return self.messages

    @property
    def events(self) -> list[Event]:
        """The events among the messages."""
        return [(m.event.job_id, m.event.sequence) for m in self.messages if m.HasField("event")]

    def heard(self, events: list[Event]) -> bool:
        """Whether those, and no others, came."""
        return self.events == events

    def heard_number(self, event: Event) -> bool:
        """Whether this one came, among others."""
        return event in self.events

    def heard_of(self, jobs: list[Any]) -> bool:
        """Whether something of those jobs, and of no others, came."""
        return {job_id for job_id, _ in self.events} == {job.id for job in jobs}


@asynccontextmanager
async def listening(*listeners: Listener) -> AsyncIterator[None]:
    """Inside it they listen; each has had its first message."""
    async with asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(listener.run()) for listener in listeners]
        await eventually(lambda: all(listener.messages for listener in listeners))
        try:
            yield
        finally:
            for task in work:
                task.cancel()


def numbers(job: Any, last: int, first: int = 1) -> list[Event]:
    """The events of a job from the first to the last."""
    return [(job.id, sequence) for sequence in range(first, last + 1)]


@asynccontextmanager
async def open_event(urls: DatabaseUrls, job_id: int) -> AsyncIterator[Any]:
    """An event of a job, written and not committed; gives what commits it."""
    dsn = make_url(urls.duty).set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(
            "UPDATE jobs SET last_sequence = last_sequence + 1 WHERE id = %s", (job_id,)
        )
        await connection.execute(
            "INSERT INTO events (job_id, sequence, team, kind, at, image_index, file_id, attempt, "
            "commit_order) SELECT id, last_sequence, team, 'REQUEUED', now(), 0, 0, 1, "
            "pg_current_xact_id()::text::bigint FROM jobs WHERE id = %s",
            (job_id,),
        )
        yield connection.commit
