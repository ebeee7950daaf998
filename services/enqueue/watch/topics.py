"""The watchers of one kind of scope here, told by one read for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic

from libs.common.backoff import Backoff
from libs.common.ids import Ids
from libs.common.lifecycle import Duty
from services.enqueue.watch.openings import Openings
from services.enqueue.watch.sources import News, Scope, Source
from services.enqueue.watch.updates import Cursor, Mailbox, Pulse, Update, Whole

READ_SCOPES = 200  # in one round
SWEEP_SCOPES = 500  # in one query
HELD_BACK = Backoff(first_seconds=0.004, max_seconds=0.25)


@dataclass(slots=True, eq=False)
class _Topic(Generic[Cursor, Whole]):
    """The watchers of one scope, and the last cursor put into their mailboxes."""

    sent: Cursor
    mailboxes: set[Mailbox[Cursor, Whole]] = field(default_factory=set)


class Topics(Generic[Cursor, Whole]):
    """All topics of one kind.

    Args:
        name: of the kind, for logs.
        source: reads it.
        pulse: makes heartbeats due.
        openings: turns to read for a watch that opens.
        ids: jitter.
    """

    def __init__(
        self,
        name: str,
        source: Source[Cursor, Whole],
        pulse: Pulse,
        openings: Openings,
        ids: Ids,
    ) -> None:
        self._source: Source[Cursor, Whole] = source
        self._pulse = pulse
        self._openings = openings
        self._ids = ids
        self._topics: dict[Scope, _Topic[Cursor, Whole]] = {}
        self._dirty: set[Scope] = set()
        self._held_back: set[Scope] = set()
        self._held_rounds = 0
        self._again: asyncio.TimerHandle | None = None
        self._closing = False
        self._reader = Duty(f"watch.{name}", self._read, floor_seconds=3600, ids=ids)

    async def start(self) -> None:
        """Begins to read."""
        await self._reader.start()

    async def stop(self) -> None:
        """Sends the watchers away, and ends."""
        self.send_away()
        await self._reader.stop()
        if self._again is not None:
            self._again.cancel()

    def send_away(self) -> None:
        """Ends every watch with UNAVAILABLE."""
        self._closing = True
        for topic in self._topics.values():
            for mailbox in topic.mailboxes:
                mailbox.close()

    @property
    def watchers(self) -> int:
        """How many watch."""
        return sum(len(topic.mailboxes) for topic in self._topics.values())

    def heard(self, scope: Scope) -> None:
        """Something is new there; does nothing where nobody watches it."""
        if scope in self._topics:
            self._dirty.add(scope)
            self._reader.wake()

    async def watch(
        self, scope: Scope, after: Cursor | None
    ) -> AsyncIterator[Update[Cursor, Whole]]:
        """The updates of a scope behind the cursor; after a final one nothing follows."""
        # Before anything is subscribed: what is shared with others must not come from a stranger.
        async with self._openings.turn():
            start = await self._source.start(scope, after)
        mailbox: Mailbox[Cursor, Whole] = Mailbox(closed=self._closing)
        self._topics.setdefault(scope, _Topic(start.sent)).mailboxes.add(mailbox)
        try:
            cursor, final = start.after, False
            if start.greeting:
                yield Update(cursor)
            # Each watcher reads a replay of its own; thousands of them must not keep its last job.
            async for update in self._replay(scope, cursor):
                cursor, final = update.cursor, update.final
                yield update
                del update
            while not final:
                news = mailbox.take()
                if news is None:
                    if not await self._nudged(mailbox):
                        yield Update(cursor)
                elif news.cursor > cursor:  # else the replay had it already
                    cursor, final = news.cursor, news.final
                    yield news
        finally:
            self._unsubscribe(scope, mailbox)

    def _unsubscribe(self, scope: Scope, mailbox: Mailbox[Cursor, Whole]) -> None:
        topic = self._topics[scope]
        topic.mailboxes.discard(mailbox)
        if not topic.mailboxes:
            del self._topics[scope]

    async def _replay(self, scope: Scope, after: Cursor) -> AsyncIterator[Update[Cursor, Whole]]:
        """What there is already, then the whole as it stands."""
        cursor = after
        while True:
            async with self._openings.turn():
                page = await self._source.page(scope, cursor)
            for cursor, event in page.events:
                yield Update(cursor, event, page.whole)
            if page.more:
                continue
            if page.whole is not None:
                yield Update(page.end, None, page.whole, page.skipped_from, final=page.final)
            if page.held_back:
                self._hold_back(scope)
            return

    async def _nudged(self, mailbox: Mailbox[Cursor, Whole]) -> bool:
        """Waits until there may be something to take; False after a silence."""
        self._pulse.add(mailbox)
        try:
            await mailbox.nudged()
        except BaseException:
            self._pulse.remove(mailbox)
            raise
        return self._pulse.remove(mailbox)

    async def _read(self) -> bool:
        """Reads what is new in dirty scopes, once for all their watchers."""
        dirty = set(islice(self._dirty, READ_SCOPES))
        # Before the read: a wake-up that comes during it is about something newer.
        self._dirty -= dirty
        try:
            if cursors := self._cursors(dirty):
                for scope, news in (await self._source.news(cursors)).items():
                    self._publish(scope, news)
        except BaseException:
            self._dirty |= dirty
            raise
        if not self._held_back:
            self._held_rounds = 0
        return bool(self._dirty)

    def _cursors(self, scopes: Iterable[Scope]) -> dict[Scope, Cursor]:
        """What was sent, of scopes that are watched still."""
        return {scope: self._topics[scope].sent for scope in scopes if scope in self._topics}

    def _publish(self, scope: Scope, news: News[Cursor, Whole]) -> None:
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
            pause = HELD_BACK.wait(self._held_rounds, self._ids)
            self._again = asyncio.get_running_loop().call_later(pause, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._dirty |= self._held_back
        self._held_back.clear()
        self._reader.wake()

    async def sweep(self) -> None:
        """Finds what moved on without a wake-up having come."""
        watched = list(self._topics)
        for start in range(0, len(watched), SWEEP_SCOPES):
            cursors = self._cursors(watched[start : start + SWEEP_SCOPES])
            if cursors:
                self._dirty |= await self._source.behind(cursors)
        if self._dirty:
            self._reader.wake()
