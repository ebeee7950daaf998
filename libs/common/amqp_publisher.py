"""Publishing with confirms over a connection that does nothing else.

Apart from the consumers', because under a memory or disk alarm the broker stops reading from
publishers: an ack on the same connection would seem sent and never arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from libs.common.amqp_link import AmqpLink, AmqpParameters, LinkLostError, amqp_call, open_channel
from libs.common.amqp_topology import REDECLARE_WAIT_SECONDS, Topology
from libs.common.broker import EXCHANGE, Message
from libs.common.crash import CrashPoints
from libs.common.errors import UnavailableError
from libs.common.lifecycle import TaskOwner

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

log = structlog.get_logger()


class AmqpPublisher:
    """One publishing link: `publish` is all or UnavailableError."""

    def __init__(
        self,
        parameters: AmqpParameters,
        topology: Topology,
        *,
        timeout_seconds: float,
        crash: CrashPoints,
    ) -> None:
        self.link = AmqpLink(parameters, purpose="publish", prepare=self._prepare)
        self._clock = parameters.clock
        self._ids = parameters.ids
        self._timeout_seconds = timeout_seconds
        self._crash = crash
        self._topology = topology
        self._channel: AbstractChannel | None = None  # held: the library keeps it only weakly
        self._exchange: AbstractExchange | None = None
        self._in_flight: set[str] = set()
        self._owner = TaskOwner()
        self._mending: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends what it does in the background; the link is ended by who runs it."""
        await self._owner.close()

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Publishes all in flight together; False for what was not routed or was refused."""
        if not messages:
            return []
        if not self.link.up or self._exchange is None:
            raise UnavailableError("the message broker is not connected")
        connection, exchange = await self.link.wait_up(), self._exchange
        try:
            results = await amqp_call(
                self._publish_all(connection, exchange, messages), seconds=self._timeout_seconds
            )
        except LinkLostError as error:
            await self._suspect(connection)
            raise UnavailableError("the message broker did not confirm in time") from error
        self._mend_unroutable(messages, results)
        return results

    async def _prepare(self, connection: AbstractConnection) -> None:
        await self._topology.declare(connection)
        self._channel, inner = await open_channel(connection, confirms=True)
        self._exchange = await self._channel.get_exchange(EXCHANGE, ensure=False)
        self.link.drop_with(inner.closing, "publishing channel closed")

    async def _publish_all(
        self,
        connection: AbstractConnection,
        exchange: AbstractExchange,
        messages: Sequence[Message],
    ) -> list[bool]:
        # A blocked broker confirms nothing: what is sent now would pile up in the socket and
        # land, long outdated and many times over, when the alarm ends.
        await _unblocked(connection)
        tasks = [self._publish_one(exchange, message) for message in messages]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise LinkLostError(type(result).__name__) from result
        return [result is True for result in results]

    async def _publish_one(self, exchange: AbstractExchange, message: Message) -> bool:
        """True when confirmed and routed, False when returned or refused."""
        import aio_pika  # noqa: PLC0415 - the embedded mode never loads it
        from aio_pika import exceptions  # noqa: PLC0415

        wire_id = self._wire_id(message)
        self._in_flight.add(wire_id)
        try:
            confirmed = await exchange.publish(
                aio_pika.Message(
                    message.body,
                    message_id=wire_id,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                message.routing_key,
                mandatory=True,
            )
            # The broker has it; who asked for it is not told yet, and would publish it again.
            self._crash.here("E5")
        except exceptions.DeliveryError:  # returned as unroutable, or a nack
            return False
        finally:
            self._in_flight.discard(wire_id)
        return confirmed is not None

    def _wire_id(self, message: Message) -> str:
        """The message's id, or a fresh one while another of that id is in flight.

        The library matches returned messages to publishes by their message_id.
        """
        if message.message_id and message.message_id not in self._in_flight:
            return message.message_id
        return self._ids.token()

    async def _suspect(self, connection: AbstractConnection) -> None:
        """Gives up a connection that did not confirm, unless the broker says that it blocks."""
        try:
            async with asyncio.timeout(0):
                await _unblocked(connection)
        except TimeoutError:
            log.warning("amqp.publish_blocked")
            return
        log.warning("amqp.publish_unconfirmed")
        self.link.drop("publish not confirmed")

    def _mend_unroutable(self, messages: Sequence[Message], results: list[bool]) -> None:
        """Starts afresh when one of the topology's own keys led nowhere: a queue is gone."""
        missed = {m.routing_key for m, ok in zip(messages, results, strict=True) if not ok}
        if missed & self._topology.routing_keys and (self._mending is None or self._mending.done()):
            log.warning("amqp.unroutable", routing_keys=sorted(missed))
            self._mending = self._owner.spawn(self._mend(), name="amqp.mend")

    async def _mend(self) -> None:
        await self._clock.sleep(REDECLARE_WAIT_SECONDS)
        self.link.drop("a queue is missing")  # the new connection declares the topology


async def _unblocked(connection: AbstractConnection) -> None:
    """Returns at once, or when the broker reads publishers again."""
    if connection.transport is None:
        raise LinkLostError("closed")
    await connection.transport.ready()
