"""The broker inside `contentshop up`: RabbitMQ's promises, kept in one process, gone with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from libs.common.broker import TOPOLOGY, Handler, Message, Queue
from libs.common.broker_handling import HandlerSlots
from libs.common.clock import Clock
from libs.common.errors import InternalError, UnavailableError
from libs.common.ids import Ids

log = structlog.get_logger()

MAX_READY_MESSAGES = 100_000  # per queue; doorbells are bounded by admission, this by memory
MAX_DEAD_MESSAGES = 1_000  # per queue; the oldest go first


@dataclass(slots=True, eq=False)
class _Stored:
    """A message in a queue, with how often it was delivered."""

    message: Message
    number: int
    deliveries: int = 0


class _Lane:
    """One queue: ready messages in order, its subscriptions, its dead letters."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.ready: deque[_Stored] = deque()
        self.subscriptions: list[MemorySubscription] = []
        self.dead: deque[Message] = deque(maxlen=MAX_DEAD_MESSAGES)

    def deliver(self) -> None:
        """Gives ready messages to subscriptions with room, in turns."""
        while self.ready:
            taker = next((s for s in self.subscriptions if s.has_room), None)
            if taker is None:
                return
            self.subscriptions.remove(taker)
            self.subscriptions.append(taker)
            taker.take(self.ready.popleft())

    def give_back(self, stored: Sequence[_Stored]) -> None:
        """Puts messages back where they were, or to the dead letters past the limit."""
        for one in sorted(stored, key=lambda s: s.number, reverse=True):
            if one.deliveries > self.queue.delivery_limit:
                self.bury(one, "delivery_limit")
            else:
                self.ready.appendleft(one)

    def bury(self, stored: _Stored, why: str) -> None:
        """Moves a message to the dead letters."""
        log.warning(
            "broker.dead_letter",
            queue=self.queue.name,
            message_id=stored.message.message_id,
            why=why,
        )
        self.dead.append(stored.message)


class _MemoryDelivery:
    """One delivery; the first of ack, reject and requeue ends it, later ones do nothing."""

    def __init__(self, subscription: MemorySubscription, stored: _Stored) -> None:
        self._subscription = subscription
        self._stored = stored
        self._redelivered = stored.deliveries > 1

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._subscription.lane.queue.name

    @property
    def body(self) -> bytes:
        """The bytes as published."""
        return self._stored.message.body

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        return self._redelivered

    async def ack(self) -> None:
        """Done with it."""
        if self._end():
            self._subscription.lane.deliver()

    async def reject(self) -> None:
        """To the dead letters."""
        if self._end():
            self._subscription.lane.bury(self._stored, "rejected")
            self._subscription.lane.deliver()

    async def requeue(self) -> None:
        """Back to the queue, at its old place."""
        if self._end():
            self._subscription.lane.give_back([self._stored])
            self._subscription.lane.deliver()

    def _end(self) -> bool:
        return self._subscription.settle(self._stored)


class MemorySubscription:
    """A consumer of one queue."""

    def __init__(self, lane: _Lane, slots: HandlerSlots, *, prefetch: int) -> None:
        self.lane = lane
        self._slots = slots
        self._prefetch = prefetch
        self._unended: set[_Stored] = set()
        self._paused = False
        self._closed = False

    @property
    def has_room(self) -> bool:
        """Whether it takes another delivery now."""
        return not (self._paused or self._closed) and len(self._unended) < self._prefetch

    def take(self, stored: _Stored) -> None:
        """Delivers one message to the handler."""
        stored.deliveries += 1
        self._unended.add(stored)
        self._slots.offer(_MemoryDelivery(self, stored))

    def settle(self, stored: _Stored) -> bool:
        """Ends a delivery; False when it was ended before or the subscription is closed."""
        if stored not in self._unended:
            return False
        self._unended.discard(stored)
        return True

    async def pause(self) -> None:
        """Take no further deliveries."""
        self._paused = True

    async def resume(self) -> None:
        """Take deliveries again."""
        self._paused = False
        self.lane.deliver()

    async def close(self) -> None:
        """End for good; unfinished deliveries go back to the queue."""
        if self._closed:
            return
        self._closed = True
        await self._slots.close()
        self.lane.subscriptions.remove(self)
        unended, self._unended = self._unended, set()
        self.lane.give_back(list(unended))
        self.lane.deliver()


class MemoryBroker:
    """Queues in this process: per-queue order, prefetch, delivery limit, dead letters.

    Everything is gone when the process ends; the sweep rings again.
    """

    def __init__(self, *, clock: Clock, ids: Ids, topology: Sequence[Queue] = TOPOLOGY) -> None:
        self._clock = clock
        self._ids = ids
        self._lanes = {queue.name: _Lane(queue) for queue in topology}
        self._number = 0
        self._open = False

    async def start(self) -> None:
        """Opens it; there is nothing to wait for."""
        self._open = True

    async def close(self) -> None:
        """Ends all subscriptions and forgets all messages."""
        self._open = False
        for lane in self._lanes.values():
            for subscription in list(lane.subscriptions):
                await subscription.close()
            lane.ready.clear()

    @property
    def connected(self) -> bool:
        """Whether it is started and not closed."""
        return self._open

    def ready_count(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return len(self._lane(queue).ready)

    def dead_letters(self, queue: str) -> tuple[Message, ...]:
        """The newest dead letters of a queue, oldest first."""
        return tuple(self._lane(queue).dead)

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Publishes all; False for each that no queue is bound to.

        Raises:
            UnavailableError: not started, closed, or a queue is full.
        """
        if not self._open:
            raise UnavailableError("the broker is not open")
        return [self._route(message) for message in messages]

    async def consume(self, queue: str, handler: Handler, *, prefetch: int) -> MemorySubscription:
        """Calls handler for each delivery, at most `prefetch` at once."""
        lane = self._lane(queue)
        slots = HandlerSlots(queue, handler, limit=prefetch, clock=self._clock, ids=self._ids)
        subscription = MemorySubscription(lane, slots, prefetch=prefetch)
        lane.subscriptions.append(subscription)
        lane.deliver()
        return subscription

    def _lane(self, queue: str) -> _Lane:
        lane = self._lanes.get(queue)
        if lane is None:
            raise InternalError("no such queue in the topology")
        return lane

    def _route(self, message: Message) -> bool:
        lanes = [
            lane for lane in self._lanes.values() if message.routing_key in lane.queue.routing_keys
        ]
        if any(len(lane.ready) >= MAX_READY_MESSAGES for lane in lanes):
            raise UnavailableError("a queue is full")
        for lane in lanes:
            self._number += 1
            lane.ready.append(_Stored(message, self._number))
            lane.deliver()
        return bool(lanes)
