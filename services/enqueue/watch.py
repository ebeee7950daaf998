"""Watching: any number of watchers, one read per wake-up, no connection held between events.

A watcher subscribes first, then reads the events after its cursor and the job as it stands, then
takes the tail from its mailbox. The hub reads once for all watchers of this process: a wake-up
names jobs, one pair of queries fetches what is new of them, and mailboxes get it. Sequence numbers
make doubles harmless. Wake-ups may be lost: the sweep compares the watched jobs' counters with
what was sent. See docs/decisions/0005-wake-ups.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from libs.common.db import Database
from libs.common.errors import NotFoundError, UnavailableError
from libs.common.ids import Ids
from libs.common.lifecycle import Duty
from services.enqueue.domain import Event, Job, cursor_past_end
from services.enqueue.store import events, jobs, leases
from services.enqueue.wakeups import WakeUp

log = structlog.get_logger()

MAILBOX = 64  # updates kept for a slow watcher before it is skipped forward
REPLAY_PAGE = 500
READ_BATCH = 200


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What a watcher is told: an event, or the job as it stands, or nothing new.

    Attributes:
        sequence: the cursor to come back with.
        event: the event, if this is about one.
        job: the job as it stands; None for a heartbeat.
        skipped_from: for a snapshot: events from this number on were not sent one by one.
        final: nothing follows.
    """

    sequence: int
    event: Event | None = None
    job: Job | None = None
    skipped_from: int = 0
    final: bool = False


@dataclass(slots=True, eq=False)
class _Mailbox:
    """What one watcher has not taken yet; bounded by coalescing."""

    updates: deque[Update] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def put(self, update: Update) -> None:
        """Adds an update; beyond MAILBOX all become one snapshot that says what it skips."""
        self.updates.append(update)
        if len(self.updates) > MAILBOX:
            first, last = self.updates[0], self.updates[-1]
            skipped = first.skipped_from or first.sequence
            self.updates.clear()
            self.updates.append(
                Update(last.sequence, None, last.job, skipped_from=skipped, final=last.final)
            )
        self.filled.set()


@dataclass(slots=True, eq=False)
class _Topic:
    """The watchers of one job here, and the last event number put into their mailboxes."""

    sent: int
    mailboxes: set[_Mailbox] = field(default_factory=set)


class WatchHub:
    """All watchers of this process.

    Args:
        db: read once per wake-up.
        heartbeat_seconds: silence before a heartbeat.
        sweep_seconds: floor for lost wake-ups.
        ids: jitter.
    """

    def __init__(
        self, db: Database, *, heartbeat_seconds: float, sweep_seconds: float, ids: Ids
    ) -> None:
        self._db = db
        self._heartbeat = heartbeat_seconds
        self._topics: dict[int, _Topic] = {}
        self._dirty: set[int] = set()
        self._closing = False
        self._reader = Duty("watch.read", self._read, floor_seconds=3600, ids=ids)
        self._sweeper = Duty("watch.sweep", self._sweep, floor_seconds=sweep_seconds, ids=ids)

    async def start(self) -> None:
        """Begins to read for watchers."""
        await self._reader.start()
        await self._sweeper.start()

    async def stop(self) -> None:
        """Sends the watchers away, and ends."""
        self.send_away()
        await self._sweeper.stop()
        await self._reader.stop()

    def send_away(self) -> None:
        """Ends every watch with UNAVAILABLE: another replica takes them, with their cursors."""
        self._closing = True
        for topic in self._topics.values():
            for mailbox in topic.mailboxes:
                mailbox.closed = True
                mailbox.filled.set()

    @property
    def watchers(self) -> int:
        """How many watch here."""
        return sum(len(topic.mailboxes) for topic in self._topics.values())

    def heard(self, wake_up: WakeUp) -> None:
        """A wake-up came; only jobs watched here matter."""
        if wake_up.all_jobs:
            self._sweeper.wake()
        fresh = self._topics.keys() & {job.job_id for job in wake_up.jobs}
        if fresh:
            self._dirty |= fresh
            self._reader.wake()

    async def watch(self, team: str, job_id: int, after: int) -> AsyncIterator[Update]:
        """The job's updates behind the cursor, the last of them final.

        Raises:
            NotFoundError: not this team's.
            InvalidArgumentError: a cursor past the last event.
            UnavailableError: the server is going away; come back with the cursor.
        """
        sent = await self._last_sequence(team, job_id, after)
        with self._subscribed(job_id, sent) as mailbox:
            cursor = after
            async for update in self._replay(team, job_id, after):
                cursor = update.sequence
                yield update
                if update.final:
                    return
            while True:
                update = await self._next(mailbox, cursor)
                if update.job is not None and update.sequence <= cursor:
                    continue  # the replay had it already
                cursor = update.sequence
                yield update
                if update.final:
                    return

    async def _last_sequence(self, team: str, job_id: int, after: int) -> int:
        """The job's last event number, once it is sure that this caller may watch from there.

        Before anything is subscribed: what is shared with other watchers must not come from one.
        """
        async with self._db.read(team) as tx:
            sequence = await jobs.last_sequence(tx, job_id, team)
        if sequence is None:
            raise NotFoundError("job")
        if after > sequence:
            raise cursor_past_end()
        return sequence

    @contextmanager
    def _subscribed(self, job_id: int, sent: int) -> Iterator[_Mailbox]:
        mailbox = _Mailbox(closed=self._closing)
        topic = self._topics.setdefault(job_id, _Topic(sent=sent))
        topic.mailboxes.add(mailbox)
        try:
            yield mailbox
        finally:
            topic.mailboxes.discard(mailbox)
            if not topic.mailboxes and self._topics.get(job_id) is topic:
                del self._topics[job_id]

    async def _replay(self, team: str, job_id: int, after: int) -> AsyncIterator[Update]:
        """What there is already, then the job as it stands.

        The events are read before the job: so the job is never older than an event sent with it,
        and the ending cannot slip between the two.
        """
        cursor = after
        while True:
            async with self._db.read(team) as tx:
                found = await events.after(tx, job_id, cursor, REPLAY_PAGE, team=team)
                job = await jobs.find(tx, job_id, team)
            if job is None:
                raise NotFoundError("job")
            for event in found:
                cursor = event.sequence
                yield Update(cursor, event, job)
            if cursor == job.last_sequence or not found:
                skipped = cursor + 1 if cursor < job.last_sequence else 0  # cleaned up
                yield Update(job.last_sequence, None, job, skipped_from=skipped, final=job.final)
                return

    async def _next(self, mailbox: _Mailbox, cursor: int) -> Update:
        while not mailbox.updates:
            if mailbox.closed:
                raise UnavailableError(
                    "the server is going away; watch again with the cursor", reason="GOING_AWAY"
                )
            mailbox.filled.clear()
            try:
                async with asyncio.timeout(self._heartbeat):
                    await mailbox.filled.wait()
            except TimeoutError:
                return Update(cursor)
        return mailbox.updates.popleft()

    async def _read(self) -> bool:
        """Reads what is new of dirty jobs, once for all their watchers."""
        dirty = list(self._dirty)[:READ_BATCH]
        # Before the read: a wake-up that comes during it is about something newer.
        self._dirty.difference_update(dirty)
        cursors = {job_id: self._topics[job_id].sent for job_id in dirty if job_id in self._topics}
        if cursors:
            try:
                async with self._db.read_all() as tx:
                    news = await events.after_each(tx, cursors)
                    found = await jobs.find_many(tx, list(cursors))  # after the events, as above
            except BaseException:
                self._dirty.update(cursors)
                raise
            for job in found:
                self._publish(job, news[job.id])
        return bool(self._dirty)

    def _publish(self, job: Job, news: list[Event]) -> None:
        topic = self._topics.get(job.id)
        if topic is None:
            return
        for event in news:
            if event.sequence <= topic.sent:
                continue
            topic.sent = event.sequence
            last = event.sequence == job.last_sequence
            update = Update(event.sequence, event, job, final=last and job.final)
            for mailbox in topic.mailboxes:
                mailbox.put(update)
        if topic.sent < job.last_sequence and news:
            self._dirty.add(job.id)  # it moved on between the two reads

    async def _sweep(self) -> bool:
        """Finds watched jobs that moved without a wake-up having come."""
        watched = list(self._topics)
        for start in range(0, len(watched), REPLAY_PAGE):
            async with self._db.read_all() as tx:
                part = watched[start : start + REPLAY_PAGE]
                sequences = await leases.watched_sequences(tx, part)
            for job_id, sequence in sequences.items():
                topic = self._topics.get(job_id)
                if topic is not None and topic.sent < sequence:
                    self._dirty.add(job_id)
        if self._dirty:
            self._reader.wake()
        return False
