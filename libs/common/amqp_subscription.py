"""A consumer that outlives its channels: rebuilt after reconnects, deletions and cancels."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from libs.common.amqp_link import (
    RETRY,
    AmqpLink,
    AmqpParameters,
    LinkLostError,
    amqp_call,
    close_quietly,
    open_channel,
)
from libs.common.amqp_topology import REDECLARE_WAIT_SECONDS, Topology, ready_count
from libs.common.broker import Handler
from libs.common.broker_handling import HandlerSlots
from libs.common.lifecycle import TaskOwner

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
    from aiormq.abc import AbstractChannel as Underlay

log = structlog.get_logger()

STALL_RECHECK_SECONDS = 1.0  # a message on its way to us counts as ready for an instant


class AmqpDelivery:
    """One delivery; the first of ack, reject and requeue ends it, later ones do nothing.

    All are harmless on a dead channel: the broker has the message back already.
    """

    def __init__(self, queue: str, message: AbstractIncomingMessage) -> None:
        self._queue = queue
        self._message = message
        self._ended = False

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._queue

    @property
    def body(self) -> bytes:
        """The bytes as published."""
        return self._message.body

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, as far as the broker knows."""
        return bool(self._message.redelivered)

    async def ack(self) -> None:
        """Done with it."""
        await self._end("ack")

    async def reject(self) -> None:
        """To the dead letters."""
        await self._end("reject")

    async def requeue(self) -> None:
        """Back to the queue."""
        await self._end("requeue")

    async def _end(self, how: str) -> None:
        if self._ended:
            return
        self._ended = True
        message = self._message
        call = message.ack() if how == "ack" else message.reject(requeue=how == "requeue")
        try:
            await amqp_call(call)
        except LinkLostError as error:
            log.info("amqp.end_of_delivery_lost", queue=self._queue, how=how, error=str(error))


class AmqpSubscription:
    """A consumer of one queue, on a channel of its own.

    `_run` is the one task that opens channels and changes the consumer at the broker; pause and
    resume only say what is wanted, and wake it.
    """

    def __init__(
        self,
        link: AmqpLink,
        parameters: AmqpParameters,
        topology: Topology,
        *,
        queue: str,
        handler: Handler,
        prefetch: int,
        watch_seconds: float,
    ) -> None:
        self._link = link
        self._clock = parameters.clock
        self._ids = parameters.ids
        self._topology = topology
        self._queue = queue
        self._prefetch = prefetch
        self._watch_seconds = watch_seconds
        self._slots = HandlerSlots(
            queue, handler, limit=prefetch, clock=parameters.clock, ids=parameters.ids
        )
        self._wanted = True
        self._changed = asyncio.Event()  # wakes _run: wanted, cancelled or lost has changed
        self._quiet = asyncio.Event()  # a pause has nothing to wait for
        self._quiet.set()
        self._channel: AbstractChannel | None = None
        self._underlay: Underlay | None = None
        self._tag: str | None = None
        self._lost = False
        self._deliveries = 0
        self.closed = False
        self._owner = TaskOwner()

    def start(self) -> None:
        """Begins consuming as soon as the link is up."""
        self._owner.spawn(self._run(), name=f"amqp.consume.{self._queue}")
        self._owner.spawn(self._watch(), name=f"amqp.watch.{self._queue}")

    async def pause(self) -> None:
        """Take no further deliveries; returns when the broker has agreed or is gone."""
        self._wanted = False
        if self._tag is not None:
            self._quiet.clear()
        self._changed.set()
        await self._quiet.wait()

    async def resume(self) -> None:
        """Take deliveries again."""
        self._wanted = True
        self._quiet.set()  # a pause that still waits is overtaken
        self._changed.set()

    async def close(self) -> None:
        """End for good; closing the channel gives unfinished deliveries back."""
        self.closed = True
        await self._slots.close()
        await self._owner.close()
        self._quiet.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._link.wait_up()
                await self._consume(connection)
                failures = 0
            except LinkLostError as error:
                failures += 1
                log.warning("amqp.consume_failed", queue=self._queue, error=str(error))
            await self._clock.sleep(RETRY.wait(failures, self._ids))

    async def _consume(self, connection: AbstractConnection) -> None:
        """One channel from beginning to end; returns when it is lost."""
        self._lost = False
        channel, underlay = await open_channel(connection)
        self._channel, self._underlay = channel, underlay  # held: the library's hold is weak
        underlay.closing.add_done_callback(lambda _: self._on_channel_closed(channel))
        underlay.on_consumer_cancel_callbacks.add(self._on_cancelled)
        try:
            await amqp_call(channel.set_qos(prefetch_count=self._prefetch))
            while not self._lost:
                self._changed.clear()
                if not await self._match_wanted(connection, channel):
                    continue
                await self._changed.wait()
            log.warning("amqp.consumer_lost", queue=self._queue)
        finally:
            self._channel = self._underlay = self._tag = None
            self._quiet.set()
            self._slots.forget_waiting()
            await close_quietly(channel)

    async def _match_wanted(self, connection: AbstractConnection, channel: AbstractChannel) -> bool:
        """Makes the consumer at the broker what is wanted; False when that has changed since."""
        wanted = self._wanted
        if wanted and self._tag is None:
            # The queue may have been deleted: that is how most consumers are cancelled.
            if await ready_count(connection, self._queue) is None:
                log.warning("amqp.queue_missing", queue=self._queue)
                await self._clock.sleep(REDECLARE_WAIT_SECONDS)
                await self._topology.declare(connection)
            queue = await channel.get_queue(self._queue, ensure=False)
            tag = f"{self._queue}.{self._ids.token()[:8]}"
            self._tag = tag
            await amqp_call(queue.consume(partial(self._on_message, channel), consumer_tag=tag))
            log.info("amqp.consuming", queue=self._queue, prefetch=self._prefetch)
        elif not wanted and self._tag is not None:
            queue = await channel.get_queue(self._queue, ensure=False)
            await amqp_call(queue.cancel(self._tag))
            self._tag = None
        if self._tag is None:
            self._quiet.set()
        return wanted == self._wanted

    async def _on_message(self, channel: AbstractChannel, message: AbstractIncomingMessage) -> None:
        """Called in a task of the library's that dies with the channel: hands over at once."""
        if channel is self._channel:
            self._deliveries += 1
            self._slots.offer(AmqpDelivery(self._queue, message))

    def _on_channel_closed(self, channel: AbstractChannel) -> None:
        if channel is self._channel:
            self._lost = True
            self._changed.set()

    def _on_cancelled(self, frame: object) -> None:
        if getattr(frame, "consumer_tag", None) == self._tag:
            log.warning("amqp.consumer_cancelled", queue=self._queue)
            self._lost = True  # the channel may remember a queue that is no more
            self._changed.set()

    async def _watch(self) -> None:
        """Rebuilds a consumer that gets nothing while messages wait and it has room."""
        while True:
            seconds = self._ids.uniform(0.8, 1.2) * self._watch_seconds
            before = self._deliveries
            await self._clock.sleep(seconds)
            with suppress(LinkLostError):
                if await self._is_stalled(before):
                    await self._clock.sleep(STALL_RECHECK_SECONDS)
                    if await self._is_stalled(before):
                        log.warning("amqp.consumer_stalled", queue=self._queue)
                        self._lost = True
                        self._changed.set()

    async def _is_stalled(self, deliveries_before: int) -> bool:
        if self._tag is None or not self._link.up or self._slots.busy >= self._prefetch:
            return False
        if self._deliveries != deliveries_before:
            return False
        connection = await self._link.wait_up()
        return (await ready_count(connection, self._queue) or 0) > 0
