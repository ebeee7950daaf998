"""Bare wake-ups after a commit: LISTEN/NOTIFY against a RabbitMQ fan-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

from tests.benchmarks.load.calls import INSERT, PAYLOAD
from tests.benchmarks.load.tools import Tools, spread
from tests.support.eventually import eventually

Hint = Callable[[int], Awaitable[object]]
WAYS = ("notify after commit", "notify in transaction", "rabbitmq fan-out")


async def hints(
    _: Tools, *, dsn: str, amqp_url: str, way: str, rate: float, seconds: float
) -> dict[str, float]:
    """Commits rows at a rate, each followed by a hint; from the insert's start to its arrival."""
    sent: list[float] = []
    took: list[float] = []

    def heard(number: int) -> None:
        took.append(time.perf_counter() - sent[number])

    opening = _fanout(amqp_url, heard) if way == WAYS[2] else _listening(dsn, heard)
    async with (
        opening as hint,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as rows,
    ):
        begun = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            sent.append(time.perf_counter())
            if way == WAYS[1]:
                async with rows.transaction():
                    await rows.execute(INSERT, (PAYLOAD,))
                    await rows.execute("SELECT pg_notify('bench', %s)", (str(number),))
            else:
                await rows.execute(INSERT, (PAYLOAD,))
                await hint(number)
        await eventually(lambda: len(took) == len(sent), what="every hint is heard")
    return spread(took)


@asynccontextmanager
async def _listening(dsn: str, heard: Callable[[int], None]) -> AsyncIterator[Hint]:
    """pg_notify on a connection of its own, as enqueue does."""
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as notifier,
        asyncio.TaskGroup() as group,
    ):
        await listener.execute("LISTEN bench")

        async def listen() -> None:
            async for notice in listener.notifies():
                heard(int(notice.payload))

        task = group.create_task(listen())
        yield lambda n: notifier.execute("SELECT pg_notify('bench', %s)", (str(n),))
        task.cancel()


@asynccontextmanager
async def _fanout(amqp_url: str, heard: Callable[[int], None]) -> AsyncIterator[Hint]:
    """A fan-out exchange with one reader; unconfirmed and transient, as a hint may be."""
    import aio_pika  # noqa: PLC0415 - heavy, and of this scenario alone

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.declare_exchange("bench", aio_pika.ExchangeType.FANOUT)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            heard(int(message.body))

        await queue.consume(take, no_ack=True)
        yield lambda n: exchange.publish(aio_pika.Message(str(n).encode()), "")
