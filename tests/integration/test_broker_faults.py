"""RabbitMQ dies, freezes, forgets and blocks: docs/LIFE-OF-A-JOB.md, the broker's rows."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator

import aio_pika
import pytest
from structlog.testing import capture_logs

from libs.common import amqp_link
from libs.common.broker import Delivery, Message, Queue
from libs.common.broker_amqp import AmqpBroker
from libs.common.clock import SystemClock
from libs.common.errors import UnavailableError
from libs.common.ids import SystemIds
from tests.conftest import started_or_skip
from tests.support.amqp import AmqpInspector
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import WATERMARK, RabbitServer

pytestmark = pytest.mark.real

QUEUE = "jobs.test"
TOPOLOGY = (Queue(QUEUE, (QUEUE,)),)


class Seen:
    """Acks and notes what it gets; holds the ack while `gate` is closed."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.ended = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, delivery: Delivery) -> None:
        self.bodies.append(delivery.body.decode())
        await self.gate.wait()
        await delivery.ack()
        self.ended += 1


def make_broker(url: str, *, timeout_seconds: float = 10.0, heartbeat: int = 10) -> AmqpBroker:
    return AmqpBroker(
        url,
        name="test",
        clock=SystemClock(),
        ids=SystemIds(),
        topology=TOPOLOGY,
        publish_timeout_seconds=timeout_seconds,
        heartbeat_seconds=heartbeat,
        watch_seconds=1.0,
    )


async def ring(broker: AmqpBroker, body: str) -> bool:
    return (await broker.publish([Message(QUEUE, body.encode(), body)]))[0]


async def rings(broker: AmqpBroker, body: str) -> bool:
    """As a relay would: no answer is no success, and tried again."""
    try:
        return await ring(broker, body)
    except UnavailableError:
        return False


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitServer]:
    """A node of our own: what we do to it would spoil others' tests."""
    yield from started_or_skip(RabbitServer)


@pytest.fixture
async def vhost(node: RabbitServer) -> str:
    name = f"t{secrets.token_hex(4)}"
    await asyncio.to_thread(node.create_vhost, name)
    return name


@pytest.fixture
async def broker(node: RabbitServer, vhost: str) -> AsyncIterator[AmqpBroker]:
    broker = make_broker(node.amqp_url_of(vhost))
    await broker.start()
    # Connected is not yet usable: the queue elects its leader first.
    await eventually(lambda: rings(broker, "first"))
    async with AmqpInspector(node.amqp_url_of(vhost)) as inspector:
        await inspector.purge(QUEUE)
    yield broker
    await broker.close()


@pytest.fixture
async def proxy(node: RabbitServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(node.host, node.port) as proxy:
        yield proxy


@pytest.fixture
async def inspector(node: RabbitServer, vhost: str) -> AsyncIterator[AmqpInspector]:
    async with AmqpInspector(node.amqp_url_of(vhost)) as inspector:
        yield inspector


async def test_killed_and_restarted(node: RabbitServer, broker: AmqpBroker) -> None:
    seen = Seen()
    await broker.consume(QUEUE, seen, prefetch=5)
    assert await ring(broker, "before")
    await eventually(lambda: seen.ended == 1)
    seen.gate.clear()
    assert await ring(broker, "held")
    await eventually(lambda: seen.bodies == ["before", "held"])
    await asyncio.to_thread(node.sync_metadata)
    await asyncio.to_thread(node.kill)
    await eventually(lambda: not broker.connected)
    with pytest.raises(UnavailableError):
        await ring(broker, "meanwhile")
    seen.gate.set()  # acks on the dead channel: harmless, and the message comes again
    await eventually(lambda: seen.ended == 2)
    await asyncio.to_thread(node.start)
    await eventually(lambda: broker.connected, timeout_seconds=30)
    # Connected is not yet usable: the queue elects its leader first.
    await eventually(lambda: rings(broker, "after"), timeout_seconds=30)
    await eventually(lambda: {"held", "after"} <= set(seen.bodies[2:]), timeout_seconds=20)


async def test_frozen_and_thawed(node: RabbitServer, vhost: str) -> None:
    broker = make_broker(node.amqp_url_of(vhost), timeout_seconds=4)
    seen = Seen()
    await broker.start()
    try:
        await broker.consume(QUEUE, seen, prefetch=5)
        await eventually(lambda: rings(broker, "before"), timeout_seconds=30)
        await eventually(lambda: seen.ended >= 1)
        node.pause()
        try:
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                await ring(broker, "meanwhile")
            assert time.monotonic() - started < 20
            assert not broker.connected
        finally:
            node.resume()
        await eventually(lambda: rings(broker, "after"), timeout_seconds=30)
        await eventually(lambda: "after" in seen.bodies)
    finally:
        await broker.close()


async def test_close_does_not_hang_on_a_frozen_node(node: RabbitServer, vhost: str) -> None:
    broker = make_broker(node.amqp_url_of(vhost), timeout_seconds=1)
    await broker.start()
    await eventually(lambda: broker.connected)
    await broker.consume(QUEUE, Seen(), prefetch=1)
    node.pause()
    try:
        started = time.monotonic()
        await broker.close()
        assert time.monotonic() - started < 15
    finally:
        node.resume()


async def test_what_does_not_close_in_time_is_closed(
    node: RabbitServer, vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker(node.amqp_url_of(vhost))
    await broker.start()
    await eventually(lambda: broker.connected)
    connections = [await broker._publisher.link.wait_up(), await broker._consuming.wait_up()]
    # The library gives a frozen node two seconds, and a busy machine made them more than ours.
    monkeypatch.setattr(amqp_link, "CLOSE_SECONDS", 0.05)
    node.pause()
    try:
        await broker.close()
    finally:
        node.resume()
    assert [each.is_closed for each in connections] == [True, True]


async def test_queue_deleted_while_consuming(broker: AmqpBroker, inspector: AmqpInspector) -> None:
    seen = Seen()
    await broker.consume(QUEUE, seen, prefetch=5)
    assert await ring(broker, "before")
    await eventually(lambda: seen.ended == 1)
    await inspector.delete(QUEUE)
    await eventually(lambda: rings(broker, "after"))
    await eventually(lambda: "after" in seen.bodies)


async def test_queue_deleted_where_nobody_consumes(
    broker: AmqpBroker, inspector: AmqpInspector
) -> None:
    await inspector.delete(QUEUE)
    assert not await ring(broker, "lost")
    await eventually(lambda: rings(broker, "after"))
    assert await inspector.ready(QUEUE) >= 1


async def test_a_lost_confirm_is_unavailable_and_may_have_landed(
    node: RabbitServer, vhost: str, proxy: TcpProxy, inspector: AmqpInspector
) -> None:
    broker = make_broker(node.amqp_url_of(vhost, port=proxy.port), timeout_seconds=1)
    await broker.start()
    try:
        await eventually(lambda: broker.connected)
        proxy.drop_s2c()
        with pytest.raises(UnavailableError):
            await ring(broker, "once")

        async def landed() -> bool:
            return await inspector.ready(QUEUE) == 1

        await eventually(landed)
        await proxy.heal()
        await eventually(lambda: rings(broker, "once"), timeout_seconds=20)
        assert await inspector.ready(QUEUE) >= 2  # and a slow confirm is tried again, too
    finally:
        await broker.close()


async def test_partition_is_noticed_and_healed(
    node: RabbitServer, vhost: str, proxy: TcpProxy
) -> None:
    broker = make_broker(node.amqp_url_of(vhost, port=proxy.port), heartbeat=1)
    seen = Seen()
    await broker.start()
    try:
        await broker.consume(QUEUE, seen, prefetch=5)
        await eventually(lambda: broker.connected)
        proxy.blackhole()  # nobody publishes: the heartbeat alone must notice
        await eventually(lambda: not broker.connected, timeout_seconds=15)
        await proxy.heal()
        await eventually(lambda: rings(broker, "after"), timeout_seconds=20)
        await eventually(lambda: "after" in seen.bodies, timeout_seconds=20)
    finally:
        await broker.close()


async def test_a_memory_alarm_stops_publishing_and_not_acks(
    node: RabbitServer, vhost: str, broker: AmqpBroker, inspector: AmqpInspector
) -> None:
    ringer, broker = broker, make_broker(node.amqp_url_of(vhost), timeout_seconds=1)
    seen, later = Seen(), Seen()
    seen.gate.clear()
    await broker.start()
    try:
        await eventually(lambda: broker.connected)
        subscription = await broker.consume(QUEUE, seen, prefetch=1)
        for body in "abc":
            assert await ring(ringer, body)
        await eventually(lambda: len(seen.bodies) == 1)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00000001")
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await ring(broker, "blocked")
        seen.gate.set()
        await eventually(lambda: seen.ended == 3)
        await subscription.close()
        assert await inspector.ready(QUEUE) == 0  # the acks arrived: nothing came back
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", WATERMARK)
        await eventually(lambda: rings(broker, "after"), timeout_seconds=20)
        await broker.consume(QUEUE, later, prefetch=5)
        await eventually(lambda: "after" in later.bodies)
        # Of the blocked tries only the first was sent, before the broker said so; where it says so
        # late, the second.
        assert later.bodies.count("blocked") < 3
    finally:
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", WATERMARK)
        await broker.close()


async def test_a_consumer_that_gets_nothing_is_rebuilt(broker: AmqpBroker) -> None:
    seen = Seen()
    subscription = await broker.consume(QUEUE, seen, prefetch=5)
    assert await ring(broker, "before")
    await eventually(lambda: seen.ended == 1)
    # Behind the subscription's back, as a broker's bug would.
    underlay, tag = subscription._underlay, subscription._tag
    assert underlay is not None
    assert tag is not None
    await underlay.basic_cancel(tag)
    assert await ring(broker, "unseen")
    await eventually(lambda: "unseen" in seen.bodies)


async def test_another_topology_keeps_it_disconnected(node: RabbitServer, vhost: str) -> None:
    url = node.amqp_url_of(vhost)
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        await channel.declare_queue(QUEUE, durable=True)
    with capture_logs() as logs:
        broker = make_broker(url)
        await broker.start()
        try:
            await eventually(lambda: [e for e in logs if e["event"] == "amqp.topology_mismatch"])
            assert not broker.connected
            with pytest.raises(UnavailableError):
                await ring(broker, "x")
        finally:
            await broker.close()
    assert {e["entity"] for e in logs if e["event"] == "amqp.topology_mismatch"} == {QUEUE}


async def test_wrong_credentials_are_said_and_not_hammered(node: RabbitServer) -> None:
    url = node.amqp_url.replace("guest:guest", "guest:wrong-password")
    with capture_logs() as logs:
        broker = make_broker(url)
        await broker.start()
        try:
            await eventually(lambda: [e for e in logs if e["event"] == "amqp.credentials_refused"])
            assert not broker.connected
        finally:
            await broker.close()
    assert "wrong-password" not in repr(logs)
    assert len([e for e in logs if e["event"] == "amqp.credentials_refused"]) <= 2


async def test_it_starts_without_a_broker(proxy: TcpProxy, node: RabbitServer, vhost: str) -> None:
    await proxy.refuse()
    broker = make_broker(node.amqp_url_of(vhost, port=proxy.port))
    await broker.start()
    try:
        seen = Seen()
        subscription = await broker.consume(QUEUE, seen, prefetch=1)
        await subscription.pause()
        with pytest.raises(UnavailableError):
            await ring(broker, "too early")
        await proxy.heal()
        await eventually(lambda: rings(broker, "first"), timeout_seconds=30)
        assert seen.bodies == []
        await subscription.resume()
        await eventually(lambda: "first" in seen.bodies)
    finally:
        await broker.close()
