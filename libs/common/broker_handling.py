"""Runs a handler for each delivery of a queue: what both brokers do alike."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from libs.common.backoff import Backoff
from libs.common.broker import Delivery, Handler
from libs.common.clock import Clock
from libs.common.errors import TRANSIENT
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner

log = structlog.get_logger()


# A part that is away is waited for with the delivery in hand: giving it back would count towards
# its delivery limit, and what enqueue says of a job must not be lost to an outage.
PATIENCE_SECONDS = 300.0


class Patience:
    """Tries work again while a part that it needs is away, late, busy or full, for some minutes.

    A part that does not take our token counts as away: its clock or its secret is being changed.

    Args:
        clock: for waits.
        ids: for jitter.
    """

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._backoff = Backoff(first_seconds=0.2, max_seconds=5.0)

    async def __call__(self, work: Callable[[], Awaitable[None]], *, job_id: int) -> None:
        """Does it; raises what it raised last, or what will not pass, at once."""
        gives_up_at = self._clock.monotonic() + PATIENCE_SECONDS
        failures = 0
        while True:
            try:
                await work()
            except TRANSIENT as error:
                if self._clock.monotonic() > gives_up_at:
                    raise
                failures += 1
                log.warning("message.waits", job_id=job_id, reason=error.reason)
                await self._clock.sleep(self._backoff.wait(failures, self._ids))
            else:
                return


class HandlerSlots:
    """At most `limit` handlers at once; what comes above that waits in order.

    A handler may end its delivery and work on. The broker then sends another, which waits here:
    a consumer whose handlers outlive their acks should be paused while it is full.
    """

    def __init__(self, queue: str, handler: Handler, *, limit: int, clock: Clock, ids: Ids) -> None:
        self._queue = queue
        self._handler = handler
        self._limit = limit
        self._clock = clock
        self._ids = ids
        self._backoff = Backoff(first_seconds=0.2, max_seconds=5.0)
        self._waiting: deque[Delivery] = deque()
        self._running = 0
        self._failures = 0
        self._closed = False
        self._owner = TaskOwner()

    @property
    def busy(self) -> int:
        """Deliveries here: with a handler, or waiting for one."""
        return self._running + len(self._waiting)

    def offer(self, delivery: Delivery) -> None:
        """Gives the delivery to the handler now, or when one of its slots is free."""
        if not self._closed:
            self._waiting.append(delivery)
            self._fill()

    def forget_waiting(self) -> None:
        """Drops what no handler has seen yet: its channel is gone, so it will come again."""
        self._waiting.clear()

    async def close(self) -> None:
        """Cancels the handlers and waits for them; what they had not ended is not ended here."""
        self._closed = True
        self._waiting.clear()
        await self._owner.close()

    def _fill(self) -> None:
        while self._waiting and self._running < self._limit and not self._closed:
            self._running += 1
            delivery = self._waiting.popleft()
            self._owner.spawn(self._handle(delivery), name=f"handler.{self._queue}")

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._handler(delivery)
            self._failures = 0
        except asyncio.CancelledError:
            if not self._closed:  # the handler's own doing: the delivery must not stay unended
                self._owner.spawn(delivery.requeue(), name=f"requeue.{self._queue}")
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the consumer lives on
            self._failures += 1
            log.warning(
                "broker.handler_failed",
                queue=self._queue,
                failures=self._failures,
                exc_info=error,
            )
            # The slot is held meanwhile, so a handler that always fails cannot spin.
            await self._clock.sleep(self._backoff.wait(self._failures, self._ids))
            await delivery.requeue()
        finally:
            self._running -= 1
            self._fill()
