"""A look at a RabbitMQ vhost from outside, over a connection of its own."""

from __future__ import annotations

from collections import defaultdict
from typing import Self

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity


class AmqpInspector:
    """Counts, reads dead letters, empties and deletes queues."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection | None = None
        self._dead: dict[str, list[bytes]] = defaultdict(list)

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def ready(self, queue: str) -> int:
        """How many messages wait in a queue; -1 where there is no such queue."""
        assert self._connection is not None
        channel = self._connection.channel(publisher_confirms=False)
        try:
            await channel.initialize()
            declared = await channel.declare_queue(queue, passive=True)
        except ChannelNotFoundEntity:
            return -1
        else:
            return declared.declaration_result.message_count or 0
        finally:
            await channel.close()

    async def dead(self, queue: str) -> list[bytes]:
        """All dead letters of a queue so far, oldest first."""
        assert self._connection is not None
        async with self._connection.channel(publisher_confirms=False) as channel:
            dead = await channel.get_queue(f"dead.{queue}", ensure=False)
            while (message := await dead.get(fail=False)) is not None:
                await message.ack()
                self._dead[queue].append(message.body)
        return self._dead[queue]

    async def purge(self, queue: str) -> None:
        """Empties a queue."""
        assert self._connection is not None
        async with self._connection.channel(publisher_confirms=False) as channel:
            await (await channel.get_queue(queue, ensure=False)).purge()

    async def delete(self, queue: str) -> None:
        """Deletes a queue with what is in it."""
        assert self._connection is not None
        async with self._connection.channel(publisher_confirms=False) as channel:
            await channel.queue_delete(queue)
