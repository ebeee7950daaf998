"""The topology at the broker: exchanges, quorum queues and their dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from libs.common.amqp_link import (
    CALL_SECONDS,
    LinkLostError,
    RefusedError,
    amqp_call,
    close_quietly,
    open_channel,
)
from libs.common.broker import DEAD_EXCHANGE, EXCHANGE, Queue

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection

log = structlog.get_logger()

# A queue that is deleted and declared again within milliseconds looks, to consumers and publishers
# that had not heard yet, like one that only moved (seen on 3.10.8): no basic.cancel comes, and
# confirmed messages show up seconds late. So whoever finds it missing lets the news spread first.
REDECLARE_WAIT_SECONDS = 0.5


class Topology:
    """What must be there; shared by all parts of a broker, so that they declare in turns."""

    def __init__(self, queues: Sequence[Queue]) -> None:
        self._queues = tuple(queues)
        self._lock = asyncio.Lock()
        self.queue_names = frozenset(queue.name for queue in queues)
        self.routing_keys = frozenset(key for queue in queues for key in queue.routing_keys)

    async def declare(self, connection: AbstractConnection) -> None:
        """Declares everything, on a channel of its own; doing it again changes nothing.

        Raises:
            RefusedError: something is there under that name with other arguments.
            LinkLostError: the broker did not answer.
        """
        async with self._lock:
            await _declare(connection, self._queues)


def dead_queue(queue: str) -> str:
    """Where a queue's dead letters are."""
    return f"dead.{queue}"


async def _declare(connection: AbstractConnection, queues: Sequence[Queue]) -> None:
    from aio_pika import exceptions  # noqa: PLC0415 - the embedded mode never loads it

    channel, _ = await open_channel(connection)
    current = EXCHANGE
    try:
        await amqp_call(channel.declare_exchange(EXCHANGE, "direct", durable=True))
        current = DEAD_EXCHANGE
        await amqp_call(channel.declare_exchange(DEAD_EXCHANGE, "direct", durable=True))
        for queue in queues:
            current = dead_queue(queue.name)
            await _declare_queue(channel, current, {})
            await _bind(channel, current, DEAD_EXCHANGE, queue.name)
            current = queue.name
            await _declare_queue(
                channel,
                current,
                {
                    "x-delivery-limit": queue.delivery_limit,
                    "x-dead-letter-exchange": DEAD_EXCHANGE,
                    "x-dead-letter-routing-key": queue.name,
                },
            )
            for key in queue.routing_keys:
                await _bind(channel, current, EXCHANGE, key)
    except LinkLostError as error:
        if isinstance(error.__cause__, exceptions.ChannelPreconditionFailed):
            log.error(  # noqa: TRY400 - the name says it all
                "amqp.topology_mismatch",
                entity=current,
                hint="it exists with other arguments; drain and delete it, or change TOPOLOGY",
            )
            raise RefusedError("topology mismatch") from error
        raise
    finally:
        await close_quietly(channel)


async def _declare_queue(
    channel: AbstractChannel, name: str, arguments: dict[str, str | int]
) -> None:
    # Durable and not exclusive: RabbitMQ 4 refuses transient shared queues.
    await amqp_call(
        channel.declare_queue(
            name, durable=True, arguments={"x-queue-type": "quorum", **arguments}
        ),
        seconds=2 * CALL_SECONDS,  # the leader's election after a broker's restart
    )


async def _bind(channel: AbstractChannel, queue: str, exchange: str, key: str) -> None:
    inner = await channel.get_underlay_channel()
    await amqp_call(inner.queue_bind(queue, exchange, routing_key=key))


async def ready_count(connection: AbstractConnection, queue: str) -> int | None:
    """How many messages wait in the queue, None where there is no such queue.

    Asked on a channel of its own: the broker answers a missing queue by closing the channel,
    and a consumer's channel takes its deliveries with it.
    """
    from aio_pika import exceptions  # noqa: PLC0415 - the embedded mode never loads it

    channel, inner = await open_channel(connection)
    try:
        declared = await amqp_call(inner.queue_declare(queue, passive=True))
    except LinkLostError as error:
        if isinstance(error.__cause__, exceptions.ChannelNotFoundEntity):
            return None
        raise
    finally:
        await close_quietly(channel)
    return declared.message_count
