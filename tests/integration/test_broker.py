"""One contract, run on both brokers: what services may rely on, embedded or not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from libs.common.broker import Broker, Delivery, Message, Queue
from libs.common.broker_amqp import AmqpBroker
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.errors import InternalError, UnavailableError
from libs.common.ids import SystemIds
from tests.support.amqp import AmqpInspector
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitServer

QUEUE = "jobs.test"
TOPOLOGY = (
    Queue(QUEUE, (QUEUE,), delivery_limit=2),
    Queue("one.jobs", ("job.ended",)),
    Queue("two.jobs", ("job.enqueued", "job.ended")),
)


class Inspector(Protocol):
    async def ready(self, queue: str) -> int: ...
    async def dead(self, queue: str) -> list[bytes]: ...


class MemoryInspector:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def ready(self, queue: str) -> int:
        return self._broker.ready_count(queue)

    async def dead(self, queue: str) -> list[bytes]:
        return [message.body for message in self._broker.dead_letters(queue)]


class World:
    """A started broker and a look behind it."""

    def __init__(self, broker: Broker, inspector: Inspector) -> None:
        self.broker = broker
        self.inspector = inspector

    async def ring(self, *bodies: str, key: str = QUEUE) -> list[bool]:
        return await self.broker.publish([Message(key, body.encode(), body) for body in bodies])

    async def ready(self, queue: str = QUEUE) -> int:
        return await self.inspector.ready(queue)

    async def has_ready(self, count: int) -> bool:
        return await self.inspector.ready(QUEUE) == count

    async def dead(self) -> list[bytes]:
        return await self.inspector.dead(QUEUE)


class Recorder:
    """A handler that notes what it got and then does as told."""

    def __init__(self, then: Callable[[Delivery], Awaitable[None]] | None = None) -> None:
        self.bodies: list[str] = []
        self.redelivered: list[bool] = []
        self.running = 0
        self.most = 0
        self._then = then

    async def __call__(self, delivery: Delivery) -> None:
        self.bodies.append(delivery.body.decode())
        self.redelivered.append(delivery.redelivered)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await (self._then(delivery) if self._then else delivery.ack())
        finally:
            self.running -= 1


async def forever(_: Delivery) -> None:
    await asyncio.Event().wait()


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.real)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock, ids = SystemClock(), SystemIds()
    if request.param == "memory":
        memory = MemoryBroker(clock=clock, ids=ids, topology=TOPOLOGY)
        await memory.start()
        yield World(memory, MemoryInspector(memory))
        await memory.close()
        return
    server: RabbitServer = request.getfixturevalue("rabbit_server")
    url = await asyncio.to_thread(server.create_vhost, f"t{secrets.token_hex(4)}")
    broker = AmqpBroker(url, name="test", clock=clock, ids=ids, topology=TOPOLOGY)
    await broker.start()
    try:
        async with AmqpInspector(url) as inspector:
            await eventually(lambda: broker.connected, timeout_seconds=30)
            yield World(broker, inspector)
    finally:
        await broker.close()


async def test_messages_arrive_in_order_and_are_gone_after_ack(world: World) -> None:
    bodies = [f"{n}" for n in range(20)]
    assert await world.ring(*bodies) == [True] * 20
    seen = Recorder()
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await eventually(lambda: len(seen.bodies) == 20)
    assert seen.bodies == bodies
    assert not any(seen.redelivered)
    await eventually(lambda: world.has_ready(0))
    assert await world.dead() == []


async def test_one_key_reaches_every_queue_bound_to_it(world: World) -> None:
    assert await world.ring("ended", key="job.ended") == [True]
    assert await world.ring("new", key="job.enqueued") == [True]
    one, two = Recorder(), Recorder()
    await world.broker.consume("one.jobs", one, prefetch=5)
    await world.broker.consume("two.jobs", two, prefetch=5)
    await eventually(lambda: len(two.bodies) == 2 and len(one.bodies) == 1)
    assert one.bodies == ["ended"]
    assert two.bodies == ["ended", "new"]


async def test_what_no_queue_is_bound_to_is_reported(world: World) -> None:
    messages = [Message(QUEUE, b"a"), Message("nowhere", b"b"), Message(QUEUE, b"c")]
    assert await world.broker.publish(messages) == [True, False, True]
    assert await world.broker.publish([]) == []


async def test_the_same_message_id_twice_in_flight_is_two_messages(world: World) -> None:
    twins = [
        Message("nowhere", b"x", "1"),
        Message(QUEUE, b"y", "1"),
        Message("nowhere", b"z", "1"),
    ]
    assert await world.broker.publish(twins) == [False, True, False]


async def test_reject_goes_to_the_dead_letters(world: World) -> None:
    seen = Recorder(lambda delivery: delivery.reject())
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await world.ring("poison")
    assert await eventually(world.dead) == [b"poison"]
    assert seen.bodies == ["poison"]


async def test_requeue_comes_again_until_the_delivery_limit(world: World) -> None:
    seen = Recorder(lambda delivery: delivery.requeue())
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await world.ring("again")
    assert await eventually(world.dead) == [b"again"]
    assert seen.bodies == ["again"] * 3  # the first delivery and two redeliveries
    assert seen.redelivered == [False, True, True]


async def test_a_handler_that_raises_gets_the_message_again(world: World) -> None:
    async def first_fails(delivery: Delivery) -> None:
        if len(seen.bodies) == 1:
            raise ValueError("boom")
        await delivery.ack()

    seen = Recorder(first_fails)
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await world.ring("a", "b")
    await eventually(lambda: sorted(set(seen.bodies)) == ["a", "b"] and len(seen.bodies) == 3)
    await eventually(lambda: world.has_ready(0))
    assert await world.dead() == []


async def test_a_handler_that_cancels_itself_gets_the_message_again(world: World) -> None:
    async def first_cancels(delivery: Delivery) -> None:
        if len(seen.bodies) == 1:
            raise asyncio.CancelledError
        await delivery.ack()

    seen = Recorder(first_cancels)
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await world.ring("a")
    await eventually(lambda: seen.bodies == ["a", "a"])
    await eventually(lambda: world.has_ready(0))


async def test_ending_a_delivery_twice_changes_nothing(world: World) -> None:
    async def thrice(delivery: Delivery) -> None:
        await delivery.ack()
        await delivery.reject()
        await delivery.requeue()
        raise ValueError("after the ack")

    seen = Recorder(thrice)
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await world.ring("a", "b")
    await eventually(lambda: seen.bodies == ["a", "b"])
    await eventually(lambda: seen.running == 0)
    assert await world.ready() == 0
    assert await world.dead() == []


async def test_prefetch_bounds_what_is_handled_at_once(world: World) -> None:
    gate = asyncio.Event()

    async def wait_then_ack(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.ack()

    seen = Recorder(wait_then_ack)
    await world.broker.consume(QUEUE, seen, prefetch=3)
    await world.ring(*"abcdefgh")
    await eventually(lambda: seen.running == 3)
    await eventually(lambda: world.has_ready(5))
    gate.set()
    await eventually(lambda: len(seen.bodies) == 8)
    assert seen.most == 3


async def test_two_consumers_share_a_queue(world: World) -> None:
    gate = asyncio.Event()

    async def wait_then_ack(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.ack()

    left, right = Recorder(wait_then_ack), Recorder(wait_then_ack)
    await world.broker.consume(QUEUE, left, prefetch=1)
    await world.broker.consume(QUEUE, right, prefetch=1)
    await world.ring(*"abcdefghij")
    await eventually(lambda: left.running == right.running == 1)
    gate.set()
    await eventually(lambda: sorted(left.bodies + right.bodies) == list("abcdefghij"))


async def test_pause_takes_nothing_and_resume_takes_it(world: World) -> None:
    seen = Recorder()
    subscription = await world.broker.consume(QUEUE, seen, prefetch=2)
    await world.ring("before")
    await eventually(lambda: seen.bodies == ["before"])
    await subscription.pause()
    await world.ring("while paused")
    await eventually(lambda: world.has_ready(1))
    assert seen.bodies == ["before"]
    await subscription.resume()
    await eventually(lambda: seen.bodies == ["before", "while paused"])
    for _ in range(3):  # in quick succession, the last word holds
        await subscription.pause()
        await subscription.resume()
    await world.ring("after")
    await eventually(lambda: seen.bodies[-1] == "after")


async def test_pause_leaves_running_handlers_alone(world: World) -> None:
    gate = asyncio.Event()

    async def wait_then_ack(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.ack()

    seen = Recorder(wait_then_ack)
    subscription = await world.broker.consume(QUEUE, seen, prefetch=1)
    await world.ring("a", "b")
    await eventually(lambda: seen.running == 1)
    await subscription.pause()
    gate.set()
    await eventually(lambda: seen.running == 0)
    await subscription.close()
    await eventually(lambda: world.has_ready(1))
    assert seen.bodies == ["a"]


async def test_close_gives_unfinished_messages_back(world: World) -> None:
    stuck = Recorder(forever)
    subscription = await world.broker.consume(QUEUE, stuck, prefetch=2)
    await world.ring("a", "b", "c")
    await eventually(lambda: stuck.running == 2)
    await subscription.close()
    await subscription.close()  # harmless
    assert stuck.running == 0
    await eventually(lambda: world.has_ready(3))
    seen = Recorder()
    await world.broker.consume(QUEUE, seen, prefetch=1)
    await eventually(lambda: len(seen.bodies) == 3)
    assert sorted(seen.bodies) == ["a", "b", "c"]
    assert sorted(zip(seen.bodies, seen.redelivered, strict=True)) == [
        ("a", True),
        ("b", True),
        ("c", False),
    ]


async def test_an_unknown_queue_is_our_mistake(world: World) -> None:
    with pytest.raises(InternalError):
        await world.broker.consume("no.such", forever, prefetch=1)


async def test_after_close_it_is_not_connected(world: World) -> None:
    stuck = Recorder(forever)
    await world.broker.consume(QUEUE, stuck, prefetch=1)
    await world.ring("a")
    await eventually(lambda: stuck.running == 1)
    await world.broker.close()
    assert stuck.running == 0
    assert not world.broker.connected
    with pytest.raises(UnavailableError):
        await world.ring("b")
