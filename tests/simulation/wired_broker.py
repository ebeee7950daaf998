"""The played broker, with readers: nodes subscribe to its queues, and give back when they die."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextvars import Context
from random import Random

from libs.common.broker import TOPOLOGY, Handler, Message
from libs.common.clock import Clock
from tests.simulation.broker import Look, PlayedBroker
from tests.simulation.loop import Node

PUMP_SECONDS = 0.01
TALK = ("assets.jobs", "packager.jobs")


class WiredBroker(PlayedBroker):
    """Brings messages to who reads a queue, in any order, each until it is settled."""

    def __init__(self, random: Random, clock: Clock, look: Look) -> None:
        super().__init__(random, clock, look)
        self._dice = random
        self.readers: dict[str, list[Reader]] = defaultdict(list)

    def arrive(self, message: Message) -> None:
        """In each queue that is bound to its routing key."""
        for queue in TOPOLOGY:
            if message.routing_key in queue.routing_keys:
                self.queues[queue.name].append(message.body)

    @property
    def idle(self) -> bool:
        """Whether what services tell each other of jobs has all been taken in."""
        readers = [reader for name in TALK for reader in self.readers[name]]
        held = any(reader.holds for reader in readers)
        return not (held or self._delayed or any(self.queues[name] for name in TALK))

    def pump_later(self) -> None:
        """Soon, and by nobody's process."""
        asyncio.get_running_loop().call_later(
            self._dice.uniform(0, PUMP_SECONDS), self.pump, context=Context()
        )

    def pump(self) -> None:
        """Gives each reader with room a message."""
        for queue in TOPOLOGY:
            self._share_out(queue.name)

    def _share_out(self, name: str) -> None:
        while self.has(name):
            free = [reader for reader in self.readers[name] if reader.has_room]
            if not free:
                return
            body = self.take(name)
            assert body is not None  # has said so
            self._dice.choice(free).give(body)

    def of(self, node: Node) -> NodesBroker:
        """As one process sees it."""
        return NodesBroker(self, node)


class NodesBroker:
    """One process's connection."""

    connected = True

    def __init__(self, broker: WiredBroker, node: Node) -> None:
        self._broker = broker
        self._node = node

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """As the dice say."""
        confirmed = await self._broker.publish(messages)
        self._broker.pump_later()
        return confirmed

    async def consume(self, queue: str, handler: Handler, *, prefetch: int) -> Reader:
        """Reads a queue."""
        reader = Reader(self._broker, self._node, queue, handler, prefetch)
        self._broker.readers[queue].append(reader)
        self._node.on_crash.append(reader.lost)
        self._broker.pump_later()
        return reader


class Reader:
    """One subscription."""

    def __init__(
        self, broker: WiredBroker, node: Node, queue: str, handler: Handler, prefetch: int
    ) -> None:
        self._broker = broker
        self._node = node
        self._handler = handler
        self._prefetch = prefetch
        self._paused = False
        self._held: list[Delivered] = []
        self.queue = queue

    @property
    def has_room(self) -> bool:
        """Whether it takes another."""
        return self._node.up and not self._paused and len(self._held) < self._prefetch

    @property
    def holds(self) -> bool:
        """Whether it has something in hand."""
        return bool(self._held)

    def give(self, body: bytes) -> None:
        """A delivery."""
        delivery = Delivered(self, body)
        self._held.append(delivery)
        self._node.spawn(self._handle(delivery), name="delivery")

    async def _handle(self, delivery: Delivered) -> None:
        try:
            await self._handler(delivery)
        except Exception:  # noqa: BLE001 - as the real one: it comes again
            await delivery.requeue()

    def settle(self, delivery: Delivered, *, again: bool) -> None:
        """It is done with, or back in the queue."""
        if delivery in self._held:
            self._held.remove(delivery)
            if again:
                self._broker.queues[self.queue].append(delivery.body)
            self._broker.pump_later()

    def lost(self) -> None:
        """Its process has died."""
        if self in self._broker.readers[self.queue]:
            self._broker.readers[self.queue].remove(self)
        for delivery in list(self._held):
            self.settle(delivery, again=True)

    async def pause(self) -> None:
        """No more for now."""
        self._paused = True

    async def resume(self) -> None:
        """More again."""
        self._paused = False
        self._broker.pump_later()

    async def close(self) -> None:
        """For good."""
        self.lost()


class Delivered:
    """A message in somebody's hands."""

    redelivered = False

    def __init__(self, reader: Reader, body: bytes) -> None:
        self._reader = reader
        self.body = body
        self.queue = reader.queue

    async def ack(self) -> None:
        """Done with."""
        self._reader.settle(self, again=False)

    async def reject(self) -> None:
        """Never again."""
        self._reader.settle(self, again=False)

    async def requeue(self) -> None:
        """Not now."""
        self._reader.settle(self, again=True)
