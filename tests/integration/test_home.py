"""What is left open on the servers is told by its name."""

from __future__ import annotations

from pathlib import Path

import aio_pika
import psycopg
import pytest
from aio_pika.connection import make_url

from libs.common.broker import Delivery
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.ids import SystemIds
from services.packager.consumer import QUEUE
from tests.support.home import Belongings, Session, comes_home, in_houses
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitServer


@pytest.mark.real
async def test_a_connection_of_the_database_is_named(
    postgres_server: PostgresServer, belonging: Session, tmp_path: Path
) -> None:
    before = Belongings(belonging, tmp_path)
    async with await psycopg.AsyncConnection.connect(postgres_server.superuser_dsn()) as held:
        await held.execute("SELECT 'forgotten'")
        left = Belongings(belonging, tmp_path).beyond(before)
        name = "database connection: postgres postgres idle in transaction SELECT 'forgotten'"
        assert name in left
    await comes_home(before, belonging, tmp_path, houses=False)


@pytest.mark.real
async def test_a_connection_of_the_broker_is_named(
    rabbit_server: RabbitServer, belonging: Session, tmp_path: Path
) -> None:
    before = Belongings(belonging, tmp_path)
    async with await aio_pika.connect(rabbit_server.amqp_url):
        left = Belongings(belonging, tmp_path).beyond(before)
        assert any(each.startswith("broker connection: from port ") for each in left), left
    await comes_home(before, belonging, tmp_path, houses=False)


async def test_a_connection_that_nobody_closed_is_named() -> None:
    connection = aio_pika.Connection(make_url("amqp://guest@localhost/a"))
    assert in_houses() == ["connection of the broker: amqp://guest@localhost/a"]
    await connection.close()
    assert in_houses() == []


async def test_a_subscription_is_named() -> None:
    broker = MemoryBroker(clock=SystemClock(), ids=SystemIds())

    async def handle(_: Delivery) -> None:
        raise AssertionError

    await broker.start()
    await broker.consume(QUEUE, handle, prefetch=1)
    assert in_houses() == [f"subscription: {QUEUE}, 0 in hand"]
    await broker.close()
    assert in_houses() == []
