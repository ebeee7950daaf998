"""The hub: all watchers of this process, told by one read per wake-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from libs.common.backoff import Backoff
from libs.common.db import Database
from libs.common.ids import Ids
from libs.common.lifecycle import Duty
from services.enqueue.domain import Job, Position
from services.enqueue.wakeups import WakeUp
from services.enqueue.watch.jobs import JobSource
from services.enqueue.watch.sources import News, Scope, Source
from services.enqueue.watch.teams import TeamSource
from services.enqueue.watch.updates import Cursor, Mailbox, Pulse, Update, Whole

READ_SCOPES = 200  # in one round
SWEEP_SCOPES = 500  # in one query


@dataclass(slots=True, eq=False)
class _Topic:
    """The watchers of one scope here, and the last cursor put into their mailboxes."""

    sent: Any
    mailboxes: set[Mailbox[Any, Any]] = field(default_factory=set)


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
        self._jobs = JobSource(db)
        self._teams = TeamSource(db)
        self._sources: dict[str, Source[Any, Any]] = {"job": self._jobs, "team": self._teams}
        self._pulse = Pulse(heartbeat_seconds)
        self._topics: dict[Scope, _Topic] = {}
        self._dirty: set[Scope] = set()
        self._held_back: set[Scope] = set()
        self._closing = False
        self._patience = Backoff(first_seconds=0.004, max_seconds=0.25)
        self._ids = ids
        self._reader = Duty("watch.read", self._read, floor_seconds=3600, ids=ids)
        self._sweeper = Duty("watch.sweep", self._sweep, floor_seconds=sweep_seconds, ids=ids)
        self._again: asyncio.TimerHandle | None = None
        self._held_rounds = 0

    async def start(self) -> None:
        """Begins to read for watchers."""
        await self._reader.start()
        await self._sweeper.start()

    async def stop(self) -> None:
        """Sends the watchers away, and ends."""
        self.send_away()
        self._pulse.stop()
        await self._sweeper.stop()
        await self._reader.stop()
        if self._again is not None:
            self._again.cancel()

    def send_away(self) -> None:
        """Ends every watch with UNAVAILABLE: another replica takes them, with their cursors."""
        self._closing = True
        for topic in self._topics.values():
            for mailbox in topic.mailboxes:
                mailbox.close()

    @property
    def watchers(self) -> int:
        """How many watch here."""
        return sum(len(topic.mailboxes) for topic in self._topics.values())

    def heard(self, wake_up: WakeUp) -> None:
        """A wake-up came; only what is watched here matters."""
        if wake_up.all_jobs:
            self._sweeper.wake()
        if not self._topics:
            return
        for job in wake_up.jobs:
            for scope in (
                Scope("job", job.team, job.job_id),
                Scope("batch", job.team, job.batch_id),
                Scope("team", job.team),
            ):
                if scope in self._topics:
                    self._dirty.add(scope)
        if self._dirty:
            self._reader.wake()

    def watch_job(self, team: str, job_id: int, after: int) -> AsyncIterator[Update[int, Job]]:
        """The job's updates behind the cursor, the last of them final.

        Raises, at the first step:
            NotFoundError: not this team's.
            InvalidArgumentError: a cursor past the last event.
            UnavailableError: the server is going away; come back with the cursor.
        """
        return self._watch(self._jobs, Scope("job", team, job_id), after)

    def watch_team(
        self, team: str, after: Position | None
    ) -> AsyncIterator[Update[Position, None]]:
        """The updates of all the team's jobs behind the cursor, or from now on; without end.

        Raises, at the first step:
            InvalidArgumentError: BAD_CURSOR, past the last event.
            UnavailableError: the server is going away; come back with the cursor.
        """
        return self._watch(self._teams, Scope("team", team), after)

    async def _watch(
        self, source: Source[Cursor, Whole], scope: Scope, after: Cursor | None
    ) -> AsyncIterator[Update[Cursor, Whole]]:
        # Before anything is subscribed: what is shared with others must not come from a stranger.
        start = await source.start(scope, after)
        with self._subscribed(scope, start.sent) as mailbox:
            cursor = start.after
            if start.greeting:
                yield Update(cursor)
            async for update in self._replay(source, scope, cursor):
                cursor = update.cursor
                yield update
                if update.final:
                    return
            while True:
                news = mailbox.take()
                if news is None:
                    if not await self._nudged(mailbox):
                        yield Update(cursor)
                    continue
                if news.cursor <= cursor:
                    continue  # the replay had it already
                cursor = news.cursor
                yield news
                if news.final:
                    return

    @contextmanager
    def _subscribed(self, scope: Scope, sent: Any) -> Iterator[Mailbox[Any, Any]]:
        mailbox: Mailbox[Any, Any] = Mailbox(closed=self._closing)
        topic = self._topics.setdefault(scope, _Topic(sent=sent))
        topic.mailboxes.add(mailbox)
        try:
            yield mailbox
        finally:
            topic.mailboxes.discard(mailbox)
            if not topic.mailboxes and self._topics.get(scope) is topic:
                del self._topics[scope]

    async def _replay(
        self, source: Source[Cursor, Whole], scope: Scope, after: Cursor
    ) -> AsyncIterator[Update[Cursor, Whole]]:
        """What there is already, then the whole as it stands."""
        cursor = after
        while True:
            page = await source.page(scope, cursor)
            for cursor, event in page.events:
                yield Update(cursor, event, page.whole)
            if page.more:
                continue
            if page.whole is not None:
                yield Update(page.end, None, page.whole, page.skipped_from, final=page.final)
            if page.held_back:
                self._hold_back(scope)
            return

    async def _nudged(self, mailbox: Mailbox[Any, Any]) -> bool:
        """Waits until there may be something to take; False after a silence."""
        self._pulse.add(mailbox)
        in_time = False
        try:
            await mailbox.nudged()
        finally:
            in_time = self._pulse.remove(mailbox)
        return in_time

    async def _read(self) -> bool:
        """Reads what is new in dirty scopes, once for all their watchers."""
        dirty = set(islice(self._dirty, READ_SCOPES))
        # Before the read: a wake-up that comes during it is about something newer.
        self._dirty -= dirty
        try:
            for kind, cursors in self._cursors(dirty).items():
                news = await self._sources[kind].news(cursors)
                for scope, found in news.items():
                    self._publish(scope, found)
        except BaseException:
            self._dirty |= dirty
            raise
        if not self._held_back:
            self._held_rounds = 0
        return bool(self._dirty)

    def _cursors(self, scopes: Iterable[Scope]) -> dict[str, dict[Scope, Any]]:
        """What was sent to the scopes that are watched still, by their kind."""
        cursors: dict[str, dict[Scope, Any]] = {}
        for scope in scopes:
            if (topic := self._topics.get(scope)) is not None:
                cursors.setdefault(scope.kind, {})[scope] = topic.sent
        return cursors

    def _publish(self, scope: Scope, news: News[Any, Any]) -> None:
        topic = self._topics.get(scope)
        if topic is None:
            return
        last = news.events[-1][0] if news.events else None
        for cursor, event in news.events:
            if cursor <= topic.sent:
                continue
            topic.sent = cursor
            update = Update(cursor, event, news.whole, final=news.final and cursor == last)
            for mailbox in topic.mailboxes:
                mailbox.put(update)
        if news.more:
            self._dirty.add(scope)
        if news.held_back:
            self._hold_back(scope)

    def _hold_back(self, scope: Scope) -> None:
        """Reads a scope again soon: an older transaction is still open, seldom for long."""
        self._held_back.add(scope)
        if self._again is None:
            self._held_rounds += 1
            pause = self._patience.wait(self._held_rounds, self._ids)
            self._again = asyncio.get_running_loop().call_later(pause, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._dirty |= self._held_back
        self._held_back.clear()
        self._reader.wake()

    async def _sweep(self) -> bool:
        """Finds what moved on without a wake-up having come."""
        watched = list(self._topics)
        for start in range(0, len(watched), SWEEP_SCOPES):
            part = watched[start : start + SWEEP_SCOPES]
            for kind, cursors in self._cursors(part).items():
                self._dirty |= await self._sources[kind].behind(cursors)
        if self._dirty:
            self._reader.wake()
        return False
