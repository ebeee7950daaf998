"""What watchers are told, and where it waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from libs.common.errors import UnavailableError
from services.enqueue.domain import Event, Position

MAILBOX = 64  # updates kept for a slow watcher before it is skipped forward

Cursor = TypeVar("Cursor", int, Position)
Whole = TypeVar("Whole")


@dataclass(slots=True, eq=False)
class Update(Generic[Cursor, Whole]):
    """What a watcher is told: an event, or the whole as it stands, or nothing new.

    Shared by all who watch the same; only `rendered` is ever changed.

    Attributes:
        cursor: what to come back with.
        event: the event, if this is about one.
        whole: the job or the batch as it stands; None for a heartbeat and where all jobs of a
            team are watched.
        skipped_from: events from this cursor on were not sent one by one.
        final: nothing follows.
        rendered: the door's message, made by the first who sends it.
    """

    cursor: Cursor
    event: Event | None = None
    whole: Whole | None = None
    skipped_from: Cursor | None = None
    final: bool = False
    rendered: object = None

    @property
    def heartbeat(self) -> bool:
        """Whether it says nothing but that the stream lives."""
        return self.event is None and self.whole is None and self.skipped_from is None


class Mailbox(Generic[Cursor, Whole]):
    """What one watcher has not taken yet; bounded by coalescing.

    Thousands of them are idle at any time: a queue and a future are there only while needed.
    """

    __slots__ = ("_updates", "_waiter", "closed")

    def __init__(self, *, closed: bool) -> None:
        self._updates: deque[Update[Cursor, Whole]] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.closed = closed

    def put(self, update: Update[Cursor, Whole]) -> None:
        """Adds an update; beyond MAILBOX all become one that says what it skips."""
        if self._updates is None:
            self._updates = deque()
        updates = self._updates
        updates.append(update)
        if len(updates) > MAILBOX:
            first, last = updates[0], updates[-1]
            skipped = first.cursor if first.skipped_from is None else first.skipped_from
            updates.clear()
            updates.append(Update(last.cursor, None, last.whole, skipped, final=last.final))
        self.nudge()

    def nudge(self) -> None:
        """Lets the watcher look: something came, or it is to say that it lives."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Sends the watcher away once it has taken what is here."""
        self.closed = True
        self.nudge()

    def take(self) -> Update[Cursor, Whole] | None:
        """The next update, or None when there is none just now.

        Raises:
            UnavailableError: GOING_AWAY, and everything was taken.
        """
        if self._updates is None:
            if self.closed:
                raise UnavailableError(
                    "the server is going away; watch again with the cursor", reason="GOING_AWAY"
                )
            return None
        update = self._updates.popleft()
        if not self._updates:
            self._updates = None
        return update

    async def nudged(self) -> None:
        """Waits for the next nudge; call it when there is nothing to take."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Pulse:
    """Nudges who has waited for one interval; one timer for all of them.

    All wait equally long, so who came first is due first.

    Args:
        seconds: the interval.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[Mailbox[Any, Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, mailbox: Mailbox[Any, Any]) -> None:
        """Begins to wait."""
        loop = asyncio.get_running_loop()
        self._due[mailbox] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._beat)

    def remove(self, mailbox: Mailbox[Any, Any]) -> bool:
        """Waits no longer; False when its interval was over."""
        return self._due.pop(mailbox, None) is not None

    def stop(self) -> None:
        """Nudges nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._due:
            mailbox, due = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._beat)
                return
            del self._due[mailbox]
            mailbox.nudge()
